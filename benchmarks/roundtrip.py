"""Round trips of the smallest task there is: out to a worker, and back to the loop's thread with its result.

All ways keep the same number of tasks in flight, each completion starting another, until a fixed number is done. Ways
that are slower get fewer tasks, so that each takes about as long.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio.to_thread
import uvloop

from benchmarks.bar_chart import Chart, bars, svg
from benchmarks.harness import (
    Benchmark,
    BenchmarkError,
    Column,
    Measures,
    Need,
    Options,
    Ratio,
    Report,
    Series,
    interleave,
    merge,
    percentile,
    ratio,
    sort_out,
)
from benchmarks.probes import told_by_script
from benchmarks.table import number
from engine import Config, Engine

IN_FLIGHT = (1, 100, 10_000)
WORKERS = (1, 2, 4)
COLUMNS = (
    *(Column(f"rate {count}", f"{count:,} in flight", "/s") for count in IN_FLIGHT),
    Column("p50", "one alone, p50", "µs"),
    Column("p99", "one alone, p99", "µs"),
)
LUV = Need(lambda: _luv_answers(), "apt-get install luajit lua-luv")

_LUA = Path(__file__).parent / "lua"
_TIMEOUT = 120  # seconds, for a run of some tenths of one


@dataclass(frozen=True, slots=True)
class Size:
    """How many tasks a run is made of, by the number in flight."""

    in_lua: Mapping[int, int]
    in_python: Mapping[int, int]


FULL = Size({1: 5_000, 100: 100_000, 10_000: 200_000}, {1: 2_000, 100: 10_000, 10_000: 20_000})
QUICK = Size({1: 1_000, 100: 20_000, 10_000: 50_000}, {1: 500, 100: 3_000, 10_000: 10_000})

Way = Callable[[int, Size], Measures]
"""A way runs with a number of tasks in flight."""


def run(options: Options) -> Report:
    """Measure all ways."""
    return measure(QUICK if options.quick else FULL, repeats=options.repeats)


def measure(size: Size, *, repeats: int, warmups: int = 1) -> Report:
    """The same with sizes of one's own."""
    ways, missing = sort_out(all_ways(), {luv_name(threads): LUV for threads in WORKERS})
    series = merge(
        *(
            interleave(
                {name: partial(way, in_flight, size) for name, way in ways.items()}, repeats=repeats, warmups=warmups
            )
            for in_flight in IN_FLIGHT
        )
    )
    return _report(series, missing, repeats)


def engine_name(workers: int) -> str:
    """The way of `T.async:schedule`."""
    return f"T.async, {_count(workers, 'worker')}"


def luv_name(threads: int) -> str:
    """The way of `uv.new_work`."""
    return f"luv, {_count(threads, 'thread')}"


def executor_name(threads: int) -> str:
    """The way of `loop.run_in_executor`."""
    return f"run_in_executor, {_count(threads, 'thread')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def all_ways() -> dict[str, Way]:
    """Every way by its name, in the order of the table."""
    return {
        **{engine_name(workers): partial(_with_engine, workers) for workers in WORKERS},
        **{luv_name(threads): partial(_with_luv, threads) for threads in WORKERS},
        **{executor_name(threads): partial(_with_python, partial(_executor, threads)) for threads in (1, 4)},
        "asyncio.to_thread": partial(_with_python, _to_thread),
        "anyio to_thread.run_sync": partial(_with_python, _anyio),
    }


# ---- the engine


def _with_engine(workers: int, in_flight: int, size: Size) -> Measures:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run_engine(workers, in_flight, size.in_lua[in_flight]))


