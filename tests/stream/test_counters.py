"""Sums of counters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.stream.counters import Counters
from engine.values.records import Counter

PLACES = st.tuples(st.sampled_from("gh"), st.sampled_from("kl"), st.integers(0, 2))


def test_sums_are_taken_in_order_and_once() -> None:
    counters = Counters()
    counters.add("{B}", "k", 0, 2)
    counters.add("{A}", "k", 1, 0.5)
    counters.add("{B}", "k", 0, 3)
    assert list(counters.take()) == [Counter("{A}", "k", 1, 0.5), Counter("{B}", "k", 0, 5)]
    assert list(counters.take()) == []


@given(st.lists(st.tuples(PLACES, st.integers(-1000, 1000))))
def test_nothing_is_lost(updates: list[tuple[tuple[str, str, int], int]]) -> None:
    counters = Counters()
    for (group, key, meter), value in updates:
        counters.add(group, key, meter, value)
    taken = list(counters.take())
    assert sum(each.value for each in taken) == sum(value for _, value in updates)
    assert {(each.group, each.key, each.meter) for each in taken} == {place for place, _ in updates}
