"""The harness: order of runs, medians and spreads, ratios within a repeat, percentiles, discovery."""

from __future__ import annotations

import json

import pytest

from benchmarks.harness import (
    BenchmarkError,
    Column,
    Options,
    Report,
    Spread,
    as_mapping,
    discover,
    interleave,
    percentile,
    ratio,
)


def test_ways_take_turns_and_warm_ups_do_not_count() -> None:
    order: list[str] = []

    def way(name: str) -> dict[str, float]:
        order.append(name)
        return {"time": float(len(order))}

    series = interleave({"a": lambda: way("a"), "b": lambda: way("b")}, repeats=2, warmups=1)
    assert "".join(order) == "ababab"
    assert series["a"]["time"].values == (3.0, 5.0)
    assert series["b"]["time"].values == (4.0, 6.0)


def test_spread_has_median_and_ends() -> None:
    spread = Spread((5.0, 1.0, 2.0))
    assert (spread.low, spread.median, spread.high) == (1.0, 2.0, 5.0)
    assert Spread((4.0, 1.0)).median == 2.5
    with pytest.raises(ValueError, match="at least one"):
        Spread(())


def test_ratio_is_taken_repeat_by_repeat() -> None:
    found = ratio("{}", Spread((10.0, 90.0, 30.0)), Spread((1.0, 3.0, 30.0)))
    assert found.spread.values == (10.0, 30.0, 1.0)
    assert found.spread.median == 10.0


def test_no_ratio_to_nothing() -> None:
    with pytest.raises(BenchmarkError, match=r"zero: a \{\} b"):
        ratio("a {} b", Spread((1.0,)), Spread((0.0,)))


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [(100, 50, 50), (100, 99, 99), (100, 100, 100), (1, 99, 1), (3, 50, 2), (10, 0, 1)],
)
def test_percentile_is_a_value_that_was_measured(count: int, percent: float, expected: int) -> None:
    assert percentile(list(range(count, 0, -1)), percent) == expected


def test_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_quick_repeats_less() -> None:
    assert Options(quick=True).repeats == 3
    assert Options().repeats == 5


def test_benchmarks_are_found() -> None:
    found = discover()
    assert "blocking" in found
    assert all(name == each.name and each.measures and each.against for name, each in found.items())


def test_report_as_json_keeps_every_repeat() -> None:
    series = {"a": {"time": Spread((3.0, 1.0, 2.0))}}
    report = Report("x", "title", [Column("time", "time", "s")], series, [ratio("{}", Spread((4.0,)), Spread((2.0,)))])
    found = json.loads(json.dumps(as_mapping(report)))
    assert found["series"]["a"]["time"] == {"median": 2.0, "low": 1.0, "high": 3.0, "values": [3.0, 1.0, 2.0]}
    assert found["units"] == {"time": "s"}
    assert found["ratios"][0]["median"] == 2.0
