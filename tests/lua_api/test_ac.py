"""T.ac: agrees with naive search, whatever the patterns share."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

PATTERNS = st.lists(st.text(alphabet="abc", max_size=4).map(str.encode), max_size=8)
TEXTS = st.text(alphabet="abcd", max_size=40).map(str.encode)


def ask(lua: Any, method: str, patterns: list[bytes], text: Any) -> dict[bytes, int]:
    source = f"local text = ... return require('offpath.ac').new({{ select(2, ...) }}):{method}(text)"
    return dict(lua.run(source, text, *patterns))


def naive(patterns: list[bytes], text: bytes) -> dict[bytes, int]:
    return {pattern: text.find(pattern) + len(pattern) for pattern in patterns if pattern and pattern in text}


@given(PATTERNS, TEXTS)
def test_match_all_is_naive_search(shared_lua: Any, patterns: list[bytes], text: bytes) -> None:
    assert ask(shared_lua, "match_all", patterns, text) == naive(patterns, text)


@given(PATTERNS, TEXTS)
def test_match_one_is_the_first_and_longest(shared_lua: Any, patterns: list[bytes], text: bytes) -> None:
    every = naive(patterns, text)
    first = min(every.values(), default=0)
    longest = max((pattern for pattern in every if every[pattern] == first), key=len, default=b"")
    assert ask(shared_lua, "match_one", patterns, text) == ({longest: first} if every else {})


@given(st.lists(st.binary(min_size=1, max_size=3), max_size=5), st.binary(max_size=60))
def test_bytes_of_any_value(shared_lua: Any, patterns: list[bytes], text: bytes) -> None:
    assert ask(shared_lua, "match_all", patterns, text) == naive(patterns, text)


def test_the_position_is_that_of_the_last_byte(lua: Any) -> None:
    text = b"GET /index.html?user=joe&pass=secret"
    found = ask(lua, "match_all", [b"user=", b"pass=", b"card="], text)
    assert found == {b"user=": 21, b"pass=": 30}
    assert text[found[b"pass="] :] == b"secret"


def test_suffixes_and_repeats(lua: Any) -> None:
    assert ask(lua, "match_all", [b"she", b"he", b"hers", b"his", b"he"], b"ushers he") == {
        b"she": 4,
        b"he": 4,
        b"hers": 6,
    }


def test_case_matters(lua: Any) -> None:
    assert ask(lua, "match_all", [b"Abc"], b"abc ABC") == {}


def test_odd_arguments(lua: Any) -> None:
    assert ask(lua, "match_all", [b""], b"abc") == {}
    assert ask(lua, "match_all", [], b"abc") == {}
    assert ask(lua, "match_all", [b"a"], None) == {}
    assert dict(lua.run("return require('offpath.ac').new({ 80 }):match_all(18080)")) == {b"80": 3}
    assert dict(lua.run("return require('offpath.ac').new(nil):match_one('a')")) == {}


def test_many_patterns(lua: Any) -> None:
    patterns = [f"host{index}.example".encode() for index in range(2000)]
    text = b" ".join(patterns[::7])
    assert ask_table(lua, patterns, text) == naive(patterns, text)


def ask_table(lua: Any, patterns: list[bytes], text: bytes) -> dict[bytes, int]:
    run = lua.function(
        "local ac = require 'offpath.ac' return function(list, text) return ac.new(list):match_all(text) end"
    )
    return dict(run(lua.state.table(patterns), text))
