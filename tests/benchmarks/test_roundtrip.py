"""The benchmark `roundtrip` in small; nothing here looks at how long anything took."""

from __future__ import annotations

import pytest

from benchmarks import roundtrip
from benchmarks.harness import BenchmarkError, Need, Report
from benchmarks.roundtrip import IN_FLIGHT, WORKERS, Size, all_ways, engine_name, executor_name, luv_name, measure
from benchmarks.table import report_lines

TINY = Size({1: 20, 100: 300, 10_000: 500}, {1: 20, 100: 150, 10_000: 200})


@pytest.fixture(scope="module")
def report() -> Report:
    return measure(TINY, repeats=1, warmups=0)


def test_every_way_is_measured_or_missing(report: Report) -> None:
    assert {*report.series, *report.missing} == set(all_ways())
    assert {engine_name(count) for count in WORKERS} <= set(report.series)
    metrics = {*(f"rate {count}" for count in IN_FLIGHT), "p50", "p99"}
    for way in report.series.values():
        assert set(way) == metrics == {column.metric for column in report.columns}
        assert all(spread.low > 0 for spread in way.values())
        assert way["p50"].median <= way["p99"].median


def test_goals_stand_with_their_ratios(report: Report) -> None:
    text = "\n".join(report_lines(report))
    assert text.count("(goal: at least 20)") == 2
    assert text.count("(goal: at most 2)") == 1
    luv = luv_name(1) in report.series
    assert text.count("(goal: at least 1)") == (2 * len(WORKERS) if luv else 0)


def test_without_luv_its_rows_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roundtrip, "LUV", Need(lambda: False, "apt-get install luajit lua-luv"))
    kept = [engine_name(1), executor_name(1), executor_name(4), "asyncio.to_thread", luv_name(1)]
    ways = {name: way for name, way in all_ways().items() if name in kept}
    monkeypatch.setattr(roundtrip, "all_ways", lambda: ways)
    report = measure(TINY, repeats=1, warmups=0)
    assert list(report.series) == [name for name in kept if name != luv_name(1)]
    rows = [line for line in report_lines(report) if "luv, 1 thread" in line]
    assert len(rows) == 1
    assert "luv, 1 thread (apt-get install luajit lua-luv)" in rows[0]
    assert rows[0].count("not installed") == len(report.columns)
    assert not [each for each in report.ratios if "luv" in each.text]


@pytest.mark.parametrize("in_flight", [1, 7, 50])
@pytest.mark.parametrize("way", [engine_name(2), "asyncio.to_thread", "anyio to_thread.run_sync"])
def test_any_number_in_flight_makes_all_round_trips(way: str, in_flight: int) -> None:
    found = all_ways()[way](in_flight, Size({in_flight: 30}, {in_flight: 30}))
    assert found[f"rate {in_flight}"] > 0
    assert ("p50" in found) == (in_flight == 1)


def test_a_wrong_number_of_round_trips_fails() -> None:
    with pytest.raises(BenchmarkError, match="9 round trips were made instead of 10"):
        roundtrip._measures(100, 10, '{"done": 9, "seconds": 1, "p50": 0, "p99": 0}')
