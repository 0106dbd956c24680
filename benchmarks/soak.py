"""A mixed load for a time: does anything grow, does every count close, how late is the loop meanwhile?"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvloop

from benchmarks.harness import Benchmark, Column, Options, Report, Spread, ratio
from benchmarks.soak_load import SOURCE_BYTES, Outcome, Sample, soak
from benchmarks.table import number
from engine.cli.line_chart import LineChart, Panel, svg

QUARTERS = ("first quarter", "second", "third", "last")
COLUMNS = tuple(Column(name, name) for name in QUARTERS)

SPARE_THREADS = 8
"""Threads of file operations start when they are needed, eight at most, and stay."""

_WARM_PART = 0.2  # of the time
_QUICK_MINUTES = 1 / 6


def run(options: Options) -> Report:
    """Soak for the minutes that are wanted."""
    return measure(seconds=60 * (options.minutes * _QUICK_MINUTES if options.quick else options.minutes))


def measure(*, seconds: float) -> Report:
    """The same with a time of one's own."""
    with (
        tempfile.TemporaryDirectory(prefix="offpath-bench-") as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        _expected_errors_unsaid(),
    ):
        outcome = runner.run(soak(Path(directory), seconds=seconds, warm_seconds=seconds * _WARM_PART))
    return _report(outcome, seconds)


@contextmanager
def _expected_errors_unsaid() -> Iterator[None]:
    """Keep the errors that the load makes on purpose off the terminal; those it does not are counted by `failures`."""
    logger = logging.getLogger("offpath")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def failures(outcome: Outcome) -> Iterator[str]:
    """What did not add up, and what grew."""
    yield from _open_counts(outcome)
    yield from _wrong_counts(outcome)
    if outcome.end.threads > outcome.warm.threads + SPARE_THREADS:
        yield f"threads grew: {outcome.warm.threads} at rest after the warm-up, {outcome.end.threads} at the end"
    if outcome.end.descriptors > outcome.warm.descriptors:
        yield f"descriptors grew: {outcome.warm.descriptors} after the warm-up, {outcome.end.descriptors} at the end"
    if outcome.after.threads > outcome.before.threads:
        yield f"{outcome.after.threads - outcome.before.threads} threads outlive the engine"
    if outcome.after.descriptors > outcome.before.descriptors:
        yield f"{outcome.after.descriptors - outcome.before.descriptors} descriptors outlive the engine"


def _open_counts(outcome: Outcome) -> Iterator[str]:
    """Groups of counts that do not close on themselves."""
    tasks, events, messages = outcome.stats.tasks, outcome.stats.events, outcome.stats.messages
    if tasks.submitted != tasks.completed + tasks.failed + tasks.rejected + tasks.abandoned or tasks.pending:
        yield f"tasks do not add up: {tasks}"
    if events.received != events.handled + events.dropped + events.failed or events.pending:
        yield f"events do not add up: {events}"
    if messages.posted != messages.delivered + messages.dropped + messages.failed or messages.pending:
        yield f"messages do not add up: {messages}"


def _wrong_counts(outcome: Outcome) -> Iterator[str]:
    """Counts that close, but not on what was asked for. A task may just make it before its timeout is looked at."""
    sent, stats = outcome.sent, outcome.stats
    emitted = sum(count for kind, count in sent.items() if kind != "capture")
    if (stats.events.received, stats.events.handled) != (emitted, emitted):
        yield f"{emitted} events were emitted, but {stats.events}"
    copied = _calls(outcome, "onfile_http")
    if not copied >= sent["capture"] > 0:
        yield f"{sent['capture']} captures were read, but {copied} files seen"
    asked = emitted - sent["message"] + copied
    if stats.tasks.submitted != asked:
        yield f"{asked} tasks were called for, but {stats.tasks}"
    if not sent["failing"] <= stats.tasks.failed <= sent["failing"] + sent["late"]:
        yield f"{sent['failing']} tasks were to fail and {sent['late']} to be late, but {stats.tasks}"
    if stats.script_errors != stats.tasks.failed:
        yield f"{stats.tasks.failed} tasks failed, but scripts made {stats.script_errors} errors"
    if stats.tasks.rejected or stats.tasks.abandoned:
        yield f"tasks were rejected or abandoned: {stats.tasks}"
    if outcome.joined_bytes != sent["cat"] * SOURCE_BYTES:
        yield f"{sent['cat']} pieces were appended, but there are {outcome.joined_bytes:,} bytes"


