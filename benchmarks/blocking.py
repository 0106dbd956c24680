"""How long a script that copies files holds the fast path: inside its hook, and through `T.async`.

One synthetic capture is read once per way and repeat, by an engine of its own. Every copy is compared with what is
known to be in the capture; a way that lost or spoiled a file fails the benchmark.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop

from benchmarks.bar_chart import Chart, bars, svg
from benchmarks.harness import (
    Benchmark,
    BenchmarkError,
    Column,
    Measures,
    Options,
    Ratio,
    Report,
    Series,
    interleave,
    percentile,
    ratio,
)
from benchmarks.machine import filesystem
from benchmarks.probes import HookTimes, LoopLag
from benchmarks.table import number
from engine import Capture, Config, Engine, Subscription
from engine.capture.synth import synthesize
from engine.capture.synth_http import SynthFile
from engine.values.records import Log
from engine.values.stats import EngineStats

HOOK = "onfile_http"
WAYS = {
    "inline cp": "inline_cp.lua",
    "inline read/write": "inline_read_write.lua",
    "T.async:copy": "async_copy.lua",
    "T.async:schedule": "async_schedule.lua",
}
INLINE = tuple(way for way in WAYS if way.startswith("inline"))
OFFLOADED = tuple(way for way in WAYS if way not in INLINE)

COLUMNS = (
    Column("p50", "p50", "µs"),
    Column("p99", "p99", "µs"),
    Column("max", "max", "µs"),
    Column("held", "all calls", "ms"),
    Column("lag", "loop lag", "ms"),
    Column("run", "run", "s"),
    Column("files", "copies"),
)
CHARTED = ("p50", "p99", "max")

_SCRIPTS = Path(__file__).parent / "lua"
_SEED = 7
_FILES, _QUICK_FILES = 400, 60
_PART = re.compile(r"(?P<name>.+)\.(?P<offset>\d+)\.part")


@dataclass(frozen=True, slots=True)
class Work:
    """What is done in each run: the capture, the contents that are in it, and room for copies."""

    capture: Path
    contents: Counter[str]
    """SHA-256 of every file that is not empty; empty ones also come from responses without a body."""
    room: Path


def run(options: Options) -> Report:
    """Measure all ways."""
    return measure(files=_QUICK_FILES if options.quick else _FILES, repeats=options.repeats)


def measure(*, files: int, repeats: int, warmups: int = 1) -> Report:
    """The same with a size of one's own. Raises `BenchmarkError` when a copy is missing or differs."""
    with tempfile.TemporaryDirectory(prefix="offpath-bench-") as directory:
        room = Path(directory)
        made = synthesize(room / "files.pcap", files=files, seed=_SEED)
        work = Work(made.path, known_contents(made.files), room)
        series = interleave({way: partial(run_once, way, work) for way in WAYS}, repeats=repeats, warmups=warmups)
        disk = filesystem(room)
    return _report(series, made.packets, disk, repeats)


def known_contents(files: Iterable[SynthFile]) -> Counter[str]:
    """Hashes of the files that are not empty."""
    return Counter(each.sha256 for each in files if each.size)


def run_once(way: str, work: Work) -> Measures:
    """Read the capture with the script of one way, in a fresh loop, engine and output directory."""
    with tempfile.TemporaryDirectory(prefix="copies-", dir=work.room) as directory:
        out = Path(directory)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            measures, stats = runner.run(_run_engine(_SCRIPTS / WAYS[way], work.capture, out))
        copies = check_copies(way, out, work.contents)
    check_stats(way, stats, copies)
    return {**measures, "files": copies}


async def _run_engine(script: Path, capture: Path, out: Path) -> tuple[dict[str, float], EngineStats]:
    held, lag = HookTimes(HOOK), LoopLag()
    async with Engine([script], config=Config(args=str(out))) as engine:
        for error in engine.load_errors:
            raise BenchmarkError(str(error))
        held.attach(engine)
        async with engine.subscribe("log") as log:
            async with lag:
                began = time.perf_counter()
                await engine.run(Capture(capture))
                seconds = time.perf_counter() - began
            lines = list(_complaints(log))
    if lines or not held.seconds:
        raise BenchmarkError(f"{script.name}: {lines[0] if lines else f'{HOOK} was never called'}")
    return {**held_measures(held.seconds), "lag": lag.worst * 1e3, "run": seconds}, engine.stats


