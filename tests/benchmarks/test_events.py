"""The benchmark `events` in small; nothing here looks at how long anything took."""

from __future__ import annotations

import pytest

from benchmarks.events import BATCH, COLUMNS, CROWD, EMIT, LUPA, PEERS, _is_there, all_ways, check, make_work, measure
from benchmarks.harness import BenchmarkError
from benchmarks.table import report_lines


def test_every_way_is_measured_or_says_what_it_needs() -> None:
    report = measure(make_work(300, crowd=3), repeats=1, warmups=0)
    assert {*report.series, *report.missing} == set(all_ways())
    assert {name for name, module in PEERS.items() if not _is_there(module)} == set(report.missing)
    for metrics in report.series.values():
        assert set(metrics) == {column.metric for column in COLUMNS}
    text = "\n".join(report_lines(report))
    assert "(goal: at least 0.7)" in text
    assert all(way in text for way in (EMIT, BATCH, CROWD, LUPA))


@pytest.mark.parametrize("told", [[], ["2 5"], ["3 6"], ["3 5", "3 5"]])
def test_a_way_that_lost_events_fails(told: list[str]) -> None:
    with pytest.raises(BenchmarkError, match=r"table\.orders: 3 events"):
        check("table.orders", [{"price": 1}, {"price": 2}, {"price": 2}], told)


def test_a_way_that_saw_all_does_not_fail() -> None:
    check("text.orders", [b"ab", b"c"], ["2 3"])
    check("json.orders", [b'{"price": 4}'], ["1 4"])
