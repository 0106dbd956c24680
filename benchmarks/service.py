"""A service that takes uploads while a plugin does nothing with them, works off the loop, or works in its hook."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.bar_chart import Chart, bars, svg
from benchmarks.harness import Benchmark, Column, Measures, Options, Report, Series, interleave, ratio
from benchmarks.service_load import ROOT, serving
from benchmarks.service_load import measure as load
from benchmarks.table import number

NONE, OFFLOADED, INLINE = "no work", "T.async", "inline"
_LUA = Path(__file__).parent / "lua"
PLUGINS = {
    NONE: _LUA / "upload_none.lua",
    OFFLOADED: ROOT / "scripts" / "service" / "uploads.lua",
    INLINE: _LUA / "upload_inline.lua",
}

COLUMNS = (
    Column("rate", "requests, as fast as they are answered", "/s"),
    Column("p50", "p50 at a steady rate", "ms"),
    Column("p99", "p99 at a steady rate", "ms"),
)


@dataclass(frozen=True, slots=True)
class Size:
    """Requests of each measurement and their bodies in bytes, clients, and the steady rate per second."""

    requests: int
    body: int
    clients: int
    rate: float


FULL = Size(600, 65_536, 8, 40.0)
QUICK = Size(100, 65_536, 8, 40.0)


def run(options: Options) -> Report:
    """Measure all ways."""
    return measure(QUICK if options.quick else FULL, repeats=options.repeats)


def measure(size: Size, *, repeats: int, warmups: int = 0) -> Report:
    """The same with sizes of one's own."""
    series = interleave({way: partial(_way, way, size) for way in PLUGINS}, repeats=repeats, warmups=warmups)
    return _report(series, size, repeats)


def _way(way: str, size: Size) -> Measures:
    with (
        tempfile.TemporaryDirectory(prefix="offpath-bench-") as folder,
        serving(PLUGINS[way], Path(folder)) as port,
    ):
        return asyncio.run(load(port, size=size.body, rate=size.rate, requests=size.requests, clients=size.clients))


def _report(series: Series, size: Size, repeats: int) -> Report:
    none, offloaded, inline = (series[way] for way in (NONE, OFFLOADED, INLINE))
    ratios = (
        ratio("with T.async, p99 is {} times that of no work", offloaded["p99"], none["p99"], goal="at most 1.5"),
        ratio("inline, p99 is {} times that of no work", inline["p99"], none["p99"]),
        ratio("with T.async, {} times as many requests are answered as inline", offloaded["rate"], inline["rate"]),
    )
    notes = (
        f"Uploads of {number(size.body)} bytes over {size.clients} connections from another process: {size.requests} "
        f"as fast as they are answered, then as many at {number(size.rate)} a second, measured from when each was due. "
        "The work is a SHA-256 in a process of its own, a copy and a removal.",
        "Clients, service and work share the cores: with few of them, work takes its share of what answers.",
        f"Median (lowest-highest) of {repeats} interleaved repeats.",
    )
    return Report("service", BENCHMARK.measures, COLUMNS, series, ratios, notes, svg(_chart(series, size, repeats)))


def _chart(series: Series, size: Size, repeats: int) -> Chart:
    seen = ratio("", series[OFFLOADED]["p99"], series[NONE]["p99"])
    return Chart(
        f"With T.async, p99 is {number(seen.spread.median)} times that of no work",
        f"{number(size.rate)} uploads a second. Bars are medians of {repeats} interleaved runs, whiskers their lowest "
        "and highest.",
        "ms",
        [bars(way, metrics, COLUMNS[1:]) for way, metrics in series.items()],
    )


BENCHMARK = Benchmark(
    "service",
    "requests a second and their latency in a service whose plugin hashes and copies uploads",
    "the same without work, and with the work in the hook",
    run,
)
