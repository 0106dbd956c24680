"""Pure Lua on two workers of one process, against two processes that run the same Lua and nothing else."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

import uvloop

from benchmarks.bar_chart import Chart, bars, svg
from benchmarks.harness import (
    Benchmark,
    BenchmarkError,
    Column,
    Measures,
    Options,
    Report,
    Series,
    interleave,
    percentile,
    ratio,
)
from benchmarks.probes import LoopLag, told_by_script
from benchmarks.table import number
from engine import Config, Engine
from engine.vm import LuaState

WORKERS = "T.async, 2 workers"
ALONE = "2 processes"
BESIDE = "2 processes, beside a ticking loop"

COLUMNS = (
    Column("rate", "tasks", "/s"),
    Column("p50", "loop lag p50", "ms"),
    Column("p99", "loop lag p99", "ms"),
    Column("max", "loop lag max", "ms"),
)

_LUA = Path(__file__).parent / "lua"
_TASKS, _QUICK_TASKS = 400, 120
_TASK_SECONDS = 0.005
_PROCESSES = 2
_TIMEOUT = 120  # seconds, for a run of one or two


@dataclass(frozen=True, slots=True)
class Work:
    """The task, by its rounds and what it comes to, and how many of them a run is made of."""

    rounds: int
    value: int
    tasks: int


def run(options: Options) -> Report:
    """Measure all ways."""
    rounds = calibrate(_TASK_SECONDS)
    return measure(rounds=rounds, tasks=_QUICK_TASKS if options.quick else _TASKS, repeats=options.repeats)


def measure(*, rounds: int, tasks: int, repeats: int, warmups: int = 1) -> Report:
    """The same with a size of one's own; `tasks` is even."""
    work = Work(rounds, Spinner().spin(rounds), tasks)
    ways = {WORKERS: partial(_workers, work), ALONE: partial(_alone, work), BESIDE: partial(_beside, work)}
    series = interleave(ways, repeats=repeats, warmups=warmups)
    return _report(series, work, repeats)


class Spinner:
    """A Lua state with the arithmetic in it."""

    def __init__(self) -> None:
        self._spin = LuaState().compile((_LUA / "spin.lua").read_bytes(), "spin.lua")()

    def spin(self, rounds: int) -> int:
        """Run the task once."""
        return int(self._spin(rounds))


def calibrate(seconds: float) -> int:
    """The rounds that take about so long here."""
    spinner, rounds = Spinner(), 1_000_000
    taken = []
    for _ in range(7):
        began = time.perf_counter()
        spinner.spin(rounds)
        taken.append(time.perf_counter() - began)
    return max(round(rounds * seconds / min(taken)), 1)


# ---- two workers


def _workers(work: Work) -> Measures:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run_engine(work))


async def _run_engine(work: Work) -> Measures:
    event = {"rounds": work.rounds, "value": work.value}
    async with Engine([_LUA / "cpu.lua"], config=Config()) as engine:
        await told_by_script(engine, "start", {**event, "tasks": 10})  # states are built and compiled, for nothing
        async with LoopLag() as lag:
            seconds = float(await told_by_script(engine, "start", {**event, "tasks": work.tasks}))
    return {"rate": work.tasks / seconds, **_lags(lag)}


def _lags(lag: LoopLag) -> Measures:
    late = [each * 1e3 for each in lag.seconds]
    return {"p50": percentile(late, 50), "p99": percentile(late, 99), "max": max(late)}


# ---- two processes


def _alone(work: Work) -> Measures:
    return {"rate": work.tasks / _in_processes(work)}


def _beside(work: Work) -> Measures:
    async def main() -> Measures:
        async with LoopLag() as lag:
            seconds = await asyncio.to_thread(_in_processes, work, lag)
        return {"rate": work.tasks / seconds, **_lags(lag)}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def _in_processes(work: Work, lag: LoopLag | None = None) -> float:
    """The seconds from the first start to the last end. What `lag` measured before the start is forgotten."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(_PROCESSES + 1)
    share = Work(work.rounds, work.value, work.tasks // _PROCESSES)
    with context.Pool(_PROCESSES, _prepare, (barrier,)) as pool:
        found = pool.map_async(_process, [share] * _PROCESSES, chunksize=1)
        barrier.wait(_TIMEOUT)
        if lag is not None:
            lag.take()
        spans: Sequence[tuple[float, float, bool]] = found.get(_TIMEOUT)
    if not all(right for _, _, right in spans):
        raise BenchmarkError("2 processes: the arithmetic came out wrong")
    return max(end for _, end, _ in spans) - min(start for start, _, _ in spans)


_barrier: Barrier | None = None  # of a process that was started


def _prepare(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _process(work: Work) -> tuple[float, float, bool]:
    """Begin and end by the clock that all processes share, and whether the result was right. In a process."""
    assert _barrier is not None
    spinner = Spinner()
    for _ in range(5):
        spinner.spin(work.rounds)  # compiled, for nothing
    _barrier.wait(_TIMEOUT)
    began = time.perf_counter()
    values = {spinner.spin(work.rounds) for _ in range(work.tasks)}
    return began, time.perf_counter(), values == {work.value}


# ---- the report


def _report(series: Series, work: Work, repeats: int) -> Report:
    rates = {way: metrics["rate"] for way, metrics in series.items()}
    ratios = (
        ratio("2 workers do {} times the work of 2 processes", rates[WORKERS], rates[ALONE], goal="at least 0.95"),
        ratio("2 workers do {} times the work of 2 processes beside a ticking loop", rates[WORKERS], rates[BESIDE]),
        ratio(
            "the loop is {} times as late at p99 as beside 2 processes", series[WORKERS]["p99"], series[BESIDE]["p99"]
        ),
    )
    notes = (
        f"A run is {work.tasks} tasks of {number(work.rounds)} rounds of arithmetic, set to take about 5 ms each.",
        "loop lag: how late a task woke up that sleeps 1 ms, again and again; goal: at most 10 ms at p99. Both cores "
        "are busy, so the loop has to get one back from the kernel: beside processes, the lag is what that takes.",
        f"Every result was compared. Median (lowest-highest) of {repeats} interleaved repeats.",
    )
    return Report("cpu", BENCHMARK.measures, COLUMNS, series, ratios, notes, svg(_chart(series, repeats)))


def _chart(series: Series, repeats: int) -> Chart:
    seen = ratio("", series[WORKERS]["rate"], series[ALONE]["rate"])
    return Chart(
        f"2 workers do {number(seen.spread.median)} times the work of 2 processes",
        f"Pure Lua of about 5 ms a task. Bars are medians of {repeats} interleaved runs, whiskers their lowest and "
        "highest.",
        "tasks/s",
        [bars(way, metrics, COLUMNS[:1]) for way, metrics in series.items()],
    )


BENCHMARK = Benchmark(
    "cpu",
    "throughput of pure Lua on two workers, and how late the loop gets meanwhile",
    "two processes that run the same Lua alone",
    run,
)
