"""Records as JSON lines in a file. What can't be written is reported by `flush` or `close`, never passed over."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from engine.values.errors import SinkError
from engine.values.records import Record, as_mapping

_ENOUGH_BYTES = 1 << 18  # worth a thread hop
_MOST_BYTES = 1 << 22  # what may wait in memory; copying it into the page cache takes about a millisecond
_PATIENCE = 1.0  # seconds after which less than enough is written, too, for people who follow the file

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class JsonLinesSink:
    """Writes one JSON object a line, `kind` first, UTF-8. Numbers that JSON lacks (NaN, infinity) become null.

    Lines gather in memory and are written in a thread. Should more than 4 MiB gather between two flushes, `write` puts
    them into the file itself: memory stays bounded and nothing is lost.
    """

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Opens the file, which is emptied. Raises `SinkError` when that fails. `clock` can be given by tests."""
        self.path = str(path)
        self._clock = clock
        self._lines: list[bytes] = []
        self._bytes = 0
        self._since = 0.0
        # Loop thread: lines become one chunk. Whoever holds the lock writes chunks, so their order stays.
        self._chunks: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._failure: OSError | None = None
        self._reported = False
        try:
            self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by close()
        except OSError as exc:
            raise self._error(exc) from exc

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._file.closed

    def write(self, record: Record) -> None:
        """Take a record. Loop thread only."""
        if self._failure is not None:
            return  # flush and close tell
        line = encode(record)
        if not self._lines:
            self._since = self._clock()
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes >= _MOST_BYTES:
            self._cut()
            self._drain()

    async def flush(self) -> None:
        """Write what waits if it is enough, or older than a second. Raises `SinkError` once when writing failed."""
        if self._lines and (self._bytes >= _ENOUGH_BYTES or self._clock() - self._since >= _PATIENCE):
            self._cut()
            await anyio.to_thread.run_sync(self._drain)
        self._report()

    async def close(self) -> None:
        """Write the rest, even when cancelled, and close the file. Idempotent. Raises `SinkError` as `flush` does."""
        if self.closed:
            return
        self._cut()
        try:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._drain)
        finally:
            self._file.close()
        self._report()

    def close_now(self) -> None:
        """The same, blocking, for a process that is about to end. Any thread, when the loop writes no more."""
        if self.closed:
            return
        self._cut()
        self._drain()
        self._file.close()
        self._report()

    def _cut(self) -> None:
        self._chunks.append(b"".join(self._lines))
        self._lines.clear()
        self._bytes = 0

    def _drain(self) -> None:
        """Write all chunks. Any thread."""
        with self._lock:
            try:
                while self._chunks and self._failure is None:
                    self._write_all(self._chunks.popleft())
            except OSError as exc:
                self._failure = exc
            if self._failure is not None:
                self._chunks.clear()

    def _write_all(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            view = view[self._file.write(view) or 0 :]

    def _report(self) -> None:
        if self._failure is not None and not self._reported:
            self._reported = True
            raise self._error(self._failure) from self._failure

    def _error(self, exc: OSError) -> SinkError:
        return SinkError(self.path, exc.strerror or str(exc))


def encode(record: Record) -> bytes:
    """A record as a line of JSON."""
    values = as_mapping(record)
    try:
        line = _encode(values)
    except ValueError:
        line = _encode({name: _finite(value) for name, value in values.items()})
    # A lone surrogate, which UTF-8 can't hold, becomes \udcXX: just what JSON writes for it.
    return line.encode("utf-8", "backslashreplace") + b"\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
