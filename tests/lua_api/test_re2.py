"""T.re2: results in their exact shape, groups, options, bytes, bad patterns."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

NEW = "local re = require('offpath.re2').new((...))\nlocal _, text = ...\n"


def ask(lua: Any, pattern: bytes, call: str, text: Any = None) -> Any:
    return lua.run(NEW + f"return re:{call}", pattern, text)


def test_partial_and_full(lua: Any) -> None:
    assert ask(lua, b"b+", "partial_match(text)", b"abbc") is True
    assert ask(lua, b"b+", "full_match(text)", b"abbc") is False
    assert ask(lua, b"b+", "full_match(text)", b"bbb") is True


def test_no_match_is_boolean_false(lua: Any) -> None:
    for method in ("partial_match", "full_match", "partial_match_n", "full_match_n"):
        assert ask(lua, b"(x)(y)", f"{method}(text)", b"none") is False
    assert ask(lua, b"(x)(y)", "partial_match_c1(text)", b"none") == (False, None)
    assert ask(lua, b"(x)(y)", "partial_match_c2(text)", b"none")[0] is False


def test_captures(lua: Any) -> None:
    pattern, text = b"(\\w+)=(\\d+)(;)?", b"-- key=42"
    assert ask(lua, pattern, "partial_match_c1(text)", text) == (True, b"key")
    assert ask(lua, pattern, "partial_match_c2(text)", text) == (True, b"key", b"42")
    assert ask(lua, pattern, "partial_match_n(text)", text) == (True, b"key", b"42", b"")
    assert ask(lua, pattern, "full_match_n(text)", b"key=42;") == (True, b"key", b"42", b";")


def test_more_groups_than_there_are_never_match(lua: Any) -> None:
    assert ask(lua, b"abc", "partial_match_c1(text)", b"abc") == (False, None)
    assert ask(lua, b"(abc)", "partial_match_c2(text)", b"abc")[0] is False
    assert ask(lua, b"abc", "partial_match_n(text)", b"abc") is True


def test_many_groups(lua: Any) -> None:
    values = [str(index).encode() for index in range(40)]
    assert ask(lua, b" ".join([rb"(\d+)"] * 40), "partial_match_n(text)", b" ".join(values)) == (True, *values)


def test_bytes_of_any_value(lua: Any) -> None:
    assert ask(lua, b"a(.*)b", "partial_match_c1(text)", b"\xff\0a\xfe\0\x80b") == (True, b"\xfe\0\x80")
    assert ask(lua, b"(\xff+)", "partial_match_c1(text)", b"a\xff\xffb") == (True, b"\xff\xff")
    assert ask(lua, rb"(?i)host: (\S+)", "partial_match_c1(text)", b"HOST: \xe9t\xe9") == (True, b"\xe9t\xe9")


def test_utf8_by_default_and_bytes_on_request(lua: Any) -> None:
    source = """
    local new = require("offpath.re2").new
    return new("^.$"):partial_match("\\195\\169"), new("^.$", { utf8 = false }):partial_match("\\195\\169")
    """
    assert lua.run(source) == (True, False)


def test_options(lua: Any) -> None:
    source = """
    local new = require("offpath.re2").new
    return new("ABC", { case_sensitive = false }):full_match("abc"),
      new("ABC", { case_sensitive = true }):full_match("abc"),
      new("a.c", { literal = true }):full_match("abc"), new("a.c", { literal = true }):full_match("a.c"),
      select(2, new("(a|ab)", { longest_match = true }):partial_match_c1("ab")),
      new("(a)", { never_capture = true }):partial_match_n("a")
    """
    assert lua.run(source) == (True, False, False, True, b"ab", True)


def test_a_bad_pattern_is_logged_and_never_matches(lua: Any) -> None:
    assert ask(lua, b"(((", "partial_match_n(text)", b"(((") is False
    assert ask(lua, b"(?=x)", "partial_match_c1(text)", b"x") == (False, None)
    assert [level for level, _ in lua.logged] == [4, 4]
    assert b"missing )" in lua.logged[0][1]


def test_a_bad_pattern_can_be_quiet(lua: Any) -> None:
    source = "return require('offpath.re2').new('(', { log_errors = false }):partial_match('(')"
    assert lua.run(source) is False
    assert lua.run("return require('offpath.re2').new(nil, { log_errors = false }):full_match('')") is False
    assert lua.logged == []


@pytest.mark.parametrize("value", [None, True])
def test_what_is_no_text_never_matches(lua: Any, value: Any) -> None:
    assert ask(lua, b"", "partial_match(text)", value) is False
    assert ask(lua, b"1", "partial_match(text)", 12) is True


PATTERNS = st.lists(
    st.sampled_from([b"a", b"b", b"[ab]", b"a*", b"b+", b"(a|b)", b"(a+)?", b".", b"(b)*", b"(a)", b"\\d"]), max_size=6
).map(b"".join)


@given(PATTERNS, st.text(alphabet="ab1x", max_size=12))
def test_agrees_with_python(shared_lua: Any, pattern: bytes, text: str) -> None:
    source = NEW + "return { re:partial_match_n(text) }, re:full_match(text)"
    found, full = shared_lua.run(source, pattern, text.encode())
    expected = re.search(pattern, text.encode())
    assert list(found.values()) == ([False] if expected is None else [True, *expected.groups(b"")])
    assert full is bool(re.fullmatch(pattern, text.encode()))


def test_header_values_are_matched_with_re2(lua: Any) -> None:
    source = """
    local header = require("offpath.httpheader").from_block("GET / HTTP/1.1\\r\\nHost: www.example.com\\r\\n\\r\\n")
    return header:match_value("host", "example"), header:match_value("Host", "^example"), header:match_value("X", ".*")
    """
    assert lua.run(source) == (True, False, False)
