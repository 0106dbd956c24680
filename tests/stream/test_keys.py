"""Rows of keys, and what is freed of them: a bounded part at a time, and all of a small window at once."""

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


def test_rows_stay_the_same_when_keys_are_spread() -> None:
    rows = KeyRows(100_000, Trash())
    few = [f"key {number}" for number in range(3_000)]
    many = [f"key {number}" for number in range(10_000)]
    before = rows.rows_of(few)
    after = rows.rows_of(many)
    assert after[: len(few)] == before
    assert [rows.find(key) for key in many] == after == list(range(1, len(many) + 1))
    assert rows.rows_of(few) == before
