"""Memory of flows: what each takes while it is there, and whether it is given back when it is over."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import flow_load
from benchmarks.flow_load import Load, Taken
from benchmarks.harness import Benchmark, BenchmarkError, Column, Measures, Options, Ratio, Report, interleave, ratio

UDP, TCP = "UDP", "TCP, with a reassembly handler"
COLUMNS = (
    Column("each", "memory of a flow", "bytes"),
    Column("short", "of a capture", "MiB"),
    Column("long", "of one ten times as long", "MiB"),
)
GOAL = 400
"""Bytes that a flow may take."""

_HANDLER = Path(__file__).parent / "lua" / "streams.lua"
_FEW = 1_000  # flows of the run that the others are compared with
_LONGER = 10


@dataclass(frozen=True, slots=True)
class Size:
    """`flows` at once, all new within `seconds`; and new ones in each second of a capture of `short` seconds."""

    flows: int
    seconds: int = 20
    new: int = 1_000
    short: int = 400


FULL = Size(1_000_000)
QUICK = Size(200_000, new=100)


@dataclass(frozen=True, slots=True)
class _Captures:
    few: Path
    many: Path
    short: Path
    long: Path


def run(options: Options) -> Report:
    """Measure UDP and TCP."""
    return measure(QUICK if options.quick else FULL, repeats=3)


def measure(size: Size, *, repeats: int, warmups: int = 0) -> Report:
    """The same with sizes of one's own. Raises `BenchmarkError` when a run did not see all flows, or few at once."""
    with tempfile.TemporaryDirectory(prefix="offpath-bench-") as directory:
        ways = {
            name: partial(_measure, _write(Path(directory) / name.split(",")[0], size, tcp=tcp), size, script)
            for name, tcp, script in ((UDP, False, None), (TCP, True, _HANDLER))
        }
        series = interleave(ways, repeats=repeats, warmups=warmups)
    ratios = [Ratio(f"{name}: {{}} bytes a flow", series[name]["each"], f"less than {GOAL}") for name in series]
    longer = [
        ratio(f"{name}: {{}} times the memory for a capture ten times as long", found["long"], found["short"], goal="1")
        for name, found in series.items()
    ]
    notes = (
        f"{size.flows:,} flows at once; the longer captures have {size.new:,} new flows in each second, for "
        f"{size.short:,} and {size.short * _LONGER:,} seconds.",
        "Memory is the most private memory of a process of its own, less that of a run over "
        f"{_FEW:,} flows where it is divided by flows.",
    )
    return Report("flows", BENCHMARK.measures, COLUMNS, series, [*ratios, *longer], notes)


def _write(folder: Path, size: Size, *, tcp: bool) -> _Captures:
    folder.mkdir()
    captures = _Captures(*(folder / f"{name}.pcap" for name in ("few", "many", "short", "long")))
    flow_load.write(captures.few, Load(_FEW, 1, tcp))
    flow_load.write(captures.many, Load(size.flows // size.seconds, size.seconds, tcp))
    flow_load.write(captures.short, Load(size.new, size.short, tcp))
    flow_load.write(captures.long, Load(size.new, size.short * _LONGER, tcp))
    return captures


def _measure(captures: _Captures, size: Size, script: Path | None) -> Measures:
    few, many = _take(captures.few, script, _FEW), _take(captures.many, script, size.flows)
    if many.live != size.flows:
        raise BenchmarkError(f"only {many.live} of {size.flows} flows were there at once")
    short = _take(captures.short, script, size.new * size.short)
    long = _take(captures.long, script, size.new * size.short * _LONGER)
    return {
        "each": (many.memory - few.memory) / (many.live - few.live),
        "short": short.memory / 2**20,
        "long": long.memory / 2**20,
    }


def _take(capture: Path, script: Path | None, flows: int) -> Taken:
    taken = flow_load.measure(capture, script)
    if taken.flows != flows:
        raise BenchmarkError(f"{taken.flows} flows were found instead of {flows}")
    return taken


BENCHMARK = Benchmark(
    "flows",
    "memory of a flow, and of captures in which flows come and go",
    "itself, over a capture a tenth as long",
    run,
)
