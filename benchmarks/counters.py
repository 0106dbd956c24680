"""Counters: updates a second, and a window of many keys from its end until it is in a database."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import counter_load
from benchmarks.bar_chart import Bar, Chart, Group, svg
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
    ratio,
    sort_out,
)
from benchmarks.table import number
from benchmarks.traffic import make_traffic

ENGINE, DICT, STREAMZ, DUCKDB = "offpath", "a dict of Python", "streamz", "DuckDB, one thread"
PEERS = {DICT: "dict_sums.py", STREAMZ: "streamz_sums.py", DUCKDB: "duckdb_sums.py"}
NEEDS = {
    STREAMZ: Need(lambda: importlib.util.find_spec("streamz") is not None, "pip install streamz"),
    DUCKDB: Need(
        lambda: all(importlib.util.find_spec(each) is not None for each in ("duckdb", "pyarrow")),
        "pip install duckdb pyarrow",
    ),
}
GOALS = {"rate": "at least 10", "cpu": "less than 10", "memory": "less than 600", "own_p99": "less than 10"}

_TIMEOUT = 600  # seconds
_SLOWER = 20
"""streamz gets so many times fewer updates."""


@dataclass(frozen=True, slots=True)
class Size:
    """Updates of each run; numbers of keys, in rising order, of which the last is that of the window."""

    updates: int
    keys: tuple[int, int, int]
    packets: int


FULL = Size(5_000_000, (1_000, 100_000, 1_000_000), 200_000)
QUICK = Size(500_000, (1_000, 20_000, 100_000), 50_000)

Way = Callable[[], Measures]


def run(options: Options) -> Report:
    """Measure all ways."""
    return measure(QUICK if options.quick else FULL, repeats=3)


def measure(size: Size, *, repeats: int, warmups: int = 0) -> Report:
    """The same with sizes of one's own. Raises `BenchmarkError` when a way did not count what it must."""
    with tempfile.TemporaryDirectory(prefix="offpath-bench-") as directory:
        capture = make_traffic(Path(directory), size.packets).path
        ways, missing = sort_out(_ways(size, capture), NEEDS)
        series = interleave(ways, repeats=repeats, warmups=warmups)
    return Report(
        "counters",
        BENCHMARK.measures,
        _columns(size),
        series,
        _ratios(series, size),
        _notes(size, repeats),
        svg(_chart(series, size, repeats)),
        missing,
    )


def _ways(size: Size, capture: Path) -> dict[str, Way]:
    return {ENGINE: partial(_engine, size, capture), **{name: partial(_peer, name, size) for name in PEERS}}


def _metric(keys: int) -> str:
    return f"rate_{keys}"


def _columns(size: Size) -> tuple[Column, ...]:
    return (
        *(Column(_metric(keys), f"updates, {keys:,} keys", "M/s") for keys in size.keys),
        Column("seconds", "window of all keys, to the database", "s"),
        Column("cpu", "its processor time", "s"),
        Column("memory", "memory of a key", "bytes"),
        Column("own_p50", "loop lag p50, time of the loop's own work", "ms"),
        Column("own_p99", "the same, p99", "ms"),
        Column("own_max", "the same, max", "ms"),
        Column("wall_p50", "loop lag p50", "ms"),
        Column("wall_p99", "loop lag p99", "ms"),
        Column("wall_max", "loop lag max", "ms"),
    )


# ---- the ways


def _engine(size: Size, capture: Path) -> Measures:
    rates = {_metric(keys): counter_load.measure("rate", keys=keys, updates=size.updates)["rate"] for keys in size.keys}
    most = size.keys[-1]
    alone = counter_load.measure("window", keys=most, updates=most)
    beside = counter_load.measure("window", keys=most, updates=most, capture=capture)
    lags = {name: value for name, value in beside.items() if name.startswith(("own_", "wall_"))}
    return {**rates, **{name: alone[name] for name in ("seconds", "cpu", "memory")}, **lags}


def _peer(name: str, size: Size) -> Measures:
    updates = size.updates // _SLOWER if name == STREAMZ else size.updates
    return {_metric(keys): _run_peer(name, keys, updates) for keys in size.keys}


def _run_peer(name: str, keys: int, updates: int) -> float:
    """Millions of updates a second."""
    command = [sys.executable, str(Path(__file__).parent / "peers" / PEERS[name]), str(keys), str(updates)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    if done.returncode:
        raise BenchmarkError(f"{name}: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    rounds, rest = divmod(updates, keys)
    total = rounds * keys * (keys + 1) / 2 + rest * (rest + 1) / 2
    if (found["keys"], found["total"]) != (min(keys, updates), total):
        raise BenchmarkError(f"{name}: {found['keys']} keys with a sum of {found['total']} instead of {keys}, {total}")
    return updates / float(found["seconds"]) / 1e6


# ---- the report


def _ratios(series: Series, size: Size) -> list[Ratio]:
    found = series[ENGINE]
    own = [
        *(
            Ratio(f"{keys:,} keys: {{}} million updates a second", found[_metric(keys)], GOALS["rate"])
            for keys in size.keys
        ),
        Ratio(
            f"a window of {size.keys[-1]:,} keys: {{}} s of processor time until it is stored",
            found["cpu"],
            GOALS["cpu"],
        ),
        Ratio("{} bytes of memory a key", found["memory"], GOALS["memory"]),
        Ratio("loop lag p99 meanwhile, by the loop's own work: {} ms", found["own_p99"], GOALS["own_p99"]),
    ]
    others = [
        ratio(f"{keys:,} keys: {{}} times the updates of {name}", found[_metric(keys)], series[name][_metric(keys)])
        for name in PEERS
        if name in series
        for keys in size.keys
    ]
    return own + others


def _notes(size: Size, repeats: int) -> tuple[str, ...]:
    return (
        f"{size.updates:,} updates of each number of keys ({size.updates // _SLOWER:,} for streamz), in an order in "
        "which neighbours lie far apart; new keys are among them. The engine's come from a loop in Lua, those of the "
        "dict and of streamz from a list of Python. DuckDB has all of them in memory, as a table, before its time "
        "begins.",
        f"The window has {size.keys[-1]:,} keys, all new. Its time goes from its end until SQLite has it: to cross, to "
        "merge, to close, a cg_monitor with onflushfilter and onflush, and to write; on one core. Memory is the most "
        "private memory until then, with the keys that the script holds and what SQLite takes.",
        "Loop lag is measured while such a window is flushed and a capture is replayed on the same loop, through a "
        "packet hook, at 100,000 packets a second. The loop's own work is the processor time of its thread between two "
        "turns of a task; the other lag is that of the clock, with all that the one core was given to meanwhile.",
        f"Median (lowest-highest) of {repeats} interleaved repeats.",
    )


def _chart(series: Series, size: Size, repeats: int) -> Chart:
    fastest = series[ENGINE][_metric(size.keys[0])].median
    return Chart(
        f"{number(fastest)} million updates of counters a second",
        f"By number of keys. Bars are medians of {repeats} interleaved runs, whiskers their lowest and highest.",
        "million updates/s",
        [_group(keys, series) for keys in size.keys],
    )


def _group(keys: int, series: Series) -> Group:
    found = {way: metrics[_metric(keys)] for way, metrics in series.items()}
    return Group(f"{keys:,} keys", [Bar(way, each.median, each.low, each.high) for way, each in found.items()])


BENCHMARK = Benchmark(
    "counters",
    "updates of counters, and a window of a million keys from its end until it is stored",
    "a dict of Python, streamz, and DuckDB",
    run,
)