def _complaints(log: Subscription) -> Iterator[str]:
    while (record := log.receive_nowait()) is not None:
        if isinstance(record, Log) and record.level in ("WARN", "ERROR"):
            yield record.text


def held_measures(seconds: list[float]) -> dict[str, float]:
    """The calls of a run as percentiles in microseconds, and all of them together in milliseconds."""
    micros = [each * 1e6 for each in seconds]
    return {
        "p50": percentile(micros, 50),
        "p99": percentile(micros, 99),
        "max": max(micros),
        "held": sum(micros) / 1e3,
    }


def check_copies(way: str, out: Path, contents: Counter[str]) -> int:
    """The number of copies. Raises `BenchmarkError` unless they hold the known contents, byte for byte."""
    copies = sorted(out.iterdir())
    whole: dict[str, list[tuple[int, Path]]] = {}
    for path in copies:
        part = _PART.fullmatch(path.name)
        name, offset = (part["name"], int(part["offset"])) if part else (path.name, 0)
        whole.setdefault(name, []).append((offset, path))
    found = Counter(_hash(path for _, path in sorted(parts)) for parts in whole.values())
    del found[hashlib.sha256().hexdigest()]
    if found != contents:
        missing, extra = (contents - found).total(), (found - contents).total()
        raise BenchmarkError(f"{way}: {missing} files are missing and {extra} differ, of {contents.total()}")
    return len(copies)


def _hash(parts: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in parts:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def check_stats(way: str, stats: EngineStats, copies: int) -> None:
    """Raises `BenchmarkError` unless there was one call per copy, and one task where tasks are used; none failed."""
    calls = sum(hook.calls for plugin in stats.plugins for hook in plugin.hooks if hook.name == HOOK)
    tasks = copies if way in OFFLOADED else 0
    expected = (copies, tasks, tasks, 0)
    if (calls, stats.tasks.submitted, stats.tasks.completed, stats.script_errors) != expected:
        raise BenchmarkError(f"{way}: {copies} copies, but {calls} calls, {stats.script_errors} errors, {stats.tasks}")


def _report(series: Series, packets: int, disk: str, repeats: int) -> Report:
    ratios = [_held_ratio(series, slow, fast) for slow in INLINE for fast in OFFLOADED]
    ratios += [_run_ratio(series, fast, "inline read/write") for fast in OFFLOADED]
    calls = number(next(iter(series.values()))["files"].median)
    notes = (
        f"p50, p99, max, all calls: wall time of {HOOK} as the loop's thread sees it, {calls} calls a run.",
        "loop lag: the latest wake-up of a task that sleeps 1 ms, again and again. run: until the last copy is done.",
        f"{number(packets)} packets; copies go to {disk}, without fsync, and every one was compared. "
        f"Median (lowest-highest) of {repeats} interleaved repeats.",
    )
    title = "how long each way of copying files holds the fast path"
    return Report("blocking", title, COLUMNS, series, ratios, notes, svg(_chart(series, calls, repeats)))


def _held_ratio(series: Series, slow: str, fast: str) -> Ratio:
    text = f"{slow} holds the fast path {{}} times as long at p99 as {fast}"
    return ratio(text, series[slow]["p99"], series[fast]["p99"])


def _run_ratio(series: Series, way: str, other: str) -> Ratio:
    """What leaving the fast path costs, or saves: threads are not free."""
    return ratio(
        f"a whole run with {way} takes {{}} times as long as with {other}", series[way]["run"], series[other]["run"]
    )


def _chart(series: Series, calls: str, repeats: int) -> Chart:
    seen = _held_ratio(series, "inline read/write", "T.async:copy")
    title = seen.text.format(number(seen.spread.median))
    charted = [column for column in COLUMNS if column.metric in CHARTED]
    groups = [bars(way, series[way], charted) for way in WAYS]
    return Chart(
        title[0].upper() + title[1:],
        f"Every file of a capture is copied from {HOOK}, {calls} calls a run. Bars are medians of {repeats} "
        "interleaved runs, whiskers their lowest and highest.",
        "time that one call holds the fast path, µs",
        groups,
    )


BENCHMARK = Benchmark(
    "blocking",
    "how long each call of a file hook holds the fast path while it copies the file",
    "copying inside the hook, with cp and in Lua",
    run,
)
