"""Durations in doubling buckets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.values.histogram import BUCKETS, Histogram, Recorder, upper_bound

DURATIONS = st.lists(st.floats(0, 1000), max_size=50)


def recorded(durations: list[float]) -> Histogram:
    recorder = Recorder()
    for seconds in durations:
        recorder.add(seconds)
    return recorder.snapshot()


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (0.9e-6, 0), (1e-6, 1), (1.9e-6, 1), (2.1e-6, 2), (1e-3, 10), (1.0, 20), (1e9, BUCKETS - 1)],
)
def test_the_bucket_of_a_duration(seconds: float, bucket: int) -> None:
    counts = recorded([seconds]).counts
    assert counts[bucket] == 1
    assert sum(counts) == 1


@given(DURATIONS, DURATIONS)
def test_histograms_add_up(some: list[float], others: list[float]) -> None:
    total = recorded(some) + recorded(others)
    assert total.counts == recorded([*some, *others]).counts
    assert total.count == len(some) + len(others)
    assert total.seconds == pytest.approx(sum(some) + sum(others))


@given(st.lists(st.floats(0, 60), min_size=1, max_size=50), st.integers(1, 100))
def test_a_percentile_is_within_a_factor_of_two_above(durations: list[float], percent: int) -> None:
    rank = max(math.ceil(len(durations) * percent / 100), 1)
    exact = sorted(durations)[rank - 1]
    found = recorded(durations).percentile(percent)
    assert exact <= found <= max(exact * 2, 1e-6) * 1.000_001


def test_many_of_one_duration_count_as_many() -> None:
    recorder = Recorder()
    recorder.add(0.5, 7)
    assert recorder.snapshot().count == 7
    assert recorder.snapshot().mean == pytest.approx(0.5)


def test_of_nothing() -> None:
    assert Histogram().count == 0
    assert Histogram().mean == 0.0
    assert Histogram().percentile(99) == 0.0
    assert upper_bound(BUCKETS - 1) == math.inf
