"""A soak of two seconds, and what makes one fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from benchmarks.harness import Report
from benchmarks.soak import COLUMNS, QUARTERS, SPARE_THREADS, failures, measure
from benchmarks.soak_load import SOURCE_BYTES, Outcome, Quiet
from engine.values.stats import AsyncStats, EngineStats, EventStats, HookStats, MessageStats, PluginStats


@pytest.fixture(scope="module")
def report() -> Report:
    return measure(seconds=2.0)


def test_a_short_soak_adds_up(report: Report) -> None:
    assert report.failures == ()
    assert [column.metric for column in COLUMNS] == list(QUARTERS)
    assert list(report.series) == ["memory, MiB", "threads", "descriptors", "loop lag p99, ms", "tasks, /s"]
    assert all(set(metrics) == set(QUARTERS) for metrics in report.series.values())
    assert report.series["memory, MiB"]["last"].low > 1
    assert report.series["threads"]["last"].low >= 1
    sent = report.notes[0]
    for kind in ("capture", "cat", "copy", "failing", "late", "message", "quick", "slow", "visit"):
        assert f" {kind}" in sent


def test_the_chart_has_four_panels(report: Report) -> None:
    root = ElementTree.fromstring(report.chart)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) == 4
    assert "2 seconds of a mixed load" in report.chart


def _good() -> Outcome:
    hook = HookStats("onfile_http", calls=3)
    stats = EngineStats(
        events=EventStats(received=10, handled=10),
        messages=MessageStats(posted=2, delivered=2),
        tasks=AsyncStats(submitted=11, completed=9, failed=2, timed_out=1),
        script_errors=2,
        plugins=(PluginStats("name", "script", "filex_monitor", (hook,)),),
    )
    sent = Counter(quick=4, cat=2, message=2, failing=1, late=1, capture=1)
    rest, gone = Quiet(6, 15), Quiet(1, 14)
    return Outcome((), sent, stats, 2 * SOURCE_BYTES, gone, rest, rest, gone)


def test_a_good_outcome_has_no_failures() -> None:
    assert list(failures(_good())) == []
    assert list(failures(replace(_good(), end=Quiet(6 + SPARE_THREADS, 15)))) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": AsyncStats(submitted=11, completed=8, failed=2)}, "tasks do not add up"),
        ({"tasks": AsyncStats(submitted=12, completed=10, failed=2)}, "11 tasks were called for"),
        ({"tasks": AsyncStats(submitted=11, completed=11)}, "1 tasks were to fail"),
        ({"tasks": AsyncStats(submitted=11, completed=8, failed=2, rejected=1)}, "rejected or abandoned"),
        ({"events": EventStats(received=10, handled=9, pending=1)}, "events do not add up"),
        ({"events": EventStats(received=9, handled=9)}, "10 events were emitted"),
        ({"messages": MessageStats(posted=2, delivered=1)}, "messages do not add up"),
        ({"script_errors": 3}, "scripts made 3 errors"),
    ],
)
def test_counts_that_do_not_add_up_fail(changes: dict[str, object], message: str) -> None:
    good = _good()
    found = list(failures(replace(good, stats=replace(good.stats, **changes))))
    assert [line for line in found if message in line], found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end": Quiet(7 + SPARE_THREADS, 15)}, "threads grew: 6 at rest after the warm-up, 15 at the end"),
        ({"end": Quiet(6, 16)}, "descriptors grew: 15 after the warm-up, 16 at the end"),
        ({"after": Quiet(2, 14)}, "1 threads outlive the engine"),
        ({"after": Quiet(1, 15)}, "1 descriptors outlive the engine"),
        ({"joined_bytes": 1}, "2 pieces were appended, but there are 1 bytes"),
    ],
)
def test_what_grew_or_is_lost_fails(changes: dict[str, object], message: str) -> None:
    assert list(failures(replace(_good(), **changes))) == [message]
