"""Copying and appending files through `T.async`, against `cp`, `cat`, and the two loops that people write in Python.

Sources are in the page cache, nothing calls `fsync`, targets are new. Every result is compared, outside the time.
"""

from __future__ import annotations

import asyncio
import filecmp
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiofiles
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
    ratio,
    sort_out,
)
from benchmarks.machine import filesystem
from benchmarks.probes import settled
from benchmarks.table import number
from engine import Config, Engine

ONE, FEW = "T.async, 1 worker", "T.async, 4 workers"
TOOLS, SHUTIL, AIOFILES = "cp, cat", "shutil loop", "aiofiles loop"
COREUTILS = Need(lambda: all(map(shutil.which, ("cp", "cat"))), "apt-get install coreutils")

_LUA = Path(__file__).parent / "lua"
_CHUNK = 64 << 10  # bytes at a time in the loop of aiofiles
_TIMEOUT = 300  # seconds


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of the large file, and number and bytes of the small ones."""

    large: int
    count: int
    small: int


FULL = Size(large=300_000_000, count=5_000, small=20_000)
QUICK = Size(large=50_000_000, count=1_000, small=20_000)


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be done: files named by number in `source`, to files of the same names or onto one."""

    metric: str
    source: Path
    names: tuple[str, ...]
    joined: bool
    """Whether all are appended to one file."""

    def target(self, out: Path, name: str) -> Path:
        """Where a file goes."""
        return out / "joined" if self.joined else out / name


Way = Callable[[Case, Path], float]
"""A way does the work of a case in an empty folder, and tells the seconds."""


def run(options: Options) -> Report:
    """Measure all ways."""
    return measure(QUICK if options.quick else FULL, repeats=options.repeats)


def measure(size: Size, *, repeats: int, warmups: int = 1) -> Report:
    """The same with sizes of one's own. Raises `BenchmarkError` when a result differs from what it must be."""
    ways, missing = sort_out(all_ways(), {TOOLS: COREUTILS})
    with tempfile.TemporaryDirectory(prefix="offpath-bench-") as directory:
        room = Path(directory)
        series = merge(
            *(
                interleave(
                    {name: partial(_run_once, name, way, case, room) for name, way in ways.items()},
                    repeats=repeats,
                    warmups=warmups,
                )
                for case in make_cases(room, size)
            )
        )
        notes = _notes(filesystem(room), repeats)
    columns = _columns(size)
    chart = svg(_chart(series, columns, repeats))
    return Report("files", BENCHMARK.measures, columns, series, _ratios(series), notes, chart=chart, missing=missing)


def all_ways() -> dict[str, Way]:
    """Every way by its name, in the order of the table."""
    return {
        ONE: partial(_in_loop, partial(_engine, 1)),
        FEW: partial(_in_loop, partial(_engine, 4)),
        TOOLS: _tools,
        SHUTIL: _shutil,
        AIOFILES: partial(_in_loop, _aiofiles),
    }


def make_cases(room: Path, size: Size) -> Iterator[Case]:
    """Write the sources of all cases, with contents that no two files share."""
    for folder, count, length in (("large", 1, size.large), ("small", size.count, size.small)):
        source = room / folder
        source.mkdir()
        names = tuple(f"{at:05d}" for at in range(1, count + 1))
        for name in names:
            (source / name).write_bytes(os.urandom(length))
        yield Case(folder, source, names, joined=False)
    yield Case("joined", room / "small", names, joined=True)


def _run_once(name: str, way: Way, case: Case, room: Path) -> Measures:
    out = Path(tempfile.mkdtemp(prefix="out-", dir=room))
    seconds = way(case, out)
    check(name, case, out)
    # Emptied, not deleted: on ext4 a file made soon after others were deleted costs ten times as much, which the next
    # way would pay for.
    for file in out.iterdir():
        os.truncate(file, 0)
    done = sum((case.source / each).stat().st_size for each in case.names)
    return {case.metric: done / seconds / 1e6}


def check(way: str, case: Case, out: Path) -> None:
    """Raises `BenchmarkError` unless the folder holds what it must, byte for byte, and nothing else."""
    expected = {case.target(out, name) for name in case.names}
    if set(out.iterdir()) != expected:
        raise BenchmarkError(f"{way}: {len(expected)} files were to be made, there are {len(list(out.iterdir()))}")
    right = _joined_right(case, out) if case.joined else _copied_right(case, out)
    if not right:
        raise BenchmarkError(f"{way}: a file differs from its source")


def _copied_right(case: Case, out: Path) -> bool:
    return all(filecmp.cmp(case.source / name, out / name, shallow=False) for name in case.names)


def _joined_right(case: Case, out: Path) -> bool:
    with (out / "joined").open("rb") as joined:
        for name in case.names:
            data = (case.source / name).read_bytes()
            if joined.read(len(data)) != data:
                return False
        return not joined.read(1)


# ---- the ways


