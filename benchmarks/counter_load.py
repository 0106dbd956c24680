"""Counters in a process of its own, on one core: how fast they are updated, or a window of them flushed and stored.

python -m benchmarks.counter_load rate|window KEYS UPDATES [CAPTURE]
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, nullcontext
from pathlib import Path

import uvloop

from benchmarks.flow_load import private_memory
from benchmarks.harness import BenchmarkError, Measures, percentile
from benchmarks.probes import LoopLag
from engine import Capture, Config, Engine
from engine.sinks.queries import stored_groups
from engine.sinks.schema import counters_table, open_to_read
from engine.sinks.sqlite import SqliteSink
from engine.sources import Replay

_LUA = Path(__file__).parent / "lua"
_AT_ONCE = 20_000  # updates of an event
_PACKETS = 100_000  # a second, of the capture beside
_TIMEOUT = 600  # seconds
_LOOPS = 1_000_000
_LOOK_SECONDS = 0.02
_RANKS = {"p50": 50.0, "p99": 99.0, "max": 100.0}
_CONFIG = Config(window_seconds=86_400.0, slow_hook_seconds=60.0, drain_seconds=float(_TIMEOUT))


def measure(what: str, *, keys: int, updates: int, capture: Path | None = None) -> Measures:
    """Do it in a new process. Raises `BenchmarkError` when something was not counted or not stored."""
    command = [sys.executable, "-m", "benchmarks.counter_load", what, str(keys), str(updates)]
    command += [str(capture)] if capture is not None else []
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_TIMEOUT, cwd=Path(__file__).parents[1], check=False
    )
    if done.returncode:
        raise BenchmarkError(f"{what} of {keys} keys: {done.stderr.strip()}")
    found: Measures = json.loads(done.stdout)
    return found


# ---- in the process


async def _fill(engine: Engine, keys: int, updates: int) -> float:
    """Make keys and count; the seconds of the counting."""
    for error in engine.load_errors:
        raise BenchmarkError(str(error))
    await engine.emit("make", str(keys).encode())
    began = time.perf_counter()
    for done in range(0, updates, _AT_ONCE):
        await engine.emit("go", str(min(_AT_ONCE, updates - done)).encode())
    return time.perf_counter() - began


async def rate(keys: int, updates: int) -> Measures:
    """Updates a second, in millions."""
    async with Engine([_LUA / "updates.lua"], config=_CONFIG) as engine:
        windows: list[float] = []
        engine.on_window(lambda window: windows.append(len(window.groups[0].values)))
        seconds = await _fill(engine, keys, updates)
    if sum(windows) != min(keys, updates) + 1:  # with that of the totals
        raise BenchmarkError(f"{windows} keys came out of windows instead of {keys}")
    return {"rate": updates / seconds / 1e6}


async def window(keys: int, updates: int, capture: Path | None = None) -> Measures:
    """Seconds of a window from its end until it is stored, lag of the loop meanwhile, and memory."""
    scripts = [_LUA / "updates.lua", _LUA / "key_monitor.lua"]
    with tempfile.TemporaryDirectory(prefix="offpath-bench-") as folder:
        path = Path(folder) / "windows.db"
        async with _beside(capture) if capture is not None else nullcontext():
            before, most = private_memory(), 0

            async def look() -> None:
                nonlocal most
                while True:
                    most = max(most, private_memory())
                    await asyncio.sleep(_LOOK_SECONDS)

            sink = SqliteSink(path, source="benchmark")
            async with LoopLag() as lag, Engine(scripts, config=_CONFIG, sinks=[sink]) as engine:
                await _fill(engine, keys, updates)
                looking = asyncio.create_task(look())
                await asyncio.sleep(_LOOK_SECONDS)
                lag.take()
                began, cpu = time.perf_counter(), time.process_time()
                await _end_window(engine, Path(folder))
                seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
                late = {"wall": lag.seconds, "own": lag.own_seconds}
                lag.take()
                looking.cancel()
            _check(path, keys)
    lags = {f"{of}_{name}": percentile(each, at) * 1e3 for of, each in late.items() for name, at in _RANKS.items()}
    return {"seconds": seconds, "cpu": cpu, "memory": (most - before) / keys, **lags}


async def _end_window(engine: Engine, folder: Path) -> None:
    """A source that begins ends the window before it. Returns when that is stored."""
    empty = folder / "empty.pcap"
    empty.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1))
    await engine.run(Capture(empty))
    while not engine.stats.sinks[0].windows_stored:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.002)


def _check(path: Path, keys: int) -> None:
    with closing(open_to_read(path)) as db:
        [group] = [each for each in stored_groups(db) if each.name == "Keys"]
        query = f"SELECT count(*), count(DISTINCT window) FROM {counters_table(group.id)}"
        found = db.execute(query).fetchone()
    if found != (keys + 1, 1):  # with that of the totals
        raise BenchmarkError(f"{found[0]} keys were stored in {found[1]} windows instead of {keys + 1} in one")


@asynccontextmanager
async def _beside(capture: Path) -> AsyncIterator[None]:
    """Replay a capture on the same loop while the block runs, through a packet hook."""
    async with Engine([_LUA / "counter.lua"], config=_CONFIG) as engine:
        job = asyncio.ensure_future(engine.run(Replay(capture, _speed(capture), loops=_LOOPS)))
        while engine.stats.decode.packets < _PACKETS / 10 and not job.done():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        before = engine.stats.decode.packets
        yield
        if job.done() or engine.stats.decode.packets == before:
            raise BenchmarkError("the capture beside did not go on")
        engine.end_source()
        await job


def _speed(capture: Path) -> float:
    """How fast to replay so that the packets of a second are as many as they are to be."""
    data, at, times = capture.read_bytes(), 24, []
    while at + 16 <= len(data):
        seconds, micros, length, _ = struct.unpack_from("<IIII", data, at)
        times.append(seconds + micros / 1e6)
        at += 16 + length
    return max((max(times) - min(times)) * _PACKETS / len(times), 1.0)


async def _main(what: str, keys: int, updates: int, *captures: Path) -> Measures:
    return await (rate(keys, updates) if what == "rate" else window(keys, updates, *captures))


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *map(Path, sys.argv[4:])))
    print(json.dumps(found))
