"""Stream time: the wall's until a source is followed, never backwards while it lasts."""

from __future__ import annotations

import time

from engine.values.clock import Clock


def test_without_a_source_it_is_the_walls() -> None:
    wall = [100.0]
    clock = Clock(lambda: wall[0])
    assert clock.now() == 100.0
    wall[0] = 101.5
    assert clock.now() == 101.5


def test_the_default_wall_is_the_systems() -> None:
    before = time.time()
    assert before <= Clock().now() <= time.time()


def test_it_follows_a_source_and_stands_still_between_its_events() -> None:
    wall = [1_000.0]
    clock = Clock(lambda: wall[0])
    clock.follow(10.0)
    wall[0] = 2_000.0
    assert clock.now() == 10.0
    clock.follow(12.25)
    assert clock.now() == 12.25


def test_it_never_runs_backwards_while_a_source_lasts() -> None:
    clock = Clock(lambda: 0.0)
    for told in (5.0, 3.0, 5.0, -1.0):
        clock.follow(told)
        assert clock.now() == 5.0


def test_a_source_before_the_epoch_is_followed_too() -> None:
    clock = Clock(lambda: 50.0)
    clock.follow(-3.0)
    assert clock.now() == -3.0


def test_release_goes_back_to_the_wall_and_a_new_source_starts_anywhere() -> None:
    clock = Clock(lambda: 77.0)
    clock.follow(1_000.0)
    clock.release()
    assert clock.now() == 77.0
    clock.follow(3.0)
    assert clock.now() == 3.0