def _in_loop(way: Callable[[Case, Path], Awaitable[float]], case: Case, out: Path) -> float:
    async def main() -> float:
        return await way(case, out)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


async def _engine(workers: int, case: Case, out: Path) -> float:
    topic, to = ("cat", out / "joined") if case.joined else ("copy", out)
    event = {"from": str(case.source), "to": str(to), "count": len(case.names)}
    config = Config(args=str(workers), slow_hook_seconds=60.0)  # one hook calls for all files
    async with Engine([_LUA / "files.lua"], config=config) as engine:
        for error in engine.load_errors:
            raise BenchmarkError(str(error))
        began = time.perf_counter()
        await engine.emit(topic, event)
        await settled(engine, look_seconds=0.001 if len(case.names) == 1 else 0.004)
        seconds = time.perf_counter() - began
    done = engine.stats.tasks
    if (done.submitted, done.completed) != (len(case.names), len(case.names)):
        raise BenchmarkError(f"{len(case.names)} operations were called, but {done}")
    return seconds


def _tools(case: Case, out: Path) -> float:
    """One process of `cp` or `cat` for all files."""
    sources = [str(case.source / name) for name in case.names]
    with _timed() as seconds:
        if case.joined:
            with (out / "joined").open("ab") as joined:
                subprocess.run(["cat", *sources], stdout=joined, check=True, timeout=_TIMEOUT)
        else:
            subprocess.run(["cp", "-t", str(out), *sources], check=True, timeout=_TIMEOUT)
    return seconds[0]


def _shutil(case: Case, out: Path) -> float:
    """One file after the other, as they come."""
    with _timed() as seconds:
        for name in case.names:
            if not case.joined:
                shutil.copyfile(case.source / name, out / name)
                continue
            with (case.source / name).open("rb") as source, (out / "joined").open("ab") as joined:
                shutil.copyfileobj(source, joined)
    return seconds[0]


async def _aiofiles(case: Case, out: Path) -> float:
    """The same, reading and writing with await."""
    mode = "ab" if case.joined else "wb"
    with _timed() as seconds:
        for name in case.names:
            async with (
                aiofiles.open(case.source / name, "rb") as source,
                aiofiles.open(case.target(out, name), mode) as target,  # type: ignore[call-overload]
            ):
                while data := await source.read(_CHUNK):
                    await target.write(data)
    return seconds[0]


@contextmanager
def _timed() -> Iterator[list[float]]:
    seconds: list[float] = []
    began = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - began)


# ---- the report


def _columns(size: Size) -> tuple[Column, ...]:
    small = f"{size.count:,} of {number(size.small / 1e3)} KB"
    return (
        Column("large", f"copy 1 of {number(size.large / 1e6)} MB", "MB/s"),
        Column("small", f"copy {small}", "MB/s"),
        Column("joined", f"append {small} to one", "MB/s"),
    )


def _ratios(series: Series) -> list[Ratio]:
    found = []
    if TOOLS in series:
        found.append(_ratio(series, ONE, TOOLS, "large", "copies a large file {} times as fast as cp", "at least 0.9"))
    found.append(_ratio(series, ONE, SHUTIL, "large", "copies a large file {} times as fast as shutil.copyfile"))
    for metric, what in (("small", "copies small files"), ("joined", "appends small files to one")):
        for way in (ONE, FEW):
            found.append(
                _ratio(series, way, SHUTIL, metric, f"{what} {{}} times as fast as the {SHUTIL}", "at least 0.8")
            )
            found.append(
                _ratio(series, way, AIOFILES, metric, f"{what} {{}} times as fast as the {AIOFILES}", "at least 2")
            )
    return found


def _ratio(series: Series, way: str, other: str, metric: str, text: str, goal: str = "") -> Ratio:
    return ratio(f"{way}, {text}", series[way][metric], series[other][metric], goal=goal)


def _notes(disk: str, repeats: int) -> tuple[str, ...]:
    return (
        "MB/s: 10^6 bytes of sources, each read once, by the time until the last is written, without fsync.",
        "T.async: one hook calls for all files. The loops do one file after the other and open the target for each; "
        f"the one of aiofiles moves {_CHUNK >> 10} KiB at a time. cp and cat are one process for all files.",
        f"Files are on {disk}; all results were compared. Median (lowest-highest) of {repeats} interleaved repeats.",
    )


def _chart(series: Series, columns: tuple[Column, ...], repeats: int) -> Chart:
    seen = _ratio(series, ONE, AIOFILES, "small", f"copies small files {{}} times as fast as the {AIOFILES}")
    return Chart(
        seen.text.format(number(seen.spread.median)),
        f"Sources are in the page cache. Bars are medians of {repeats} interleaved runs, whiskers their lowest and "
        "highest.",
        "MB/s",
        [bars(way, metrics, columns) for way, metrics in series.items()],
    )


BENCHMARK = Benchmark(
    "files",
    "copying one large file and many small ones, and appending many to one",
    "cp and cat, a loop of shutil, and a loop that reads and writes with aiofiles",
    run,
)
