"""Python functions for scripts: what crosses, what is refused, and that nothing else of Python is in reach."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, EngineError, RequestError
from tests.scripts import Collector, assert_counts_close, on_event, write


async def returned(tmp_path: Path, body: str, **functions: Any) -> Any:
    """What a handler answers that may call some functions."""
    async with Engine([write(tmp_path, on_event(body))]) as engine:
        for name, function in functions.items():
            engine.expose(name, function)
        try:
            return await engine.request("t", "e", timeout=20)
        finally:
            calls = engine.stats.calls
            assert calls.called == calls.answered + calls.failed + calls.abandoned + calls.pending


def typed(whole: int, real: float, text: str, raw: bytes, table: dict[str, int], maybe: int | None = None) -> str:
    assert [type(each) for each in (whole, real, text, raw, table)] == [int, float, str, bytes, dict]
    return repr((whole, real, text, raw, table, maybe))


async def test_arguments_and_results_are_plain_values(tmp_path: Path) -> None:
    told = await returned(tmp_path, "return T.host.call.f(2 ^ 40, 3, 'x', 'y', {})", f=typed)
    assert told == repr((1 << 40, 3.0, "x", b"y", {}, None))
    values = [1, 2.5, "a", b"\xff", [1, {"b": None, "c": True}]]
    assert await returned(tmp_path, "return T.host.call.f()", f=lambda: values) == [
        1,
        2.5,
        "a",
        b"\xff",
        [1, {"c": True}],
    ]
    assert await returned(tmp_path, "return T.host.call.f(nil, 1, nil)", f=lambda *args: list(map(repr, args))) == [
        "None",
        "1",
        "None",
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("f(1)", "f: TypeError: missing a required argument: 'text'"),
        ("f(1.5, 'x')", "f: TypeError: 'number' must be int, not float"),
        ("f(true, 'x')", "f: TypeError: 'number' must be int, not bool"),
        ("f(1, '\\255')", "f: TypeError: 'text' must be str, not bytes"),
        ("f(1, 'x', 2)", "f: TypeError: too many positional arguments"),
        ("f(1, print)", "f: argument 2 is a function, which is no plain value"),
        ("f(1, { a = engine })", "f: argument 2.a is an object, which is no plain value"),
        ("f(0, 'x')", "f: ZeroDivisionError: "),
        ("bad()", "bad: TypeError: the result['a'][0] is a object, which Lua cannot hold"),
        ("nothing()", "nothing: the host has exposed no such function, there are: bad, f"),
    ],
)
async def test_what_is_wrong_is_said_at_the_line_of_the_call(tmp_path: Path, call: str, message: str) -> None:
    def f(number: int, text: str) -> float:
        return 1 / number

    with pytest.raises(RequestError) as caught:
        await returned(tmp_path, f"\nT.host.call.{call}", f=f, bad=lambda: {"a": [object()]})
    assert f"script.lua: event_monitor.onevent: script.lua:5: T.host.call.{message}" in str(caught.value)


async def test_a_coroutine_function_answers_later(tmp_path: Path) -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    assert await returned(tmp_path, "return T.host.call.double(21)", double=double) == 42
    body = """
local p = T.promise()
T.host.call.double('x'):onresult(function() p:resolve('wrong') end)
"""
    with pytest.raises(RequestError, match="'number' must be int, not str"):
        await returned(tmp_path, body, double=double)
    body = """
local p = T.promise()
T.host.call.double(4):onresult(function(engine, four)
  T.host.call.double(four):onresult(function(_, n) p:resolve(n) end)
end)
return p
"""
    assert await returned(tmp_path, body, double=double) == 16


async def test_what_a_coroutine_raises_goes_to_onerror_and_the_request(tmp_path: Path) -> None:
    async def fail() -> None:
        raise LookupError("not there")

    body = "local p = T.promise() T.host.call.fail():onerror(function(_, m) p:resolve(m) end) return p"
    assert await returned(tmp_path, body, fail=fail) == "LookupError: not there"
    with pytest.raises(RequestError, match="LookupError: not there"):
        await returned(tmp_path, "return T.host.call.fail()", fail=fail)


async def test_the_end_of_the_engine_ends_what_was_started(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(ValueError, match="stop"):
        async with Engine([write(tmp_path, on_event("T.host.call.forever()"))]) as engine:
            engine.expose("forever", forever)
            await engine.emit("t", "e")
            await asyncio.sleep(0)
            assert engine.stats.calls.pending == 1
            raise ValueError("stop")
    assert ended.is_set()
    assert (engine.stats.calls.abandoned, engine.stats.calls.pending) == (1, 0)
    assert_counts_close(engine.stats)


@pytest.mark.parametrize("name", ["", "a b", "a.b", "1a"])
async def test_a_name_that_lua_could_not_say_is_refused(name: str) -> None:
    async with Engine() as engine:
        with pytest.raises(EngineError, match="cannot expose"):
            engine.expose(name, print)


_REACH = """
local host = require("offpath.host")
local function try(what, f)
  local ok, got = pcall(f)
  if ok and got ~= nil then T.logerror(what .. " gives " .. type(got)) end
end
try("python", function() return python end)
try("package.loaded.python", function() return package.loaded.python end)
try("require", function() return require("python") end)
try("lupa", function() return require("lupa") end)
for name, value in pairs(host) do
  for _, attribute in ipairs{ "__class__", "__globals__", "__self__", "__call__", "__code__", "call", 1 } do
    try(name .. "." .. attribute, function() return value[attribute] end)
  end
  try(name .. "=", function() value.x = 1 return true end)
end
local seen, own = {}, { [require("ffi").C] = true, [io.stdin] = true, [io.stdout] = true, [io.stderr] = true }
local function walk(value, path)
  if type(value) == "userdata" and not own[value] then T.logerror("userdata at " .. path) end
  if type(value) ~= "table" or seen[value] then return end
  seen[value] = true
  for key, item in pairs(value) do
    if not (key == "offpath.host") then walk(item, path .. "." .. tostring(key)) end
  end
end
walk(_G, "_G")
walk(T.host, "T.host")
walk({ T.host.call.give() }, "result")
T.loginfo("tried")
"""


async def test_nothing_else_of_python_is_in_reach(tmp_path: Path) -> None:
    collector = Collector()
    async with Engine([write(tmp_path, on_event(_REACH))], sinks=[collector]) as engine:
        engine.expose("give", lambda: {"a": [1, "x", b"y", None, {}]})
        await engine.emit("t", "e")
    assert collector.logged("ERROR") == []
    assert collector.logged() == ["tried"]
