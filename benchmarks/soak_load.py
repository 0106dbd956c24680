"""The mixed load of `soak`, and what is looked at while it runs. One engine, on the loop's thread."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import BenchmarkError, percentile
from benchmarks.probes import LoopLag, settled
from engine import Capture, Config, Engine, EngineStats
from engine.capture.synth import synthesize

SOURCE_BYTES = 1_000

_LUA = Path(__file__).parent / "lua"
_SCRIPTS = (_LUA / "soak.lua", _LUA / "async_copy.lua")
_VISITOR = _LUA / "soak_visitor.lua"
_CAPTURED_FILES, _SEED = 24, 7
_TURN_SECONDS = 0.010
_PENDING = 5_000  # tasks past which the load waits: it is to be steady, not to fill the queue
_QUIET_SECONDS = 20.0

# Events of each kind in a turn, and every how many turns.
_LOAD: Mapping[str, tuple[int, int]] = {
    "quick": (10, 1),
    "slow": (1, 2),
    "copy": (2, 1),
    "cat": (1, 1),
    "message": (1, 1),
    "failing": (1, 10),
    "late": (1, 40),
}
_CAPTURE_TURNS, _VISIT_TURNS = 250, 120


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one time, in seconds from the start. Lags and the rate are of the interval before it."""

    at: float
    rss: float
    threads: int
    descriptors: int
    lag: float
    rate: float


@dataclass(frozen=True, slots=True)
class Quiet:
    """What is held when all work is done."""

    threads: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A whole soak: what was seen, what was asked for, what the engine counted, and what was held at rest."""

    samples: tuple[Sample, ...]
    sent: Counter[str]
    stats: EngineStats
    joined_bytes: int
    before: Quiet
    warm: Quiet
    end: Quiet
    after: Quiet


def quiet() -> Quiet:
    """Of this process, now."""
    return Quiet(len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - once each


def rss() -> float:
    """Resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def soak(room: Path, *, seconds: float, warm_seconds: float) -> Outcome:
    """Load an engine for a time, warm-up included."""
    (room / "source").write_bytes(b"x" * SOURCE_BYTES)
    capture = synthesize(room / "files.pcap", files=_CAPTURED_FILES, seed=_SEED).path
    before = quiet()
    config = Config(args=str(room), slow_hook_seconds=60.0)
    async with Engine(_SCRIPTS, config=config) as engine:
        for error in engine.load_errors:
            raise BenchmarkError(str(error))
        load = _Load(engine, capture)
        async with LoopLag() as lag:
            watch = asyncio.create_task(_watch(engine, lag, seconds))
            await load.run(warm_seconds)
            warm = await _come_to_rest(engine)
            await load.run(seconds - warm_seconds)
            end = await _come_to_rest(engine)
            samples = await watch
    joined = room / "joined"
    size = joined.stat().st_size if joined.exists() else 0
    after = await _threads_gone(before)
    return Outcome(tuple(samples), load.sent, engine.stats, size, before, warm, end, after)


async def _come_to_rest(engine: Engine) -> Quiet:
    """Wait until nothing is pending and threads that were left to a task have come back."""
    async with asyncio.timeout(_QUIET_SECONDS):
        await settled(engine, look_seconds=0.02)
        while engine.stats.tasks.stuck_threads:  # noqa: ASYNC110 - the engine tells nobody
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    return quiet()


async def _threads_gone(before: Quiet) -> Quiet:
    """What is held after the engine's end; threads get a moment, as the kernel lists them until they are quite gone."""
    until = time.monotonic() + 2.0
    while quiet().threads > before.threads and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return quiet()


async def _watch(engine: Engine, lag: LoopLag, seconds: float) -> list[Sample]:
    interval = min(max(seconds / 150, 0.1), 10.0)
    samples: list[Sample] = []
    began = last = time.monotonic()
    done = 0
    while last - began < seconds:
        await asyncio.sleep(interval)
        now, counts = time.monotonic(), engine.stats.tasks
        held = quiet()
        late = percentile(lag.take() or [0.0], 99)
        rate = (counts.completed - done) / (now - last)
        samples.append(Sample(now - began, rss(), held.threads, held.descriptors, late, rate))
        last, done = now, counts.completed
    return samples


class _Load:
    """Sends events turn by turn, and counts them by kind."""

    def __init__(self, engine: Engine, capture: Path) -> None:
        self.sent: Counter[str] = Counter()
        self._engine = engine
        self._capture = capture
        self._turns = 0

    async def run(self, seconds: float) -> None:
        """Go on for a time, with at least one capture and one visit."""
        until = time.monotonic() + seconds
        background = [asyncio.create_task(self._read()), asyncio.create_task(self._visit())]
        while time.monotonic() < until:
            await self._turn()
            if self._turns % _CAPTURE_TURNS == 0 and background[0].done():
                background[0].result()
                background[0] = asyncio.create_task(self._read())
            if self._turns % _VISIT_TURNS == 0 and background[1].done():
                background[1].result()
                background[1] = asyncio.create_task(self._visit())
            await asyncio.sleep(_TURN_SECONDS)
        await asyncio.gather(*background)

    async def _turn(self) -> None:
        self._turns += 1
        for kind, count in _due(self._turns):
            self.sent[kind] += count
            await self._engine.emit_batch(f"work.{kind}", [{}] * count)
        while self._engine.stats.tasks.pending > _PENDING:  # noqa: ASYNC110
            await asyncio.sleep(_TURN_SECONDS)

    async def _read(self) -> None:
        await self._engine.run(Capture(self._capture))
        self.sent["capture"] += 1

    async def _visit(self) -> None:
        await self._engine.load(_VISITOR)
        for _ in range(20):
            self.sent["visit"] += 1
            await self._engine.emit("visit", {})
            await asyncio.sleep(0.005)
        await self._engine.unload(_VISITOR)


def _due(turn: int) -> Iterator[tuple[str, int]]:
    for kind, (count, every) in _LOAD.items():
        if turn % every == 0:
            yield kind, count
