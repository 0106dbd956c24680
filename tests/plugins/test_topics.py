"""Patterns of topics: words joined by dots, `*` for one word, `**` for any number."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.plugins.topics import TopicIndex

_CASES = {
    "a.b": (["a.b"], ["a", "b", "a.b.c", "a.", ".b", "a.bc", "axb", "A.B", ""]),
    "*": (["a", "order"], ["a.b", "", "."]),
    "a.*": (["a.b", "a.order"], ["a", "a.b.c", "a.", "b.b"]),
    "*.b": (["a.b"], ["b", "a.c.b", ".b"]),
    "a.*.c": (["a.b.c"], ["a.c", "a.b.b.c", "a..c"]),
    "**": (["a", "a.b", "a.b.c", ""], []),
    "a.**": (["a", "a.b", "a.b.c.d"], ["ab", "b.a", "aa.b"]),
    "**.b": (["b", "a.b", "a.a.b"], ["ab", "b.a", "a.bb"]),
    "a.**.z": (["a.z", "a.b.z", "a.b.c.z"], ["a", "z", "az", "a.bz", "a.b"]),
    "**.m.**": (["m", "a.m", "m.b", "a.a.m.b.b"], ["am", "a.mb", "a.b"]),
    "*.**": (["a", "a.b.c"], [""]),
    "**.*": (["a", "a.b.c"], [""]),
    "order_*": (["order_", "order_new"], ["order", "order_new.x", "xorder_"]),
    "a+b.(c": (["a+b.(c"], ["aab.c", "aab.(c"]),
}


def matches(patterns: list[str], topic: str) -> bool:
    index = TopicIndex[str]()
    index.add(patterns, "found")
    return index.find(topic) == ["found"]


@pytest.mark.parametrize(("pattern", "topic"), [(p, t) for p, (yes, _) in _CASES.items() for t in yes])
def test_a_pattern_takes(pattern: str, topic: str) -> None:
    assert matches([pattern], topic)


@pytest.mark.parametrize(("pattern", "topic"), [(p, t) for p, (_, no) in _CASES.items() for t in no])
def test_a_pattern_leaves(pattern: str, topic: str) -> None:
    assert not matches([pattern], topic)


def test_no_pattern_means_every_topic() -> None:
    assert matches([], "any.thing")


def test_one_of_several_patterns_is_enough() -> None:
    topics = ("a.b", "c.x", "c", "a.x", "a.b.c.x")
    assert [topic for topic in topics if matches(["a.b", "c.*"], topic)] == ["a.b", "c.x"]


def test_many_wildcards_take_no_exponential_time() -> None:
    assert not matches(["**.a.**.a.**.a.**.b"], ".".join(["a"] * 40))


_WORDS = st.sampled_from(["a", "b", "c"])
_PATTERNS = st.lists(_WORDS | st.sampled_from(["*", "**"]), min_size=1, max_size=5).map(".".join)


def _takes(pattern: list[str], topic: list[str]) -> bool:
    """The meaning of a pattern, word by word."""
    if not pattern:
        return not topic
    if pattern[0] == "**":
        return any(_takes(pattern[1:], topic[at:]) for at in range(len(topic) + 1))
    return bool(topic) and pattern[0] in ("*", topic[0]) and _takes(pattern[1:], topic[1:])


@given(st.lists(st.lists(_PATTERNS, max_size=3), max_size=6), st.lists(_WORDS, min_size=1, max_size=5))
def test_an_index_finds_what_its_patterns_mean_in_the_order_added(sets: list[list[str]], topic: list[str]) -> None:
    index = TopicIndex[int]()
    for place, patterns in enumerate(sets):
        index.add(patterns, place)
    expected = [
        place
        for place, patterns in enumerate(sets)
        if not patterns or any(_takes(pattern.split("."), topic) for pattern in patterns)
    ]
    assert index.find(".".join(topic)) == expected


def test_patterns_that_do_not_match_cost_nothing() -> None:
    """5,000 of them would cost 5,000 times as much if each were asked."""
    small, large = TopicIndex[int](), TopicIndex[int]()
    for index, others in ((small, 1), (large, 5_000)):
        for other in range(others):
            index.add([f"other{other}.*", f"orders.{other}"], other)
        index.add(["orders.**"], -1)

    def seconds(index: TopicIndex[int]) -> float:
        began = time.thread_time()
        for _ in range(2_000):
            assert index.find("orders.new.x") == [-1]
        return time.thread_time() - began

    assert min(seconds(large) for _ in range(5)) < 10 * min(seconds(small) for _ in range(5))
