"""The benchmark `cpu` in small; nothing here looks at how long anything took."""

from __future__ import annotations

import pytest

from benchmarks import cpu
from benchmarks.cpu import ALONE, BESIDE, COLUMNS, WORKERS, Spinner, Work, calibrate, measure
from benchmarks.harness import BenchmarkError
from benchmarks.table import report_lines


def test_all_ways_are_measured_and_the_loop_is_looked_at_where_it_runs() -> None:
    report = measure(rounds=2_000, tasks=10, repeats=1, warmups=0)
    assert list(report.series) == [WORKERS, ALONE, BESIDE]
    every = {column.metric for column in COLUMNS}
    assert {way: set(metrics) for way, metrics in report.series.items()} == {
        WORKERS: every,
        ALONE: {"rate"},
        BESIDE: every,
    }
    text = "\n".join(report_lines(report))
    assert "(goal: at least 0.95)" in text
    assert "10 tasks of 2,000 rounds" in text


def test_the_arithmetic_is_what_it_is_said_to_be() -> None:
    value = 1
    for at in range(1, 101):
        value = (value * 16807 + at) % 2147483647
    assert Spinner().spin(100) == value


def test_wrong_results_fail() -> None:
    with pytest.raises(BenchmarkError, match="wrong"):
        cpu._workers(Work(rounds=100, value=0, tasks=2))


def test_rounds_grow_with_the_time_that_is_wanted() -> None:
    assert calibrate(0.05) > calibrate(0.001) > 1
