"""JSON: round trips against Python's own, strictness, errors that name their path."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lua_api
from engine.vm.state import LuaState, to_lua

NUMBERS = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
SCALARS = st.one_of(st.booleans(), NUMBERS, st.text())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1), st.dictionaries(st.text().filter(lambda key: not key.isdigit()), inner)
    ),
    max_leaves=25,
)
JSON = "local JSON = require 'JSON'\n"


def decode(lua: Any, text: bytes | str) -> Any:
    raw = text.encode() if isinstance(text, str) else text
    return lua.run(JSON + "return JSON:decode((...))", raw)


def encode(lua: Any, source: str, *args: Any) -> bytes:
    result: bytes = lua.run(JSON + f"return JSON:encode({source})", *args)
    return result


def same(value: Any) -> Any:
    """As Lua keeps it: an empty object is an empty array."""
    if isinstance(value, dict):
        return {key: same(item) for key, item in value.items()} or []
    return [same(item) for item in value] if isinstance(value, list) else value


@given(VALUES)
def test_what_python_writes_comes_back(shared_lua: Any, value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        back = shared_lua.run(JSON + "return JSON:encode(JSON:decode((...)))", text.encode())
        assert json.loads(back) == same(value)
        pretty = shared_lua.run(JSON + "return JSON:encode_pretty(JSON:decode((...)))", text.encode())
        assert json.loads(pretty) == same(value)


@given(st.text(max_size=30))
def test_mutated_texts_are_judged_as_python_does(shared_lua: Any, text: str) -> None:
    for candidate in (text, f"[{text}]", f'"{text}"', f'{{"a":{text}}}'):
        try:
            expected = json.loads(candidate, parse_constant=lambda _: 1 / 0)
        except (ValueError, ZeroDivisionError):
            assert decode(shared_lua, candidate)[0] is None
        else:
            if expected is not None:
                assert not isinstance(decode(shared_lua, candidate), tuple)


BAD = [
    r"[",
    r"]",
    r"[1,]",
    r"[,1]",
    r"{",
    r'{"a"}',
    r'{"a":}',
    r'{"a":1,}',
    r"{1:2}",
    r"'a'",
    r'"a',
    r'"\x"',
    r'"\u12g4"',
    r"01",
    r"-",
    r"+1",
    r"1.",
    r".5",
    r"1e",
    r"1e+",
    r"0x10",
    r"nan",
    r"NaN",
    r"Infinity",
    r"tru",
    r"nul",
    r"[1]]",
    r"//",
]


@pytest.mark.parametrize("text", [*BAD, "", " ", '"\n"', "[1 2]", "1 2"])
def test_bad_input_is_nil_and_a_message(lua: Any, text: str) -> None:
    value, message = decode(lua, text)
    assert value is None
    assert b"expected" in message or b"at byte" in message


def test_what_is_no_text(lua: Any) -> None:
    assert lua.run(JSON + "return JSON:decode(nil)")[0] is None
    assert lua.run(JSON + "return JSON:decode({})") == (None, b"JSON text expected, got table")
    assert lua.run(JSON + "return JSON:decode(12)") == 12


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb'"\u0041\u00e9\u20ac"', "Aé€"),
        (rb'"\ud83d\ude00"', "😀"),
        (rb'"\ud83dx"', "\ufffdx"),
        (rb'"\ude00\ud83d"', "\ufffd\ufffd"),
        (rb'"\"\\\/\b\f\n\r\t"', '"\\/\b\f\n\r\t'),
        (rb'"\u0000"', "\0"),
    ],
)
def test_escapes(lua: Any, text: bytes, expected: str) -> None:
    assert decode(lua, text).decode() == expected


def test_bytes_pass_through(lua: Any) -> None:
    assert decode(lua, b'"\xff\x80\x7f"') == b"\xff\x80\x7f"
    assert encode(lua, "(...)", b'\xff\0\x1f"\\\n') == b'"\xff\\u0000\\u001f\\"\\\\\\n"'


def test_null(lua: Any) -> None:
    source = """
    local object, array = JSON:decode('{"a":null,"b":1}'), JSON:decode("[1,null,3]")
    local kept = JSON:decode("[1,null]", { null = JSON.null })
    return object.a, object.b, array[1], array[2], array[3], kept[2] == JSON.null, JSON:encode(kept), JSON:encode(nil)
    """
    assert lua.run(JSON + source) == (None, 1, 1, None, 3, True, b"[1,null]", b"null")


def test_depth_is_limited(lua: Any) -> None:
    assert lua.run(JSON + "return type(JSON:decode(('['):rep(1000) .. (']'):rep(1000)))") == b"table"
    assert b"deeper than 1000" in lua.run(JSON + "return JSON:decode(('['):rep(1001) .. (']'):rep(1001))")[1]
    assert lua.run(JSON + "return JSON:decode(('[{\"a\":'):rep(100000))")[0] is None
    message = lua.error(JSON + "local t = {} for _ = 1, 1001 do t = { t } end JSON:encode(t)")
    assert "deeper than 1000" in message


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{}", b"[]"),
        ("{{ 'guid', 'key', 1, 123 }, { 'a', {}, 2.5 }}", b'[["guid","key",1,123],["a",[],2.5]]'),
        ("{ b = 1, a = { true, false }, ['x y'] = 'q\"' }", b'{"a":[true,false],"b":1,"x y":"q\\""}'),
        ("{ [1] = 'a', [3] = 'c' }", b'{"1":"a","3":"c"}'),
        ("{ 1, x = 2 }", b'{"1":1,"x":2}'),
        ("1e15", b"1000000000000000"),
        ("-0.5", b"-0.5"),
        ("0.1", b"0.1"),
        ("1/3", b"0.3333333333333333"),
        ("2^60", b"1.152921504606847e+18"),
    ],
)
def test_encoding(lua: Any, source: str, expected: bytes) -> None:
    assert encode(lua, source) == expected


def test_pretty(lua: Any) -> None:
    pretty = lua.run(JSON + "return JSON:encode_pretty({ b = { 1, {} }, a = 'x' })")
    assert pretty.decode() == '{\n  "a": "x",\n  "b": [\n    1,\n    []\n  ]\n}'


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ("{ a = { 1, print } }", "value.a[2] is a function"),
        ("{ a = 0/0 }", "value.a is nan"),
        ("{ 1/0 }", "value[1] is inf"),
        ("{ { [true] = 1 } }", "value[1] has a key that is a boolean"),
        ("{ x = { [1] = 1, ['1'] = 2, y = 3 } }", 'value.x has the key "1" twice'),
    ],
)
def test_what_has_no_json_form_names_its_path(lua: Any, source: str, where: str) -> None:
    message = lua.error(JSON + f"JSON:encode({source})")
    assert message.startswith("test.lua:2: JSON: ")
    assert where in message


def test_cycles_and_shared_tables(lua: Any) -> None:
    assert "value.a.b is a table that contains itself" in lua.error(
        JSON + "local t = { a = {} } t.a.b = t JSON.encode(t)"
    )
    assert encode(lua, "(function() local s = { 1 } return { s, s } end)()") == b"[[1],[1]]"


def test_dot_calls(lua: Any) -> None:
    assert lua.run(JSON + "return JSON.encode({ 1 }), JSON.decode('[7]')[1], JSON.encode_pretty('x')") == (
        b"[1]",
        7,
        b'"x"',
    )
    assert lua.run(JSON + "return JSON.decode('[null]', { null = 5 })[1], JSON.decode('x')")[:2] == (5, None)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_read_back_exactly(shared_lua: Any, number: float) -> None:
    assert math.isclose(json.loads(encode(shared_lua, "(...)", number)), number, rel_tol=0, abs_tol=0)


def test_loads_without_a_host() -> None:
    state = LuaState()
    state.add_modules("offpath", Path(lua_api.__file__).parent)
    assert (
        state.execute(b"return require('offpath.JSON'):encode(...)", to_lua(state._runtime, {"a": [1, 2]}))
        == b'{"a":[1,2]}'
    )
    state.close()
