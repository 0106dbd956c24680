"""Shipping functions between two states: what crosses by name, and what arrives as a value that raises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.vm.state import LuaState
from tests.lua_api.pair import END, LUA_API, Pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


# ---- by name


@pytest.mark.parametrize(
    "value",
    [
        "print",
        "string",
        "string.format",
        "io",
        "os.time",
        "table.concat",
        "math",
        "T",
        "T.util",
        "T.util.twice",
        "T.K",
        "require 'ffi'",
        "require 'bit'",
        "bit.band",
        "_G",
        "coroutine.wrap",
        "debug.traceback",
        "package",
        "require",
    ],
)
def test_the_library_and_t_cross_by_name(pair: Pair, value: str) -> None:
    assert pair.call(f"local u = {value} return function() return rawequal(u, {value}) end") is True


@pytest.mark.parametrize("change", ["print = nil", "print = function() return 'mine' end", "string = nil", "T = nil"])
def test_a_library_taken_before_the_script_overwrote_the_global(pair: Pair, change: str) -> None:
    source = f"local p, s, t = print, string, T {change} return function() return p == print, s == string, t == T end"
    assert pair.call(source) == (True, True, True)


def test_a_function_put_in_place_of_a_global_crosses_by_value(pair: Pair) -> None:
    source = "local n = 3 print = function() return n end local p = print return function() return p(), p == print end"
    assert pair.call(source) == (3, False)


@pytest.mark.parametrize("place", ["string.format", "string.mine", "table.mine", "T.mine"])
def test_a_function_that_a_script_put_into_a_library_crosses_by_value(pair: Pair, place: str) -> None:
    source = f"local n = 3 {place} = function() return n end local u = {place} return function() return u() end"
    assert pair.call(source) == 3


def test_objects_of_host_classes_keep_their_class(pair: Pair) -> None:
    assert pair.call(
        "local o = make_object(4) return function() return o:name(), getmetatable(o) == getmetatable("
        "make_object(1)) end"
    ) == (b"object 4", True)


@pytest.fixture
def with_modules(tmp_path: Path) -> Iterator[Pair]:
    (tmp_path / "shapes.lua").write_text(
        "local secret = io.stdout\nlocal M = { sides = 4 }\n"
        "function M.area(a) return a * a, secret ~= nil end\nreturn M"
    )
    (tmp_path / "single.lua").write_text("local f = io.stdout return function() return f ~= nil and 'single' end")
    (tmp_path / "fussy.lua").write_text("if not welcome then error('not here') end return { f = function() end }")
    pair = Pair(tmp_path)
    yield pair
    pair.close()


def test_modules_cross_by_name(with_modules: Pair) -> None:
    assert with_modules.call(
        "local m = require 'shapes' m.sides = 5 return function() return m.sides, m == require 'shapes' end"
    ) == (
        4,
        True,
    )


def test_functions_of_modules_cross_by_name(with_modules: Pair) -> None:
    source = (
        "local area, single = require('shapes').area, require 'single' return function() return area(3), single() end"
    )
    assert with_modules.call(source) == (9, b"single")


def test_a_function_of_a_module_can_be_what_is_shipped(with_modules: Pair) -> None:
    assert with_modules.call("return require('shapes').area", 4) == (16, True)


def test_a_function_that_a_script_put_into_a_module_says_so(with_modules: Pair) -> None:
    source = "local m = require 'shapes' m.mine = function() return m end local u = m.mine "
    source += "return function() return pcall(u) end"
    ok, message = with_modules.call(source)
    assert ok is False
    assert b"module 'shapes' has no function 'mine' in a worker" in message


def test_a_module_that_cannot_be_loaded_says_so_when_it_is_used(with_modules: Pair) -> None:
    ok, message = with_modules.call(
        "welcome = true local m = require 'fussy' return function() return pcall(function() return m.f end) end"
    )
    assert ok is False
    assert b"module 'fussy' cannot be loaded in a worker" in message
    assert b"not here" in message


# ---- what cannot cross

OPAQUE = "setmetatable({}, { __opaque = 'an object of here' })"

USES = {
    "index": "u.x",
    "newindex": "rawset({}, 1, (function() u.x = 1 end)())",
    "call": "(u())",
    "concat": "u .. 'x'",
    "concat right": "'x' .. u",
    "add": "u + 1",
    "sub": "1 - u",
    "mul": "u * u",
    "div": "u / 2",
    "mod": "u % 2",
    "pow": "u ^ 2",
    "unm": "-u",
    "length": "#u",
    "less": "u < u",
    "at most": "u <= u",
}


@pytest.mark.parametrize("use", sorted(USES))
def test_a_refused_value_raises_on_every_use_at_the_line_of_the_use(pair: Pair, use: str) -> None:
    ok, message = pair.call(
        f"local u = io.stdout return function() return pcall(function()\n return {USES[use]} end) end"
    )
    assert ok is False
    assert message.startswith(b"script.lua:2: upvalue 'u' cannot cross to a worker: a userdata belongs")


@pytest.mark.parametrize("comparison", ["u < 1", "1 <= u", "u > 'x'"])
def test_a_refused_value_cannot_be_ordered_with_others(pair: Pair, comparison: str) -> None:
    assert (
        pair.call(f"local u = io.stdout return function() return (pcall(function() return {comparison} end)) end")
        is False
    )


def test_a_refused_value_may_lie_about_unused(pair: Pair) -> None:
    assert (
        pair.call("local u, v = io.stdout, 5 return function(unused) if unused then return u.x end return v end") == 5
    )


@pytest.mark.parametrize(
    ("value", "access", "path", "reason"),
    [
        ("newproxy()", "u.x", "u", "a userdata belongs"),
        ("require('ffi').new('int[2]')", "u[0]", "u", "an FFI object belongs"),
        ("1LL", "u + 1", "u", "an FFI object belongs"),
        ("coroutine.create(print)", "u.x", "u", "a coroutine belongs"),
        ("{ a = { [2] = io.stdout } }", "u.a[2].x", "u.a[2]", "a userdata belongs"),
        ("{ [true] = io.stdout }", "u[true].x", "u[true]", "a userdata belongs"),
        ("setmetatable({}, { __index = io.stdout })", "u.x.y", "u's metatable.__index", "a userdata belongs"),
        ("{ [io.stdout] = 1 }", "next(u).x", "u's key", "a userdata belongs"),
        (OPAQUE, "u.x", "u", "an object of here"),
        ("(function() local f = io.stdout return function() return f.x end end)()", "u()", "u's f", "a userdata"),
        ("string.gmatch('a', 'a')", "u()", "u", "a C function belongs"),
        (
            "{ [setmetatable({}, { __tostring = error })] = io.stdout }",
            "select(2, next(u)).x",
            "u[a table]",
            "a userdata",
        ),
    ],
)
def test_a_refusal_names_the_path_and_the_reason(pair: Pair, value: str, access: str, path: str, reason: str) -> None:
    ok, message = pair.call(f"local u = {value} return function() return pcall(function() return {access} end) end")
    assert ok is False
    assert f"upvalue '{path}' cannot cross to a worker: {reason}" in message.decode()


def test_what_only_the_sender_has_by_name_is_refused(pair: Pair) -> None:
    pair.sender.execute(b"")
    sender = LuaState()
    sender.add_modules("offpath", LUA_API)
    sender.execute(b"extra = function() end")
    pack = sender.execute(END, pair._new_code, pair.codes.__getitem__)[0]
    shipped = pair._unpack(*pack(sender.execute(b"local u = extra return function() return pcall(u) end")))
    ok, message = shipped()
    assert ok is False
    assert b"'extra' does not exist in a worker" in message
    del pack
    sender.close()
