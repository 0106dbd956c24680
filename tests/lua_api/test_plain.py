"""Plain values that cross as one string: the same in Lua whichever way they went, and the same when they return."""

from __future__ import annotations

import array
import marshal
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.vm.state import LuaState
from lua_api import plain_from_lua
from tests.lua_api.conftest import LUA_API

_SAME = b"""
local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b or (a ~= a and b ~= b) end
  for key, value in pairs(a) do if not same(value, b[key]) then return false end end
  for key in pairs(b) do if a[key] == nil then return false end end
  return true
end
return same
"""


class Plain:
    """A state with plain.lua."""

    def __init__(self) -> None:
        self.state = LuaState()
        self.state.add_modules("offpath", LUA_API)
        module = self.state.require("offpath.plain")
        self.read, self.read_flat, self.write = module[b"read"], module[b"read_flat"], module[b"write"]
        self.same = self.state.execute(_SAME)

    def close(self) -> None:
        self.read = self.read_flat = self.write = self.same = None
        self.state.close()


@pytest.fixture(scope="module")
def lua() -> Any:
    plain = Plain()
    yield plain
    plain.close()


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=True)
_SCALARS = st.none() | st.booleans() | _NUMBERS | _TEXT | st.binary()
_KEYS = _TEXT | st.integers(-(2**40), 2**40)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=6), max_leaves=20
)


@given(st.lists(_VALUES, max_size=6), st.sampled_from([2, 3, 4]))
def test_what_is_read_is_what_a_table_would_be(lua: Plain, values: list[Any], version: int) -> None:
    read = lua.read(marshal.dumps(values, version), True)
    if isinstance(read, tuple):  # integers that few digits do not hold take the other way
        assert read == (None, b"other")
        assert max((abs(each) for each in _integers(values)), default=0) >= 2**60
        return
    assert lua.same(read, lua.state.table(values))


_SHORT = st.text(st.characters(codec="ascii"), max_size=255)


@given(st.dictionaries(_SHORT, _SCALARS | st.lists(_NUMBERS), max_size=12))
def test_a_flat_mapping_is_read_as_any_other_or_left(lua: Plain, value: dict[str, Any]) -> None:
    read = lua.read_flat(marshal.dumps(value, 4))
    assert read is None or lua.same(read, lua.state.table(value))


@given(st.lists(_SHORT, max_size=8, unique=True), st.data())
def test_short_texts_numbers_and_booleans_are_flat(lua: Plain, keys: list[str], data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=8, max_size=8, unique=True))
    value: dict[str, Any] = {}
    for key, number in zip(keys, numbers, strict=False):  # nothing of it twice: no references
        text = f"{number} {data.draw(_SHORT)}"[:255]
        value[key] = data.draw(st.sampled_from([text, number, float(number) + 0.5, True, False]))
    read = lua.read_flat(marshal.dumps(value, 4))
    assert read is not None
    assert lua.same(read, lua.state.table(value))


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda each: b"{" + each + b"0"))
def test_broken_bytes_harm_nothing_when_a_flat_mapping_is_read(lua: Plain, data: bytes) -> None:
    lua.read_flat(data)


def _integers(value: Any) -> list[int]:
    if isinstance(value, list):
        return [number for each in value for number in _integers(each)]
    if isinstance(value, dict):
        return _integers(list(value.values()))
    return [value] if isinstance(value, int) else []


@pytest.mark.parametrize(
    "value",
    [{1, 2}, frozenset("a"), 1j, {None: 1}, {math.nan: 1}, "\ud800", {"s": "\udc80"}, 1 << 70, ..., StopIteration],
    ids=repr,
)
def test_what_is_no_plain_data_is_refused(lua: Plain, value: Any) -> None:
    assert lua.read(marshal.dumps([value], 4), True) == (None, b"other")


def test_bytes_are_read_only_when_somebody_has_looked(lua: Plain) -> None:
    written = marshal.dumps([{"a": array.array("d", [1.5])}], 4)
    assert lua.read(written, False) == (None, b"bytes")


def test_a_list_that_contains_itself_is_refused(lua: Plain) -> None:
    value: list[Any] = [1]
    value.append(value)
    assert lua.read(marshal.dumps(value, 4), True) == (None, b"other")


def test_equal_parts_become_tables_of_their_own(lua: Plain) -> None:
    part = {"list": [1, 2]}
    read = lua.read(marshal.dumps([part, part], 4), True)
    differ = lua.state.execute(
        b"local read = ... return read[1] ~= read[2] and read[1].list ~= read[2].list and read[2].list[2] == 2", read
    )
    assert differ is True


@given(st.binary(max_size=60), st.booleans())
def test_broken_bytes_are_refused_and_harm_nothing(lua: Plain, data: bytes, checked: bool) -> None:
    lua.read(data, checked)
    assert lua.same(lua.read(marshal.dumps(["next"], 4), False), lua.state.table(["next"]))


@given(st.data())
def test_a_text_cut_anywhere_is_refused(lua: Plain, data: st.DataObject) -> None:
    whole = marshal.dumps([{"a": [1, 2.5, "text", b"bytes"], "b": 1 << 40, "\u20ac": None}], 4)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert lua.read(whole[:cut], True) == (None, b"other")


_LUA_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, min_size=1, max_size=4),
    max_leaves=20,
)


@given(_LUA_VALUES)
def test_what_lua_writes_comes_back_as_it_was(lua: Plain, value: Any) -> None:
    table = lua.state.table([value])
    written = lua.write(lua.state.execute(b"return (...)[1]", table), b"value")
    assert plain_from_lua(written) == value


def test_bytes_that_are_no_text_come_back_as_bytes(lua: Plain) -> None:
    for data in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\x80" * 300):
        assert plain_from_lua(lua.write(data, b"value")) == data


@given(st.binary(max_size=8))
def test_text_is_what_python_can_decode(lua: Plain, data: bytes) -> None:
    try:
        expected: str | bytes = data.decode()
    except UnicodeDecodeError:
        expected = data
    assert plain_from_lua(lua.write(data, b"value")) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("print", "answer is a function, which is no plain value"),
        ("{ a = { print } }", "answer.a[1] is a function, which is no plain value"),
        ("{ [print] = 1 }", "answer has a key that is a function"),
        ("setmetatable({}, {})", "answer is an object, which is no plain value"),
        ("(function() local t = {} t.t = t return t end)()", "answer.t contains itself"),
        ("(function() local t = {} for i = 1, 300 do t = { t } end return t end)()", "nested too deep"),
        ("require('ffi').new('int[1]')", "answer is a cdata, which is no plain value"),
    ],
)
def test_what_may_not_leave_lua_is_named(lua: Plain, value: str, message: str) -> None:
    nothing, wrong = lua.write(lua.state.execute(b"return " + value.encode()), b"answer")
    assert nothing is None
    assert message in wrong.decode()