def _calls(outcome: Outcome, hook: str) -> int:
    return sum(each.calls for plugin in outcome.stats.plugins for each in plugin.hooks if each.name == hook)


# ---- the report


def _report(outcome: Outcome, seconds: float) -> Report:
    samples = outcome.samples
    series = {
        "memory, MiB": _quarters(samples, [each.rss / 2**20 for each in samples]),
        "threads": _quarters(samples, [float(each.threads) for each in samples]),
        "descriptors": _quarters(samples, [float(each.descriptors) for each in samples]),
        "loop lag p99, ms": _quarters(samples, [each.lag * 1e3 for each in samples]),
        "tasks, /s": _quarters(samples, [each.rate for each in samples]),
    }
    memory = {name: Spread((spread.median,)) for name, spread in series["memory, MiB"].items()}
    ratios = (
        ratio("in the last quarter {} times the memory of the second is in use", memory["last"], memory["second"]),
    )
    wrong = tuple(failures(outcome))
    return Report(
        "soak", BENCHMARK.measures, COLUMNS, series, ratios, _notes(outcome), _chart(samples, seconds), failures=wrong
    )


def _quarters(samples: Sequence[Sample], values: Sequence[float]) -> Mapping[str, Spread]:
    """The values of each quarter of the samples; of the few there are, when they are not four."""
    size = len(samples)
    cuts = [round(size * part / 4) for part in range(5)]
    return {name: Spread(tuple(values[cuts[at] : cuts[at + 1]] or values[-1:])) for at, name in enumerate(QUARTERS)}


def _notes(outcome: Outcome) -> tuple[str, ...]:
    tasks = outcome.stats.tasks
    sent = ", ".join(f"{count:,} {kind}" for kind, count in sorted(outcome.sent.items()))
    return (
        f"Sent: {sent}. Tasks: {tasks.submitted:,} = {tasks.completed:,} completed + {tasks.failed:,} failed "
        f"({tasks.timed_out:,} timed out) + {tasks.rejected:,} rejected + {tasks.abandoned:,} abandoned.",
        f"At rest: {outcome.warm.threads} threads and {outcome.warm.descriptors} descriptors after the warm-up, "
        f"{outcome.end.threads} and {outcome.end.descriptors} at the end, {outcome.after.threads} and "
        f"{outcome.after.descriptors} after the engine's block, {outcome.before.threads} and "
        f"{outcome.before.descriptors} before it.",
        "loop lag: how late a task woke up that sleeps 1 ms, again and again, at p99 of an interval. "
        "Median (lowest-highest) of the intervals of a quarter.",
    )


def _chart(samples: Sequence[Sample], seconds: float) -> str:
    panels = (
        Panel("memory, MiB", [[each.rss / 2**20 for each in samples]]),
        Panel("threads", [[each.threads for each in samples]]),
        Panel("descriptors", [[each.descriptors for each in samples]]),
        Panel("loop lag at p99, ms", [[each.lag * 1e3 for each in samples]]),
    )
    shown = f"{number(seconds / 60)} minutes" if seconds > 60 else f"{number(seconds)} seconds"
    return svg(
        LineChart(
            f"{shown} of a mixed load",
            "Quick, slow, late and failing tasks, copies, appends, messages, captures, a script that comes and goes. "
            f"A rest after {_WARM_PART:.0%} of the time.",
            "seconds",
            [each.at for each in samples],
            panels,
        )
    )


BENCHMARK = Benchmark(
    "soak",
    "memory, threads, descriptors and loop lag under a mixed load, and whether every count adds up",
    "itself, when it was warm",
    run,
    in_all=False,
)
