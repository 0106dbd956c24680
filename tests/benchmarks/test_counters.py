"""The benchmark `counters` in small; nothing here looks at how long anything took."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import counter_load, counters, traffic
from benchmarks.counters import DICT, ENGINE, NEEDS, PEERS, Size, measure
from benchmarks.harness import BenchmarkError, Need
from benchmarks.table import report_lines

TINY = Size(4_000, (10, 100, 1_000), 2_000)


@pytest.fixture(autouse=True)
def made_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the sample, which is not everywhere."""
    monkeypatch.setattr(traffic, "SAMPLE", Path("/nonexistent"))


def test_every_way_is_measured_or_missing() -> None:
    report = measure(TINY, repeats=1)
    assert {*report.series, *report.missing} == {ENGINE, *PEERS}
    assert set(report.series[ENGINE]) == {column.metric for column in report.columns}
    assert all(spread.low > 0 for spread in report.series[DICT].values())
    text = "\n".join(report_lines(report))
    assert text.count("(goal: at least 10)") == 3
    assert text.count("(goal: less than 10)") == 2


def test_who_is_not_there_has_a_row_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "NEEDS", {name: Need(lambda: False, need.install) for name, need in NEEDS.items()})
    report = measure(TINY, repeats=1)
    assert list(report.series) == [ENGINE, DICT]
    assert report.missing == {name: need.install for name, need in NEEDS.items()}


def test_updates_that_are_not_counted_fail() -> None:
    with pytest.raises(BenchmarkError, match="rate of 0 keys"):
        counter_load.measure("rate", keys=0, updates=10)