async def _run_engine(workers: int, in_flight: int, tasks: int) -> Measures:
    config = Config(args=str(workers), slow_hook_seconds=60.0)  # the first hook schedules all that is in flight
    async with Engine([_LUA / "roundtrip.lua"], config=config) as engine:
        for count in (max(tasks // 10, 1), tasks):  # the first for nothing
            told = await told_by_script(engine, "start", {"in_flight": in_flight, "tasks": count})
    return _measures(in_flight, tasks, told)


def _measures(in_flight: int, tasks: int, told: str) -> Measures:
    """What chain.lua told."""
    found = json.loads(told)
    if found["done"] != tasks:
        raise BenchmarkError(f"{found['done']} round trips were made instead of {tasks}")
    return _named(in_flight, tasks / found["seconds"], found["p50"], found["p99"])


def _named(in_flight: int, rate: float, p50: float, p99: float) -> Measures:
    latency = {"p50": p50 * 1e6, "p99": p99 * 1e6} if in_flight == 1 else {}
    return {f"rate {in_flight}": rate, **latency}


# ---- libuv, from the same language


def _luv_answers() -> bool:
    if shutil.which("luajit") is None:
        return False
    return subprocess.run(["luajit", "-e", "require 'luv'"], capture_output=True, check=False).returncode == 0


def _with_luv(threads: int, in_flight: int, size: Size) -> Measures:
    tasks = size.in_lua[in_flight]
    command = ["luajit", str(_LUA / "luv_roundtrip.lua"), str(in_flight), str(tasks)]
    done = subprocess.run(
        command,
        env=os.environ | {"UV_THREADPOOL_SIZE": str(threads)},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"luv: {done.stderr.strip()}")
    return _measures(in_flight, tasks, done.stdout)


# ---- Python

Call = Callable[[], Awaitable[str]]


def _with_python(drive: Callable[[int, int], Awaitable[Measures]], in_flight: int, size: Size) -> Measures:
    async def main() -> Measures:
        return await drive(in_flight, size.in_python[in_flight])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


async def _executor(threads: int, in_flight: int, tasks: int) -> Measures:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(threads) as executor:
        return await _drive(lambda: loop.run_in_executor(executor, _execute, "some text"), in_flight, tasks)


async def _to_thread(in_flight: int, tasks: int) -> Measures:
    return await _drive(lambda: asyncio.to_thread(_execute, "some text"), in_flight, tasks)


async def _anyio(in_flight: int, tasks: int) -> Measures:
    return await _drive(lambda: anyio.to_thread.run_sync(_execute, "some text"), in_flight, tasks)


def _execute(text: str) -> str:
    return text


async def _drive(call: Call, in_flight: int, tasks: int) -> Measures:
    await _keep_in_flight(call, in_flight, max(tasks // 10, 1))  # threads start, for nothing
    began = time.perf_counter()
    taken = await _keep_in_flight(call, in_flight, tasks)
    seconds = time.perf_counter() - began
    if len(taken) != tasks:
        raise BenchmarkError(f"{len(taken)} round trips were made instead of {tasks}")
    return _named(in_flight, tasks / seconds, percentile(taken, 50), percentile(taken, 99))


async def _keep_in_flight(call: Call, in_flight: int, tasks: int) -> list[float]:
    """How long each task took, in seconds; that means something with one in flight."""
    taken: list[float] = []
    left = iter(range(tasks))

    async def chain() -> None:
        for _ in left:
            since = time.perf_counter()
            await call()
            taken.append(time.perf_counter() - since)

    await asyncio.gather(*(chain() for _ in range(min(in_flight, tasks))))
    return taken


# ---- the report


def _report(series: Series, missing: Mapping[str, str], repeats: int) -> Report:
    notes = (
        "A round trip: from the call that starts a task to its result on the loop's thread; the task returns its text. "
        "Every completion starts another task.",
        "T.async and luv run Lua, the others Python, on uvloop. asyncio.to_thread and anyio have pools of their "
        "default size.",
        f"Median (lowest-highest) of {repeats} interleaved repeats; ways in Python make fewer round trips a repeat.",
    )
    chart = svg(_chart(series, repeats))
    return Report(
        "roundtrip", BENCHMARK.measures, COLUMNS, series, _ratios(series), notes, chart=chart, missing=missing
    )


def _ratios(series: Series) -> list[Ratio]:
    many = IN_FLIGHT[1:]
    pairs = [(engine_name(each), luv_name(each)) for each in WORKERS if luv_name(each) in series]
    found = [_rate_ratio(series, *pair, in_flight, "at least 1") for in_flight in many for pair in pairs]
    found += [_rate_ratio(series, engine_name(1), executor_name(1), each, "at least 20") for each in many]
    for metric, goal in (("p50", "at most 2"), ("p99", "")):
        alone, other = series[engine_name(1)][metric], series[executor_name(1)][metric]
        text = f"one task alone takes T.async {{}} times as long as run_in_executor at {metric}"
        found.append(ratio(text, alone, other, goal=goal))
    return found


def _rate_ratio(series: Series, way: str, other: str, in_flight: int, goal: str) -> Ratio:
    metric = f"rate {in_flight}"
    text = f"{way}, makes {{}} times the round trips of {other}, with {in_flight:,} in flight"
    return ratio(text, series[way][metric], series[other][metric], goal=goal)


def _chart(series: Series, repeats: int) -> Chart:
    seen = _rate_ratio(series, engine_name(1), executor_name(1), IN_FLIGHT[-1], "").spread.median
    return Chart(
        f"T.async makes {number(seen)} times the round trips of run_in_executor",
        f"With one thread each and {IN_FLIGHT[-1]:,} in flight; each completion starts another task. Bars are medians "
        f"of {repeats} interleaved runs, whiskers their lowest and highest.",
        "round trips/s",
        [bars(way, metrics, COLUMNS[: len(IN_FLIGHT)]) for way, metrics in series.items()],
    )


BENCHMARK = Benchmark(
    "roundtrip",
    "round trips of the smallest task to a worker and back",
    "libuv's own queue from LuaJIT (luv), run_in_executor, asyncio.to_thread and anyio",
    run,
)
