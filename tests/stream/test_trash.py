"""What is freed of a window that is over: a bounded part at a time, and all of a small one at once."""

from __future__ import annotations

from itertools import pairwise

from engine.stream.keys import KeyRows, Trash


def emptied(keys: int) -> list[int]:
    """How many rows are left after each step."""
    trash = Trash()
    rows = KeyRows(keys, trash)
    rows.rows_of([f"key {number}" for number in range(keys)])
    del rows
    left = []
    while trash.empty_some():
        left.append(sum(map(len, trash._waiting)))
    return left


def test_a_small_window_is_gone_in_a_step() -> None:
    assert emptied(100) == [0]


def test_a_large_one_takes_steps_of_some_thousand_keys() -> None:
    left = emptied(100_000)
    steps = [before - after for before, after in pairwise(left)]
    assert left[-1] == 0
    assert 20 < len(left) < 150
    assert max(steps) < 4_096
