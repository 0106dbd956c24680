"""Packets per second through the engine: the flow table, packet hooks, files; and what others make of the same packets.

Others are slower by so much that they get a capture of their own, of the same traffic and fewer packets.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop

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
    merge,
    ratio,
    sort_out,
)
from benchmarks.table import number
from benchmarks.traffic import Traffic, make_traffic
from engine import Capture, Config, Engine, EngineStats

ENGINE, TSHARK, NFSTREAM, DPKT = "offpath", "tshark, Lua tap", "nfstream", "dpkt"
NEEDS = {
    TSHARK: Need(lambda: shutil.which("tshark") is not None, "apt-get install tshark"),
    NFSTREAM: Need(lambda: importlib.util.find_spec("nfstream") is not None, "pip install nfstream"),
    DPKT: Need(lambda: importlib.util.find_spec("dpkt") is not None, "pip install dpkt"),
}
COLUMNS = (
    Column("table", "flow table", "M/s"),
    Column("records", "flow table and records", "M/s"),
    Column("one", "1 simplecounter", "M/s"),
    Column("ten", "10 simplecounters", "M/s"),
    Column("files", "files", "M/s"),
    Column("all", "all of it", "M/s"),
)
GOALS = {"table": 4.0, "one": 2.0, "ten": 0.6, "files": 0.7}
"""What the engine is meant to reach, in millions of packets per second on one core that has nothing else to do."""

_HERE = Path(__file__).parent
_TIMEOUT = 600  # seconds
_RECORDS = 1 << 24  # that may wait until all packets are read


@dataclass(frozen=True, slots=True)
class Size:
    """How many packets the engine and the others get, at least."""

    engine: int
    others: int


FULL = Size(1_000_000, 100_000)
QUICK = Size(150_000, 30_000)


@dataclass(frozen=True, slots=True)
class Room:
    """Captures for the engine and for the others, one without packets, and how many there are with IPv4."""

    folder: Path
    many: Traffic
    few: Traffic
    none: Path


Way = Callable[[Room], float]
"""A way takes all packets and tells how many a second it took."""


def run(options: Options) -> Report:
    """Measure all ways."""
    return measure(QUICK if options.quick else FULL, repeats=options.repeats)


def measure(size: Size, *, repeats: int, warmups: int = 1) -> Report:
    """The same with sizes of one's own. Raises `BenchmarkError` when a way did not see what it must."""
    ways, missing = sort_out(all_ways(), NEEDS)
    with tempfile.TemporaryDirectory(prefix="offpath-bench-") as directory:
        room = make_room(Path(directory), size)
        series = merge(
            *(
                interleave(
                    {name: partial(_rate, metric, does[metric], room) for name, does in ways.items() if metric in does},
                    repeats=repeats,
                    warmups=warmups,
                )
                for metric in (column.metric for column in COLUMNS)
            )
        )
    chart = svg(_chart(series, repeats))
    return Report(
        "packets",
        BENCHMARK.measures,
        COLUMNS,
        series,
        _ratios(series),
        _notes(room, repeats),
        chart=chart,
        missing=missing,
    )


def make_room(folder: Path, size: Size) -> Room:
    """Write the captures."""
    made = []
    for name, packets in (("many", size.engine), ("few", size.others)):
        (folder / name).mkdir()
        made.append(make_traffic(folder / name, packets))
    none = folder / "none.pcap"
    with made[0].path.open("rb") as file:
        none.write_bytes(file.read(24))
    return Room(folder, *made, none)


def all_ways() -> dict[str, Mapping[str, Way]]:
    """What each way can do, in the order of the table."""
    return {
        ENGINE: {
            "table": partial(_engine, counters=0),
            "records": partial(_engine, counters=0, records=True),
            "one": partial(_engine, counters=1),
            "ten": partial(_engine, counters=10),
            "files": partial(_engine, counters=0, files=True),
            "all": partial(_engine, counters=10, files=True, records=True),
        },
        TSHARK: {"one": _tshark},
        NFSTREAM: {"records": partial(_python, "nfstream_flows.py", NFSTREAM)},
        DPKT: {"records": partial(_python, "dpkt_flows.py", DPKT)},
    }


def _rate(metric: str, way: Way, room: Room) -> Measures:
    return {metric: way(room) / 1e6}


# ---- the engine


def _engine(room: Room, *, counters: int, files: bool = False, records: bool = False) -> float:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run_engine(room, counters, files, records))


