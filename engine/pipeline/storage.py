"""Stores packets: asks packet_storage plugins which, copies these, and writes off the loop. Loop thread only."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import lua_api
from engine.capture.batches import Batch
from engine.capture.decoder import Decoder
from engine.capture.pcap_files import PcapFolder, Run
from engine.plugins.plugin import Plugin
from engine.values.config import Config
from engine.values.errors import SinkError
from engine.values.stats import StoreStats
from engine.vm.state import LuaState

_RUN = struct.Struct("<4i2I")  # offpath_store_run_t in lua_api/storage.lua
_STORED_BYTES = 8  # of offpath_stored_t
_WAITING_BYTES = 64 << 20  # what may wait to be written; the source waits when it is more
_BOTH_DIRECTIONS = 3


class _Chunk(NamedTuple):
    runs: list[Run]
    records: memoryview


class _Written(NamedTuple):
    packets: int = 0
    size: int = 0
    lost: int = 0
    taken: int = 0
    """Bytes that no longer wait."""
    error: OSError | None = None


class PacketStore:
    """The packets of all sources of an engine go into one folder. Nothing is started before the first source."""

    def __init__(self, config: Config, plugins: Sequence[Plugin], log: Callable[[str, str, str], None]) -> None:
        """`plugins` is the live list of the engine; `log(about, level, text)` hears of a folder that takes no more."""
        self._folder = config.store
        self._file_bytes = config.store_mb * 1_000_000
        self._slice = config.slice_seconds
        self._rows = config.limits.flows
        self._plugins = plugins
        self._log = log
        self._asked: list[Plugin] = []
        self._decoder: Decoder | None = None
        self._ranks: mmap.mmap | None = None
        self._stored: mmap.mmap | None = None
        self._state: LuaState | None = None
        self._lua: dict[str, Any] = {}
        self._streams: dict[int, int] = {}  # bits of the directions whose first bytes were shown
        self._chunks: deque[_Chunk] = deque()
        self._waiting_bytes = self._waiting = 0
        self._pool: ThreadPoolExecutor | None = None
        self._job: asyncio.Future[_Written] | None = None
        self._writer: PcapFolder | None = None
        self._failure: OSError | None = None
        self._seen = self._packets = self._bytes = self._shortened = self._skipped = self._lost = 0

    @property
    def wanted(self) -> bool:
        """Whether packets are to be stored."""
        return self._folder is not None

    @property
    def wants_streams(self) -> bool:
        """Whether some plugin is to be shown payload."""
        return self.wanted and any("filter_payload" in plugin.hooks for plugin in self._voters())

    def _voters(self) -> list[Plugin]:
        return [plugin for plugin in self._plugins if plugin.block.name == "packet_storage" and plugin.hooks]

    def begin(self, decoder: Decoder) -> None:
        """Begin with the flows of a source. Raises `SinkError` when there is no folder to write into."""
        assert self._folder is not None
        if self._writer is None:
            self._writer = PcapFolder(_make_folder(self._folder), self._file_bytes)
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="offpath-store")
            self._state = LuaState()
            self._state.add_modules("offpath", Path(lua_api.__file__).parent)
            module = self._state.require("offpath.storage")
            self._lua = {name: module[name.encode()] for name in ("renew", "choose", "write")}
        self._forget()
        self._decoder = decoder
        self._ranks, self._stored = mmap.mmap(-1, self._rows + 1), mmap.mmap(-1, _STORED_BYTES * (self._rows + 1))
        self._asked = []

    def _forget(self) -> None:
        """Let go of what is known of flows."""
        for memory in (self._ranks, self._stored):
            if memory is not None:
                memory.close()
        self._ranks = self._stored = self._decoder = None
        self._streams.clear()

    async def ask(self, batch: Batch) -> None:
        """Show the new flows of a batch, and the first datagrams, to the plugins."""
        self._lua["renew"](batch.frames, batch.frame_count, *self._places())
        began = time.perf_counter()
        for plugin in self._voters():
            if plugin.closed:
                continue
            self._introduce(plugin)
            plugin.ask_storage(batch.frames, batch.frame_count)
            if time.perf_counter() - began > self._slice:
                await asyncio.sleep(0)
                began = time.perf_counter()

    def _places(self) -> tuple[int, int]:
        """Where it is kept what was answered, and stored, of each flow row."""
        assert self._ranks is not None
        assert self._stored is not None
        return _address(self._ranks), _address(self._stored)

    def _introduce(self, plugin: Plugin) -> None:
        """Begin with the flows of the source in a plugin that was not asked about them before."""
        if plugin not in self._asked:
            assert self._ranks is not None
            self._asked.append(plugin)
            plugin.begin_storage(_address(self._ranks), self._rows)

    # ---- streams (`StreamTaker`)

    hears_end = False

    def open(self, stream: int, flow: bytes, roles_known: bool, time: float) -> bool:  # noqa: ARG002
        """A TCP stream begins."""
        if not self.wants_streams:
            return False
        self._streams[stream] = 0
        return True

    def data(self, stream: int, direction: int, position: int, time: float, data: bytes) -> bool:
        """Bytes of a stream; whether more of it is wanted."""
        seen = self._streams.get(stream)
        if seen is None:
            return False
        if not seen & 1 << direction:
            seen |= 1 << direction
            assert self._decoder is not None
            self._vote(self._decoder.flow_key(stream), time, direction, position, data)
        if seen == _BOTH_DIRECTIONS:
            del self._streams[stream]
            return False
        self._streams[stream] = seen
        return True

    def gap(self, stream: int, direction: int, position: int, length: int, time: float) -> None:
        """Bytes of a stream that are missing: what comes behind them counts as the first."""

    def end(self, stream: int, time: float, *, over: int) -> None:  # noqa: ARG002
        """A stream has ended."""
        self._streams.pop(stream, None)

    def close(self) -> None:
        """No event follows."""
        self._streams.clear()

    def _vote(self, flow: bytes, time: float, direction: int, position: int, data: bytes) -> None:
        assert self._decoder is not None
        row = self._decoder.flow_row(flow)
        for plugin in self._voters():
            if row and "filter_payload" in plugin.hooks and not plugin.closed:
                self._introduce(plugin)
                plugin.show_storage(row, time, flow, direction, position, data)

    # ---- writing

    async def keep(self, batch: Batch) -> None:
        """Copy what is chosen of a batch, and have it written. Waits while too much waits."""
        frames = batch.frame_count
        size, packets, shortened = self._lua["choose"](batch.frames, batch.origins, frames, *self._places())
        self._seen += frames
        self._skipped += frames - packets
        if self._failure is not None:
            self._lost += packets
            return
        if not packets:
            return
        self._shortened += shortened
        records = bytearray(size)
        runs = self._lua["write"](ctypes.addressof(ctypes.c_char.from_buffer(records)))
        self._chunks.append(_Chunk([Run(*each) for each in _RUN.iter_unpack(runs)], memoryview(records)))
        self._waiting += packets
        self._waiting_bytes += size
        self._start_job()
        while self._waiting_bytes > _WAITING_BYTES and self._job is not None:
            await asyncio.wait([self._job])

    def _start_job(self) -> None:
        if self._job is not None or not self._chunks:
            return
        assert self._writer is not None
        chunks = list(self._chunks)
        self._chunks.clear()
        self._job = asyncio.get_running_loop().run_in_executor(self._pool, _write_all, self._writer, chunks)
        self._job.add_done_callback(self._job_done)

    def _job_done(self, job: asyncio.Future[_Written]) -> None:
        self._job = None
        written = job.result()
        self._packets += written.packets
        self._bytes += written.size
        self._lost += written.lost
        self._waiting -= written.packets + written.lost
        self._waiting_bytes -= written.taken
        if written.error is not None:
            self._fail(written.error)
        self._start_job()

    def _fail(self, error: OSError) -> None:
        """A folder that failed once gets nothing more: what waits is lost."""
        if self._failure is None:
            self._failure = error
            self._log("store", "ERROR", f"{self._folder}: {error.strerror or error}: no more packets are stored")
        self._lost += self._waiting
        self._waiting = self._waiting_bytes = 0
        self._chunks.clear()

    async def flush(self) -> None:
        """Wait until all is written, and close the files."""
        while self._job is not None:
            await asyncio.wait([self._job])
        if self._writer is not None and self._pool is not None:
            try:
                await asyncio.get_running_loop().run_in_executor(self._pool, self._writer.close)
            except OSError as exc:
                self._fail(exc)

    async def shut(self) -> None:
        """The same, for good."""
        await self.flush()
        self._forget()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        if self._state is not None:
            self._lua.clear()
            self._state.close()
            self._state = None

    def stats(self) -> StoreStats:
        """Counts at this moment."""
        return StoreStats(
            seen=self._seen,
            packets=self._packets,
            skipped=self._skipped,
            lost=self._lost,
            pending=self._waiting,
            shortened=self._shortened,
            bytes=self._bytes,
            files=self._writer.files if self._writer is not None else 0,
        )


def _write_all(writer: PcapFolder, chunks: Sequence[_Chunk]) -> _Written:
    """Worker thread."""
    packets = size = lost = taken = 0
    error: OSError | None = None
    for run, records in _pieces(chunks):
        taken += len(records)
        if error is None:
            try:
                writer.write(run, records)
            except OSError as exc:
                error = exc
        if error is None:
            packets += run.packets
            size += len(records)
        else:
            lost += run.packets
    return _Written(packets, size, lost, taken, error)


def _pieces(chunks: Sequence[_Chunk]) -> Iterator[tuple[Run, memoryview]]:
    for chunk in chunks:
        at = 0
        for run in chunk.runs:
            yield run, chunk.records[at : at + run.size]
            at += run.size


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise SinkError(str(folder), exc.strerror or str(exc)) from exc
    return folder


def _address(memory: mmap.mmap) -> int:
    # The view is dropped at once, or the memory could not be closed.
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
