"""A capture that comes through a pipe: a thread reads and decompresses it into buffers, the loop's thread decodes them.

The thread waits in `poll` only, with a pipe of its own to be woken by; it never waits longer than for a free buffer.
"""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
import queue
import select
import stat
import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

from engine.capture.batches import Batch
from engine.capture.compression import HEAD_BYTES, Decompressor, compression_of
from engine.capture.decoder import Decoder
from engine.capture.reel import Reel, Warn, off_loop
from engine.capture.source import PCAP_HEADER_BYTES, MappedCapture, open_capture, read_format
from engine.values.errors import CaptureError
from engine.values.stats import SourceStats

_BODY: Final = 4 << 20  # bytes of a buffer that the thread fills, and
_ROOM: Final = 64 << 20  # those before them for what was not decoded of the buffer before; untouched pages cost nothing
_BUFFERS: Final = 3
_READ: Final = 1 << 16
_PAUSE_MS: Final = 100  # without anything new, after which what has come is handed on


class _Stopped(Exception):  # noqa: N818
    """Ends the thread."""


class _Buffer:
    """Memory of which the thread owns the body while it is filled, and the loop's thread all afterwards."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _ROOM + _BODY, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # The ctypes view is dropped at once: while one lives, the mapping can't be closed.
        self.body = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) + _ROOM
        self.used = 0

    def put(self, data: memoryview) -> int:
        """Append what there is room for; how much that was."""
        number = min(len(data), _BODY - self.used)
        start = _ROOM + self.used
        self._memory[start : start + number] = data[:number]
        self.used += number
        return number

    def head(self) -> bytes:
        """The first bytes, as many as a file header has."""
        return self._memory[_ROOM : _ROOM + min(self.used, PCAP_HEADER_BYTES)]

    def close(self) -> None:
        """Free the memory."""
        self._memory.close()


@dataclass(frozen=True, slots=True)
class _Part:
    """A buffer that the thread handed on."""

    buffer: _Buffer
    last: bool
    compressed: str = ""
    broken: bool = False
    """Last part only: whether the compressed stream broke."""
    error: CaptureError | None = None
    """Last part only: why no more could be read."""


class _Reader(threading.Thread):
    """The thread. `parts` is what it handed on, `free` the buffers that it may fill."""

    def __init__(self, descriptor: int, name: str, wake: asyncio.Event) -> None:
        super().__init__(name="offpath-pipe", daemon=True)
        self._descriptor = descriptor
        self._source = name
        self._loop = asyncio.get_running_loop()
        self._wake = wake
        self._stop_read, self._stop_write = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._stop_read, select.POLLIN)
        self._poll.register(descriptor, select.POLLIN)
        self.parts: deque[_Part] = deque()
        self._buffers = [_Buffer() for _ in range(_BUFFERS)]
        self.free: queue.SimpleQueue[_Buffer | None] = queue.SimpleQueue()
        for buffer in self._buffers[1:]:
            self.free.put(buffer)
        self._buffer = self._buffers[0]
        self._compressed = ""

    def run(self) -> None:
        """Until the end of the pipe, or `stop`."""
        try:
            error = None
            try:
                self._pump()
            except OSError as exc:
                error = CaptureError(self._source, exc.strerror or str(exc))
            except CaptureError as exc:
                error = exc
            broken = self._decompressor is not None and not self._decompressor.complete
            self._hand_on(_Part(self._buffer, True, self._compressed, broken, error))
        except _Stopped:
            pass

    _decompressor: Decompressor | None = None

    def _pump(self) -> None:
        head = b""
        while len(head) < HEAD_BYTES and (data := self._read()):
            head += data
        self._compressed = compression_of(head)
        if self._compressed:
            self._decompressor = Decompressor(self._compressed, self._source)
        data = head
        while data and not (self._decompressor is not None and self._decompressor.broken):
            for piece in self._decompressor.feed(data) if self._decompressor else (data,):
                self._write(piece)
            data = self._read()

    def _read(self) -> bytes:
        """The next bytes; nothing at the end. What came before is handed on when nothing follows for a moment."""
        if self._buffer.used >= PCAP_HEADER_BYTES and not self._ready(_PAUSE_MS):
            self._hand_on(_Part(self._buffer, False, self._compressed))
            self._take_free()
        self._ready(None)
        return os.read(self._descriptor, _READ)

    def _ready(self, milliseconds: int | None) -> bool:
        found = self._poll.poll(milliseconds)
        if any(descriptor == self._stop_read for descriptor, _ in found):
            raise _Stopped
        return bool(found)

    def _write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            if self._buffer.used == _BODY:
                self._hand_on(_Part(self._buffer, False, self._compressed))
                self._take_free()
            rest = rest[self._buffer.put(rest) :]

    def _take_free(self) -> None:
        buffer = self.free.get()
        if buffer is None:
            raise _Stopped
        buffer.used = 0
        self._buffer = buffer

    def _hand_on(self, part: _Part) -> None:
        self.parts.append(part)
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:  # the loop is closed: nobody waits any more
            raise _Stopped from None

    def stop(self) -> None:
        """Loop thread: end the thread and free what it had."""
        os.write(self._stop_write, b"x")
        self.free.put(None)
        self.join()
        os.close(self._stop_read)
        os.close(self._stop_write)
        for buffer in self._buffers:
            buffer.close()


class PipeReel(Reel):
    """Decodes a pipe as it comes. A descriptor that leads to a regular file is mapped like one instead."""

    def __init__(self, descriptor: int, name: str, warn: Warn) -> None:
        self._descriptor = descriptor
        self._name = name
        self._warn = warn
        self._reader: _Reader | None = None
        self._wake = asyncio.Event()
        self._part: _Part | None = None
        self._start = 0  # address of the present part, with what was left of the one before
        self._size = 0
        self._over = self._stopped = False
        self._mapped: MappedCapture | None = None

    async def next(self, decoder: Decoder, packets: int) -> Batch | None:
        """As in the base class."""
        if self._part is None and self._mapped is None:
            await self._begin(decoder)
        while not (self._over or self._stopped or decoder.has(packets)):
            if self._size - decoder.position > _ROOM:
                break  # such packets are huge: fewer of them must do
            if self._reader is not None and not self._reader.parts and decoder.has(1) and self._paused():
                break
            await self._extend(decoder)
        if self._over or self._stopped:
            return None
        batch = decoder.step(packets)
        self._over = batch.done
        return batch

    def _paused(self) -> bool:
        """Whether the present part was handed on before its buffer was full, as nothing followed."""
        return self._part is not None and self._part.buffer.used < _BODY

    async def _begin(self, decoder: Decoder) -> None:
        mode = self._mode()
        if stat.S_ISREG(mode):
            self._mapped = await off_loop(
                lambda stopped: open_capture(f"/dev/fd/{self._descriptor}", stopped=stopped, name=self._name),
                MappedCapture.close,
            )
            if self._mapped.cut_off:
                self._warn_of(self._mapped.compressed)
            decoder.begin(self._mapped)
            return
        self._reader = _Reader(self._descriptor, self._name, self._wake)
        self._reader.start()
        part = await self._take_part()
        if part is None:
            self._over = True
            return
        if part.error is not None and part.buffer.used < PCAP_HEADER_BYTES:
            raise part.error
        fmt = read_format(self._name, part.buffer.head(), compressed=part.compressed)
        self._part, self._start, self._size = part, part.buffer.body, part.buffer.used
        decoder.begin_parts(self._name, fmt, self._start, self._size, last=part.last)

    def _mode(self) -> int:
        try:
            return os.fstat(self._descriptor).st_mode
        except OSError as exc:
            raise CaptureError(self._name, exc.strerror or str(exc)) from exc

    async def _extend(self, decoder: Decoder) -> None:
        part = await self._take_part()
        if part is None:
            return
        assert self._part is not None
        assert self._reader is not None
        position = decoder.position
        left = self._size - position
        start = part.buffer.body - left
        ctypes.memmove(start, self._start + position, left)
        self._reader.free.put(self._part.buffer)
        self._part, self._start, self._size = part, start, left + part.buffer.used
        decoder.extend(start, self._size, last=part.last)

    async def _take_part(self) -> _Part | None:
        """The next part, or None when stopped."""
        assert self._reader is not None
        while not self._reader.parts and not self._stopped:
            self._wake.clear()
            await self._wake.wait()
        if self._stopped:
            return None
        part = self._reader.parts.popleft()
        if part.broken:
            self._warn_of(part.compressed)
        self.failure = part.error
        return part

    def _warn_of(self, compressed: str) -> None:
        self._warn(self._name, f"the {compressed} stream ends early or is broken")

    def stop(self) -> None:
        """As in the base class."""
        self._stopped = True
        self._wake.set()

    def stats(self) -> SourceStats:
        """As in the base class."""
        return SourceStats(files=int(self._part is not None or self._mapped is not None))

    def close(self) -> None:
        """As in the base class."""
        self.stop()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop()
        if self._mapped is not None:
            self._mapped.close()
