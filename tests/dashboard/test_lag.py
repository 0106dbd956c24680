"""Loop lag: what is counted for a loop that was held."""

from __future__ import annotations

import asyncio
import time

import pytest

from engine.dashboard.lag import PERIOD, LagMeter, LagPoint
from tests.support import eventually


def test_samples_that_are_missing_are_counted_with_what_was_left_to_wait() -> None:
    meter = LagMeter()
    meter.add(PERIOD * 3.5, 1.0)
    assert meter.snapshot().count == 4
    assert meter.snapshot().seconds == pytest.approx(PERIOD * (3.5 + 2.5 + 1.5 + 0.5))


def test_a_loop_that_was_held_half_of_the_time_does_not_look_free() -> None:
    meter = LagMeter()
    for second in range(10):
        meter.add(0.5, second + 0.5)
        for sample in range(25):
            meter.add(0.0, second + 0.5 + sample * PERIOD)
    assert meter.snapshot().percentile(75) > 0.2


def test_a_very_long_stop_is_counted_in_little_time() -> None:
    meter = LagMeter()
    meter.add(1e6, 1.0)
    assert meter.snapshot().count < 20_000
    assert meter.worst_recent(1.0) == 1e6


def test_the_worst_of_the_last_ten_seconds() -> None:
    meter = LagMeter()
    assert meter.worst_recent(0.0) == 0.0
    for now, late in ((1.0, 0.3), (2.0, 0.5), (3.0, 0.1)):
        meter.add(late, now)
    assert meter.worst_recent(4.0) == 0.5
    assert meter.worst_recent(12.5) == 0.1
    assert meter.worst_recent(14.0) == 0.0


def test_points_are_of_what_came_since_the_last_one() -> None:
    meter = LagMeter()
    assert meter.take_point() == LagPoint(0.0, 0.0, 0.0)
    for late in (0.001, 0.002, 0.009):
        meter.add(late, 1.0)
    assert meter.take_point() == LagPoint(0.002, 0.009, 0.009)
    meter.add(0.003, 2.0)
    assert meter.take_point() == LagPoint(0.003, 0.009, 0.003)


async def test_a_loop_that_is_held_is_seen() -> None:
    meter = LagMeter()
    measuring = asyncio.create_task(meter.measure())
    await eventually(lambda: meter.snapshot().count >= 2)
    time.sleep(0.2)  # noqa: ASYNC251 - this is what is measured
    await eventually(lambda: meter.worst_recent(time.monotonic()) > 0.15)
    measuring.cancel()
    assert meter.snapshot().count >= 8