async def _run_engine(room: Room, counters: int, files: bool, records: bool) -> float:
    scripts = [room.folder / f"counter{at}.lua" for at in range(counters)]
    for script in scripts:
        shutil.copyfile(_HERE / "lua" / "counter.lua", script)
    if files:
        scripts.append(_HERE / "lua" / "saved.lua")
    kinds = [*(["flow"] if records else []), *(["file"] if records and files else [])]
    async with Engine(scripts, config=Config(slow_hook_seconds=60.0)) as engine:
        for error in engine.load_errors:
            raise BenchmarkError(str(error))
        counted = engine.subscribe("counter", limit=_RECORDS)
        taken = engine.subscribe(*kinds, limit=_RECORDS) if kinds else None
        began = time.perf_counter()
        await engine.run(Capture(room.many.path))
        seconds = time.perf_counter() - began
    seen = sum([record.value async for record in counted if record.kind == "counter"])
    _check(engine.stats, room, seen, counters, files)
    if taken is not None and sum([record.kind == "flow" async for record in taken]) != engine.stats.decode.flows:
        raise BenchmarkError(f"not all {engine.stats.decode.flows} flows became records")
    return room.many.packets / seconds


def _check(stats: EngineStats, room: Room, seen: float, counters: int, files: bool) -> None:
    if stats.decode.packets != room.many.packets:
        raise BenchmarkError(f"{stats.decode.packets} packets were read instead of {room.many.packets}")
    calls = sum(hook.calls for plugin in stats.plugins for hook in plugin.hooks if hook.name == "onpacket")
    if seen != calls or bool(calls) != bool(counters) or stats.script_errors:
        raise BenchmarkError(f"{calls} packets were given to {counters} counters, which counted {seen:.0f}")
    if files and not stats.http.files:
        raise BenchmarkError("no file was found")


# ---- the others


def _tshark(room: Room) -> float:
    seconds, packets = _run_tshark(room.few.path)
    start, _ = _run_tshark(room.none)
    if not 0 < packets <= room.few.packets:
        raise BenchmarkError(f"tshark saw {packets} of {room.few.packets} packets")
    return room.few.packets / max(seconds - start, 1e-9)


def _run_tshark(capture: Path) -> tuple[float, int]:
    """Seconds, and packets that the tap counted."""
    command = ["tshark", "-q", "-n", "-r", str(capture), "-X", f"lua_script:{_HERE / 'lua' / 'tshark_counter.lua'}"]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    seconds = time.perf_counter() - began
    told = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("packets ")]
    if done.returncode or not told:
        raise BenchmarkError(f"tshark: {done.stderr.strip()}")
    return seconds, int(told[0])


def _python(script: str, name: str, room: Room) -> float:
    command = [sys.executable, str(_HERE / "peers" / script), str(room.few.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    if done.returncode:
        raise BenchmarkError(f"{name}: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    if not (room.few.packets / 2 < found["packets"] <= room.few.packets and found["flows"]):
        raise BenchmarkError(f"{name} saw {found['packets']} packets of {room.few.packets} in {found['flows']} flows")
    return room.few.packets / float(found["seconds"])


# ---- the report


def _ratios(series: Series) -> list[Ratio]:
    pairs = (
        ("one", "one", TSHARK, "at least 20"),
        ("table", "records", NFSTREAM, "at least 10"),
        ("table", "records", DPKT, "at least 20"),
        ("records", "records", NFSTREAM, ""),
        ("records", "records", DPKT, ""),
    )
    headings = {column.metric: column.label for column in COLUMNS}
    return [
        ratio(
            f"{headings[own]}: {{}} times the packets of {other}",
            series[ENGINE][own],
            series[other][its],
            goal=goal,
        )
        for own, its, other, goal in pairs
        if other in series
    ]


def _notes(room: Room, repeats: int) -> tuple[str, ...]:
    headings = {column.metric: column.label for column in COLUMNS}
    goals = ", ".join(f"{headings[metric]} {number(goal)}" for metric, goal in GOALS.items())
    return (
        "Millions of packets a second, on one core but for nfstream, which has a process more. Goals of the engine on "
        f"a machine that does nothing else: {goals}.",
        f"{room.many.packets:,} packets for the engine, {room.few.packets:,} for the others, made of "
        f"{room.many.source}; in the page cache. Time that programs take to start is not counted.",
        "Each simplecounter reads two bytes of IPv4 and counts by them. nfstream makes records of its flows, dpkt a "
        "table in Python. Nobody follows TCP streams, but the engine for files.",
        f"Median (lowest-highest) of {repeats} interleaved repeats.",
    )


def _chart(series: Series, repeats: int) -> Chart:
    return Chart(
        f"{number(series[ENGINE]['one'].median)} million packets a second through a Lua hook",
        f"Each hook reads two bytes and counts by them. Bars are medians of {repeats} interleaved runs, whiskers their "
        "lowest and highest.",
        "million packets/s",
        [_group(column, series) for column in COLUMNS],
    )


def _group(column: Column, series: Series) -> Group:
    measured = {way: metrics[column.metric] for way, metrics in series.items() if column.metric in metrics}
    return Group(column.label, [Bar(way, each.median, each.low, each.high) for way, each in measured.items()])


BENCHMARK = Benchmark(
    "packets",
    "packets through the flow table, packet hooks in Lua, and the extraction of files",
    "tshark with a tap in Lua, nfstream, and dpkt",
    run,
)
