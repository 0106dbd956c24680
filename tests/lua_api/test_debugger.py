"""The debugger: silent without a terminal, a console over the caller's frame with one."""

from __future__ import annotations

from typing import Any

import pytest

from lua_api import console

SCRIPT = """
local dbg = require "debugger"
local out = {}
dbg.write = function(text) out[#out + 1] = text end
local up = { name = "up" }
counter = 1
local function inner(argument)
  local value, empty = argument * 2, nil
  dbg()
  return value, up.name
end
local function outer(argument)
  local mine = "outer's"
  local value, name = inner(argument)
  return value, name, mine
end
local value, name = outer(21)
return table.concat(out), value, name
"""
STOP = "test.lua:9 in inner\n"


def console_run(lua: Any, *lines: str) -> tuple[list[str], Any]:
    lua.console_lines = [line.encode() for line in lines]
    text, *results = lua.run(SCRIPT)
    shown = text.decode()
    assert shown.startswith("test.lua:9 in inner\n")
    return shown.removeprefix(STOP).splitlines(), results


def test_without_a_terminal_it_warns_once(lua: Any) -> None:
    lua.run("local dbg = require 'debugger' for _ = 1, 3 do dbg() dbg(false) end dbg(true)")
    assert lua.logged == [(5, b"debugger: no terminal attached, breaks are passed over")]


def test_a_true_condition_goes_on(lua: Any) -> None:
    lua.console_lines = []
    source = """
    local dbg = require "debugger"
    local writes = 0
    dbg.write = function() writes = writes + 1 end
    dbg(1 == 1)
    dbg(true)
    local before = writes
    dbg(1 == 2)
    return before, writes
    """
    assert lua.run(source) == (0, 1)


@pytest.mark.parametrize("lines", [(), ("c",), ("", "  ", "continue")])
def test_continue_and_end_of_input(lua: Any, lines: tuple[str, ...]) -> None:
    assert console_run(lua, *lines) == ([], [42, b"up"])


def test_values_of_locals_upvalues_and_globals(lua: Any) -> None:
    shown, _ = console_run(
        lua, "p value", "value + 1", "up.name", "counter", "argument, value", "p empty", "nothing", "c"
    )
    assert shown == ["42", "43", '"up"', "1", "21\t42", "nil", "nil"]


def test_assignment_to_locals_upvalues_and_globals(lua: Any) -> None:
    shown, results = console_run(
        lua, "value = 7", "up = { name = 'new' }", "counter = counter + 1", "p counter", "value", "c"
    )
    assert shown == ["2", "7"]
    assert results == [7, b"new"]
    assert lua.run("return counter") == 2


def test_locals_listing(lua: Any) -> None:
    shown, _ = console_run(lua, "l", "c")
    assert shown[:3] == ["argument = 21", "value = 42", "empty = nil"]
    assert any(line.startswith("up = table: ") and line.endswith('{ name = "up" }  (upvalue)') for line in shown)


def test_moving_between_frames(lua: Any) -> None:
    shown, _ = console_run(lua, "u", "p mine", "mine = 5", "mine", "d", "p value", "d", "u", "u", "u", "u", "c")
    assert shown[0] == "test.lua:14 in outer"
    assert shown[1:3] == ['"outer\'s"', "5"]
    assert shown[3:6] == ["test.lua:9 in inner", "42", "at the top of the stack"]
    assert shown[-1] == "at the bottom of the stack"


@pytest.mark.parametrize("command", ["w", "bt"])
def test_traceback_marks_the_frame(lua: Any, command: str) -> None:
    shown, _ = console_run(lua, "u", command, "c")
    assert shown[1:3] == ["   test.lua:9 in inner", "=> test.lua:14 in outer"]
    assert shown[3].startswith("   test.lua:17 in ")


def test_errors_at_the_console_stay_there(lua: Any) -> None:
    shown, results = console_run(lua, "p )", "error('oops')", "for i = 1, 2 do value = value + i end", "p value", "c")
    assert shown[0].startswith("error: ")
    assert "oops" in shown[1]
    assert shown[2:] == ["45"]
    assert results[0] == 45


def test_quit_leaves_with_an_error(lua: Any) -> None:
    lua.console_lines = [b"q"]
    assert lua.error(SCRIPT) == "left from the debugger"


def test_help_and_odd_values(lua: Any) -> None:
    shown, _ = console_run(lua, "h", "p 'a\\n\\0\"'", "p print", "p {}", "c")
    assert shown[0].startswith("c ")
    assert shown[-3] == '"a\\n\\000\\""'
    assert shown[-2].startswith("function: ")


def test_call_stops_where_the_error_was_raised(lua: Any) -> None:
    source = """
    local dbg = require "debugger"
    local out = {}
    dbg.write = function(text) out[#out + 1] = text end
    local function broken(t) local here = 5; return t.a.b end
    local ok, message = dbg.call(broken, {})
    local fine = { dbg.call(function(...) return ... end, 1, nil, 3) }
    return ok, message, table.concat(out), fine[1], fine[2], fine[4]
    """
    lua.console_lines = [b"p here", b"q"]
    ok, message, shown, *fine = lua.run(source)
    assert ok is False
    assert b"test.lua:5:" in message
    assert b"test.lua:5 in function of line 5\n5\n" in shown
    assert fine == [True, 1, 3]


def test_error_and_assert(lua: Any) -> None:
    assert lua.run("return require('debugger').assert(1, 2)") == (1, 2)
    assert lua.error("require('debugger').assert(false, 'why')") == "why"
    assert lua.error("require('debugger').assert(nil)") == "assertion failed!"
    assert lua.error("local dbg = require 'debugger'\ndbg.error('why')").startswith("test.lua:2: why")
    lua.console_lines = [b"p x", b"c"]
    source = """local dbg = require "debugger"
    dbg.write = function(text) seen = (seen or "") .. text end
    local x = 9
    dbg.assert(x == 8, "why")
    """
    assert lua.error(source) == "why"
    assert lua.run("return seen") == b"error: why\ntest.lua:4 in main chunk\n9\n"


def test_the_console_reads_lines_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["p é"])

    def answer(_prompt: str) -> str:
        for line in lines:
            return line
        raise EOFError

    monkeypatch.setattr("builtins.input", answer)
    assert console.console_read(b"> ") == "p é".encode()
    assert console.console_read(b"> ") is None


def test_a_service_has_no_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert console.console_attached() is False
