"""HTTPHeader: the start line, header look-up, and blocks that are not quite HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

REQUEST = (
    b"POST /login?next=%2f HTTP/1.1\r\nHost: example.com\r\nuser-agent:  probe \r\n"
    b"Accept: a\r\nACCEPT: b\r\nX-Empty:\r\n\r\nBody: not a header\r\n"
)
RESPONSE = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n"


def ask(lua: Any, raw: bytes, calls: str) -> Any:
    expressions = ", ".join(f"header:{call}" for call in calls.split("; "))
    return lua.run(f"local header = require('offpath.httpheader').from_block((...)) return {expressions}", raw)


def test_a_request(lua: Any) -> None:
    calls = "is_request(); is_response(); get_method(); get_path(); get_status()"
    assert ask(lua, REQUEST, calls) == (True, False, b"POST", b"/login?next=%2f", 0)


def test_a_response(lua: Any) -> None:
    calls = "is_request(); is_response(); get_method(); get_path(); get_status()"
    assert ask(lua, RESPONSE, calls) == (False, True, b"", b"", 404)


def test_is_method_ignores_case(lua: Any) -> None:
    assert ask(lua, REQUEST, "is_method('post'); is_method('POST'); is_method('GET'); is_method(nil)") == (
        True,
        True,
        False,
        False,
    )
    assert ask(lua, RESPONSE, "is_method('')") is False


def test_values_by_name_in_any_case(lua: Any) -> None:
    names = ("'HOST'", "'User-Agent'", "'accept'", "'x-empty'", "'Body'", "nil")
    assert ask(lua, REQUEST, "; ".join(f"get_value({name})" for name in names)) == (
        b"example.com",
        b"probe",
        b"a",
        b"",
        None,
        None,
    )


def test_all_headers_keep_their_spelling_and_join_repeats(lua: Any) -> None:
    assert dict(ask(lua, REQUEST, "get_all_headers()")) == {
        b"Host": b"example.com",
        b"user-agent": b"probe",
        b"Accept": b"a, b",
        b"X-Empty": b"",
    }
    assert dict(ask(lua, RESPONSE, "get_all_headers()"))[b"Set-Cookie"] == b"a=1, b=2"


def test_the_table_of_headers_belongs_to_the_script(lua: Any) -> None:
    source = """
    local header = require("offpath.httpheader").from_block((...))
    header:get_all_headers().Host = nil
    return header:get_all_headers().Host
    """
    assert lua.run(source, REQUEST) == b"example.com"


def test_folded_lines_and_bare_line_feeds(lua: Any) -> None:
    raw = b"\r\nGET / HTTP/1.0\nX-Long: one \n\t two\r\n  three\nHost : h\nno colon here\n\n"
    assert ask(lua, raw, "is_request(); get_value('x-long'); get_value('host')") == (True, b"one two three", b"h")


@pytest.mark.parametrize(
    "raw", [b"", b"\r\n\r\n", b"\0\xff", b"GET", b": value\r\n", b" folded first\r\n", b"HTTP/1.1"]
)
def test_what_is_no_header_gives_empty_answers(lua: Any, raw: bytes) -> None:
    assert ask(lua, raw, "is_request(); get_path(); get_status(); get_value('host'); match_value('host', '.')")[1:] == (
        b"",
        0,
        None,
        False,
    )


@given(st.binary(max_size=80))
def test_no_block_raises(shared_lua: Any, raw: bytes) -> None:
    path, status, everything = ask(shared_lua, raw, "get_path(); get_status(); get_all_headers()")
    assert isinstance(path, bytes)
    assert isinstance(status, int)
    assert all(isinstance(value, bytes) for value in dict(everything).values())


def test_match_value(lua: Any) -> None:
    arguments = ("'host', '(?i)EXAMPLE'", "'host', '^com'", "'none', '.*'", "'host', nil")
    assert ask(lua, REQUEST, "; ".join(f"match_value({each})" for each in arguments)) == (True, False, False, False)


def test_many_patterns_and_a_bad_one(lua: Any) -> None:
    source = """
    local header = require("offpath.httpheader").from_block((...))
    local count = 0
    for index = 1, 600 do
      if header:match_value("host", "exam.{" .. index % 300 .. "}") then count = count + 1 end
    end
    header:match_value("host", "(")
    header:match_value("host", "(")
    return count
    """
    assert lua.run(source, REQUEST) == 2 * 8
    assert [level for level, _ in lua.logged] == [4]


def test_parsing_is_linear_in_blanks_and_folds(lua: Any) -> None:
    # Each of these took tens of seconds when blanks were matched by patterns.
    blanks = b" " * 65_000
    for header in (b"A" + blanks + b": b", b"A: b" + blanks + b"c", b"A: b" + b"\n x" * 20_000, b"A" + blanks + b"b"):
        raw = b"GET / HTTP/1.1\r\n" + header + b"\r\nHost: h\r\n\r\n"
        assert ask(lua, raw, "get_value('host')") == b"h"
