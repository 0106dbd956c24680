"""LuaState: what Lua can't reach, whose thread it is, how errors and data cross."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Engine
from engine.values.errors import LuaMemoryLimitError, LuaUnavailableError, ScriptLoadError, StateClosedError
from engine.vm.state import LuaError, LuaFunction, LuaState, line_of, text
from tests.support import DEADLINE

# Every userdata reachable from globals, registry, metatables, upvalues and the arguments, as far as tables lead.
_REACHABLE = b"""
local seen, found, todo = {}, {}, { _G, debug.getregistry(), ... }
while #todo > 0 do
  local value = table.remove(todo)
  local kind = type(value)
  if value ~= nil and kind ~= "string" and kind ~= "number" and kind ~= "boolean" and not seen[value] then
    seen[value] = true
    todo[#todo + 1] = debug.getmetatable(value)
    if kind == "table" then
      for k, v in next, value do todo[#todo + 1] = k todo[#todo + 1] = v end
    elseif kind == "function" then
      local at = 1
      while debug.getupvalue(value, at) do
        todo[#todo + 1] = select(2, debug.getupvalue(value, at))
        at = at + 1
      end
    elseif kind == "userdata" then
      found[#found + 1] = value
    end
  end
end
return found
"""


@pytest.fixture
def state() -> Any:
    state = LuaState()
    yield state
    state.close()


def run(state: LuaState, source: str, *args: Any) -> Any:
    return state.compile(source.encode(), "chunk.lua")(*args)


class Holder:
    """A Python callable with attributes that a script must not reach."""

    secret = "found"

    def __call__(self) -> bytes:
        return b"called"


# ---- what is not reachable


@pytest.mark.parametrize("expression", ["python", "package.loaded.python", "package.preload.python"])
def test_there_is_no_python_module(state: LuaState, expression: str) -> None:
    assert run(state, f"return {expression}") is None


@pytest.mark.parametrize("name", ["python", "lupa", "python.builtins"])
def test_python_cannot_be_required(state: LuaState, name: str) -> None:
    assert run(state, "return (pcall(require, ...))", name.encode()) is False


@pytest.mark.parametrize(
    "name", ["__globals__", "__self__", "__class__", "__call__", "__dict__", "__code__", "secret", "__name__"]
)
@pytest.mark.parametrize(
    "callable_", [Holder(), lambda: b"called", [].append, print], ids=["object", "lambda", "bound", "builtin"]
)
def test_no_attribute_of_a_callable_can_be_read_or_set(state: LuaState, name: str, callable_: LuaFunction) -> None:
    read = "local f, name = ... return pcall(function() return f[name] end)"
    write = "local f, name = ... return pcall(function() f[name] = 1 end)"
    for source in (read, write):
        result = run(state, source, callable_, name.encode())
        assert result[0] is False
        assert "reachable" in str(result[1])


def test_setting_an_attribute_leaves_the_callable_as_it_was(state: LuaState) -> None:
    holder = Holder()
    run(state, "local f = ... pcall(function() f.secret = 'changed' end) pcall(function() f.fresh = 1 end)", holder)
    assert holder.secret == "found"
    assert not hasattr(holder, "fresh")


def test_a_callable_can_still_be_called(state: LuaState) -> None:
    assert run(state, "return (...)()", Holder()) == b"called"


def test_nothing_reachable_gives_an_attribute(state: LuaState) -> None:
    walk = """
    local walk, name, f = ...
    local open = {}
    for _, value in ipairs(walk(f)) do
      local ok, found = pcall(function() return value[name] end)
      if ok and found ~= nil then open[#open + 1] = tostring(value) end
    end
    return table.concat(open, ", "), #walk(f)
    """
    walker = state.compile(_REACHABLE, "walk.lua")
    for name in (b"__class__", b"__globals__", b"__self__", b"__builtins__", b"__subclasses__", b"__init__"):
        open_ones, count = run(state, walk, walker, name, Holder())
        assert open_ones == b""
        assert count > 0


def test_an_exception_that_a_script_catches_gives_no_attribute(state: LuaState) -> None:
    def fail() -> None:
        raise ValueError("wrong value")

    source = """
    local ok, caught = pcall((...))
    local function get(name) return function() return caught[name] end end
    return ok, tostring(caught), (pcall(get "__traceback__")), (pcall(get "args")), (pcall(get "__class__"))
    """
    assert run(state, source, fail) == (False, b"wrong value", False, False, False)


def test_os_exit_raises_and_the_process_lives(state: LuaState) -> None:
    ok, message = run(state, "return pcall(function()\n os.exit(3)\nend)")
    assert ok is False
    assert message.startswith(b"chunk.lua:2: os.exit is not available")


def test_os_exit_taken_before_by_a_library_is_the_same(state: LuaState) -> None:
    assert run(state, "return (pcall(require('os').exit, 0)), (pcall(package.loaded.os.exit))") == (False, False)


# ---- strings and numbers


@given(st.binary(max_size=300))
def test_bytes_cross_unchanged_both_ways(data: bytes) -> None:
    state = LuaState()
    assert run(state, "local s = ... return s, #s, s:byte(1, 1)", data)[:2] == (data, len(data))
    state.close()


def test_a_literal_with_nul_and_invalid_utf8(state: LuaState) -> None:
    assert run(state, "return 'a\\0b\\255'") == b"a\0b\xff"


def test_results(state: LuaState) -> None:
    assert run(state, "return 1, 1.5, true, nil, 'x'") == (1, 1.5, True, None, b"x")
    assert run(state, "return") is None


# ---- data as tables


def test_nested_data_becomes_tables(state: LuaState) -> None:
    value = {
        "list": [1, 2.5, True, "é", b"\0", [b"deep"]],
        "map": {"none": None, 3: "three", b"raw": bytearray(b"ba"), "view": memoryview(b"mv")},
        "tuple": ("a",),
    }
    source = """
    local t = ...
    return t.list[1], t.list[2], t.list[3], t.list[4], t.list[5], t.list[6][1], t.map.none, t.map[3], t.map.raw,
      t.map.view, t.tuple[1], #t.list
    """
    given_back = run(state, source, state.table(value))
    assert given_back == (1, 2.5, True, "é".encode(), b"\0", b"deep", None, b"three", b"ba", b"mv", b"a", 6)


def test_text_that_was_no_utf8_keeps_its_bytes(state: LuaState) -> None:
    assert run(state, "return (...)[1]", state.table([b"\xff\xfe".decode("utf-8", "surrogateescape")])) == b"\xff\xfe"


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": {"b": [1, object()]}}, r"event\.a\.b\[1\] is a object"),
        ([{"x": {1, 2}}], r"event\[0\]\.x is a set"),
        ({("t", object()): 1}, r"key of event\[1\] is a object"),
        ({"f": len}, r"event\.f is a builtin_function"),
        ({"n": 10**400}, r"event\.n is an integer too large"),
        ({"m": {None: 1}}, r"key of event\.m is None"),
        ({math.nan: 1}, r"key of event is nan"),
    ],
)
def test_what_lua_cannot_hold_names_the_field(state: LuaState, value: Any, where: str) -> None:
    with pytest.raises(TypeError, match=where):
        state.table(value)


def test_data_that_contains_itself(state: LuaState) -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(TypeError, match="contains itself"):
        state.table(value)


@pytest.mark.parametrize("number", [2**53 + 1, -(2**63) - 1, 2**64, 2**200, -(2**900)])
def test_large_integers_lose_precision_only(state: LuaState, number: int) -> None:
    assert (
        run(state, "return (...).n == tonumber((...).s)", state.table({"n": number, "s": repr(float(number))})) is True
    )


# ---- threads and the end


@pytest.mark.parametrize("method", ["compile", "execute", "require", "table", "memory_used", "add_modules", "close"])
def test_another_thread_is_refused(state: LuaState, method: str) -> None:
    arguments = {
        "compile": (b"return 1", "x"),
        "execute": (b"return 1",),
        "require": ("string",),
        "table": ({},),
        "add_modules": ("p", Path()),
    }.get(method, ())
    raised: list[BaseException] = []

    def use() -> None:
        try:
            getattr(state, method)(*arguments)
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert [type(exc) for exc in raised] == [StateClosedError]
    assert "thread" in str(raised[0])
    assert run(state, "return 1") == 1


def test_a_closed_state_refuses_and_closes_again() -> None:
    state = LuaState()
    assert not state.closed
    state.close()
    state.close()
    assert state.closed
    for use in (lambda: state.execute(b"return 1"), lambda: state.table({}), state.memory_used):
        with pytest.raises(StateClosedError, match="closed"):
            use()


# ---- errors


def test_the_memory_limit_is_an_error_of_its_own() -> None:
    state = LuaState(memory_limit=8 << 20)
    with pytest.raises(LuaMemoryLimitError):
        state.execute(b"local t = {} for i = 1, 1e8 do t[i] = ('x'):rep(1000) .. i end")
    state.close()


def test_memory_used_grows_with_what_is_held(state: LuaState) -> None:
    before = state.memory_used()
    state.execute(b"held = ('x'):rep(1000000)")
    assert state.memory_used() >= before + 1_000_000


def test_a_syntax_error_has_its_line(state: LuaState) -> None:
    with pytest.raises(ScriptLoadError) as caught:
        state.compile(b"local a = 1\nlocal b = = 2\n", "broken.lua")
    assert (caught.value.script, caught.value.hook, caught.value.line) == ("broken.lua", "load", 2)
    assert caught.value.message.startswith("broken.lua:2:")


def test_a_runtime_error_has_the_chunk_name(state: LuaState) -> None:
    with pytest.raises(LuaError, match=r"chunk\.lua:2: wrong"):
        run(state, "\nerror('wrong')")


@pytest.mark.parametrize(
    ("message", "line"),
    [("a.lua:12: x", 12), ("C:\\a.lua:3: y:4: z", 3), ("no line", 0), ("a.lua:x: no", 0), ("", 0)],
)
def test_line_of(message: str, line: int) -> None:
    assert line_of(message) == line


def test_text() -> None:
    assert text(b"a\xff") == "a\\xff"
    assert text(5) == "5"


# ---- modules


def test_added_modules_come_before_the_path_of_a_script(state: LuaState, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder, said in ((ours, "ours"), (theirs / "own", "theirs")):
        (folder / "sub").mkdir(parents=True)
        (folder / "one.lua").write_text(f"return '{said}'")
        (folder / "sub" / "two.lua").write_text(f"return '{said} two'")
    (theirs / "own" / "only.lua").write_text("return 'only theirs'")
    state.add_modules("own", ours)
    source = "package.path = (...) .. '/?.lua' return require 'own.one', require 'own.sub.two', require 'own.only'"
    assert run(state, source, str(theirs).encode()) == (b"ours", b"ours two", b"only theirs")


def test_an_added_module_has_a_short_chunk_name(state: LuaState, tmp_path: Path) -> None:
    (tmp_path / "bad.lua").write_text("\n\nerror('inside')")
    state.add_modules("own", tmp_path)
    assert run(state, "return select(2, pcall(require, 'own.bad'))").startswith(b"own/bad.lua:3: inside")


def test_a_prefix_is_not_a_beginning_of_a_name(state: LuaState, tmp_path: Path) -> None:
    (tmp_path / "x.lua").write_text("return 1")
    state.add_modules("own", tmp_path)
    assert run(state, "return (pcall(require, 'owner.x'))") is False
    assert state.require("own.x") == 1


def test_a_lupa_without_luajit_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("engine.vm.state.LuaRuntime", None)
    with pytest.raises(LuaUnavailableError, match="pip install"):
        LuaState()
    with pytest.raises(LuaUnavailableError, match=r"LuaJIT 2\.1"):
        Engine(scripts=[tmp_path / "any.lua"])


# ---- finalizers

_WRITTEN_TO = """
import sys, threading
from engine.vm import LuaState

state = LuaState()
state.execute(b"handle = io.popen('cat > ' .. ..., 'w') handle:write('all of it')", sys.argv[1].encode())
state.close()
"""


def test_a_program_that_is_written_to_gets_all_of_it(tmp_path: Path) -> None:
    """In a process of its own, as it would never end."""
    command = [sys.executable, "-c", _WRITTEN_TO, str(tmp_path / "written")]
    subprocess.run(command, timeout=DEADLINE, check=True)
    assert (tmp_path / "written").read_bytes() == b"all of it"


_READ_FROM = """
import sys
from engine.vm import LuaState

state = LuaState()
print(state.execute(b"handle = io.popen(...) return handle:read(2)", sys.argv[1].encode()).decode())
state.close()
"""


@pytest.mark.parametrize(
    "command",
    [
        "echo $$; exec sleep 1000",
        "sleep 1000 | (echo $$; sleep 1000) | cat",
        "trap '' TERM; echo $$; while :; do sleep 1000; done",
    ],
)
def test_a_program_that_is_read_from_ends_with_the_state(command: str) -> None:
    """With all that it started, whether it wants to or not."""
    said = subprocess.run(
        [sys.executable, "-c", _READ_FROM, command], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    assert said.stdout.strip().isdigit()


def test_a_pipe_that_was_closed_is_nobodys_business_any_more() -> None:
    state = LuaState()
    assert state.execute(b"local h = io.popen('echo one') local all = h:read('*a') h:close() return all") == b"one\n"
    assert state.execute(b"return io.popen(7):read('*a')") == b""
    assert state.execute(b"return io.popen('x', 'odd')")[0] is None
    state.close()


def test_what_is_no_command_is_said_where_it_was_called() -> None:
    state = LuaState()
    with pytest.raises(LuaError, match=r"^mine:1: bad argument #1 to 'popen' \(string expected, got no value\)"):
        state.compile(b"io.popen()", "mine")()
    state.close()


def test_finalizers_are_run_when_a_state_is_closed(capfd: pytest.CaptureFixture[str]) -> None:
    """With the library at hand. LuaJIT itself says what they raise."""
    said: list[bytes] = []
    state = LuaState()
    state.execute(
        b"local say = ... for n = 1, 3 do local u = newproxy(true) "
        b"getmetatable(u).__gc = function() say(tostring(n)) error('again') end _G[n], print = u, u end",
        said.append,
    )
    state.close()
    assert sorted(said) == [b"1", b"2", b"3"]
    assert capfd.readouterr().err.count("again") == 3
