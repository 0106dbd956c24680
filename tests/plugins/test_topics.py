"""Patterns of topics: words joined by dots, `*` for one word, `**` for any number."""

from __future__ import annotations

import pytest

from engine.plugins.topics import compile_patterns, matches

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


@pytest.mark.parametrize(("pattern", "topic"), [(p, t) for p, (yes, _) in _CASES.items() for t in yes])
def test_a_pattern_takes(pattern: str, topic: str) -> None:
    assert matches(compile_patterns([pattern]), topic)


@pytest.mark.parametrize(("pattern", "topic"), [(p, t) for p, (_, no) in _CASES.items() for t in no])
def test_a_pattern_leaves(pattern: str, topic: str) -> None:
    assert not matches(compile_patterns([pattern]), topic)


def test_no_pattern_means_every_topic() -> None:
    assert compile_patterns([]) is None
    assert matches(None, "any.thing")


def test_one_of_several_patterns_is_enough() -> None:
    several = compile_patterns(["a.b", "c.*"])
    assert [topic for topic in ("a.b", "c.x", "c", "a.x", "a.b.c.x") if matches(several, topic)] == ["a.b", "c.x"]


def test_many_wildcards_take_no_exponential_time() -> None:
    pattern = compile_patterns(["**.a.**.a.**.a.**.b"])
    assert not matches(pattern, ".".join(["a"] * 40))
