"""T.async in a script's state: call forms, checks of arguments, the limit, what is taken when, callbacks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lua_api import Effect
from tests.support import PluginLua

BUFFER = "local buffer = require('offpath.buffer').from_string('a\\0b') "

# Every method of T.async with good arguments, and the method that the effect names.
CALLS = [
    ("copy", "'/a', '/b'", (b"copy", b"/a", b"/b")),
    ("cp", "'/a', '/b'", (b"copy", b"/a", b"/b")),
    ("cat", "'/a', '/b'", (b"cat", b"/a", b"/b")),
    ("rm", "'/a'", (b"rm", b"", b"/a")),
    ("copybuffer", "'bytes', '/b'", (b"copybuffer", b"bytes", b"/b", -1)),
    ("copybuffer", "'bytes', '/b', 0", (b"copybuffer", b"bytes", b"/b", 0)),
    ("copybuffer", "'', '/b', '12'", (b"copybuffer", b"", b"/b", 12)),
    ("copybuffer", "buffer, '/b'", (b"copybuffer", b"a\0b", b"/b", -1)),
    ("cat", "5, '/6.5'", (b"cat", os.fsencode(Path.cwd() / "5"), b"/6.5")),
]


def files(effects: list[Any]) -> list[tuple[Any, ...]]:
    return [values for code, values in effects if code is Effect.FILE_OPERATION]


def schedules(effects: list[Any]) -> list[tuple[Any, ...]]:
    return [values for code, values in effects if code is Effect.SCHEDULE]


def data_of(effects: list[Any]) -> list[bytes]:
    return [values[5] for values in schedules(effects)]


@pytest.mark.parametrize("form", ["T.async:{}({})", "T.async.{}({})", "T.async.{}(T.async, {})"])
@pytest.mark.parametrize(("method", "arguments", "expected"), CALLS)
def test_file_operations_in_each_call_form(form: str, method: str, arguments: str, expected: tuple[Any, ...]) -> None:
    [values] = files(PluginLua().run(BUFFER + form.format(method, arguments)))
    assert values[:2] == (1, 0)
    assert values[2 : 2 + len(expected)] == expected


@pytest.mark.parametrize("call", ["T.async:schedule", "T.async.schedule"])
def test_schedule_in_each_call_form(call: str) -> None:
    found = PluginLua().run(call + "{ onexecute = function(d) return d end, data = 'x', timeout = '1.5' }")
    [(code, (code_id, bytecode))] = [each for each in found if each[0] is Effect.CODE]
    assert code is Effect.CODE
    assert bytecode.startswith(b"\x1bLJ")
    assert schedules(found) == [(1, 0, 0, code_id, b"", b"x", 1.5)]


@pytest.mark.parametrize(
    "call", ["T.async:pending_items()", "T.async.pending_items()", "T.async.pending_items(T.async)"]
)
def test_pending_items_in_each_call_form(call: str) -> None:
    plugin = PluginLua()
    plugin.run(f"T.async:rm('/a') T.async:rm('/b') T.loginfo({call})")
    assert plugin.logged == [(7, b"2")]


# ---- paths

CHDIR = "local ffi = require('ffi') ffi.cdef('int chdir(const char *);') "


def test_relative_paths_mean_the_directory_at_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)  # and back
    here = os.fsencode(tmp_path)
    body = f"{CHDIR} for _, name in ipairs{{ 'one', 'two' }} do ffi.C.chdir('{tmp_path}/' .. name) "
    found = files(PluginLua().run(body + "T.async:copy('a', '../b') T.async:rm('') end"))
    assert [values[2:5] for values in found] == [
        (b"copy", here + b"/one/a", here + b"/one/../b"),
        (b"rm", b"", here + b"/one/"),
        (b"copy", here + b"/two/a", here + b"/two/../b"),
        (b"rm", b"", here + b"/two/"),
    ]


def test_without_a_working_directory_relative_paths_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    plugin = PluginLua()
    found = plugin.run("T.async:rm('/a')\nT.async:copy('/a', 'b')")
    assert [values[3:5] for values in files(found)] == [(b"", b"/a")]
    [error] = [values[1] for code, values in found if code is Effect.ERROR]
    assert error == b"plugin.lua:2: 'b' is relative, and there is no working directory"


# ---- wrong arguments

SCHEDULE = "T.async:schedule"
GOOD = "onexecute = function() end"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("T.async:copy(nil, '/b')", "T.async:copy: 'from' must be a string, not nil"),
        ("T.async:copy('/a')", "T.async:copy: 'to' must be a string, not nil"),
        ("T.async.copy({}, '/b')", "T.async:copy: 'from' must be a string, not a table"),
        ("T.async:cp('/a', false)", "T.async:copy: 'to' must be a string, not a boolean"),
        ("T.async:cat(print, '/b')", "T.async:cat: 'from' must be a string, not a function"),
        ("T.async.cat('/a', nil)", "T.async:cat: 'to' must be a string, not nil"),
        ("T.async:rm()", "T.async:rm: 'file' must be a string, not nil"),
        ("T.async.rm{}", "T.async:rm: 'file' must be a string, not a table"),
        ("T.async:copybuffer(nil, '/b')", "T.async:copybuffer: 'buffer' must be a Buffer or a string, not nil"),
        ("T.async:copybuffer(5, '/b')", "T.async:copybuffer: 'buffer' must be a Buffer or a string, not a number"),
        ("T.async:copybuffer('x')", "T.async:copybuffer: 'file' must be a string, not nil"),
        ("T.async:copybuffer('x', '/b', -1)", "T.async:copybuffer: 'position' must be a whole number"),
        ("T.async:copybuffer('x', '/b', 0.5)", "T.async:copybuffer: 'position' must be a whole number"),
        ("T.async:copybuffer('x', '/b', 'end')", "T.async:copybuffer: 'position' must be a whole number"),
        ("T.async:copybuffer('x', '/b', 1/0)", "T.async:copybuffer: 'position' must be a whole number"),
        ("T.async:copybuffer('x', '/b', 0/0)", "T.async:copybuffer: 'position' must be a whole number"),
        ("T.async:copybuffer('x', '/b', 2^60)", "T.async:copybuffer: 'position' must be a whole number"),
        (f"{SCHEDULE}()", "T.async:schedule: takes a table with 'onexecute', not nil"),
        (f"{SCHEDULE}(function() end)", "T.async:schedule: takes a table with 'onexecute', not a function"),
        (f"{SCHEDULE}{{}}", "T.async:schedule: 'onexecute' must be a function, not nil"),
        (f"{SCHEDULE}{{ onexecute = 'x' }}", "T.async:schedule: 'onexecute' must be a function, not a string"),
        (f"{SCHEDULE}{{ onexecute = print }}", "'onexecute' must be a Lua function, not a C function"),
        (f"{SCHEDULE}{{ {GOOD}, data = {{}} }}", "T.async:schedule: 'data' must be a string, not a table"),
        (f"{SCHEDULE}{{ {GOOD}, onresult = 1 }}", "T.async:schedule: 'onresult' must be a function, not a number"),
        (f"{SCHEDULE}{{ {GOOD}, onerror = 'x' }}", "T.async:schedule: 'onerror' must be a function, not a string"),
        (f"{SCHEDULE}{{ {GOOD}, timeout = 0 }}", "'timeout' must be a positive number of seconds"),
        (f"{SCHEDULE}{{ {GOOD}, timeout = 1/0 }}", "'timeout' must be a positive number of seconds"),
        (f"{SCHEDULE}{{ {GOOD}, timeout = 0/0 }}", "'timeout' must be a positive number of seconds"),
        (f"{SCHEDULE}{{ {GOOD}, timeout = 'soon' }}", "'timeout' must be a positive number of seconds"),
    ],
)
def test_a_wrong_argument_raises_at_the_line_of_the_script(call: str, message: str) -> None:
    plugin = PluginLua()
    found = plugin.run(f"\n\n{call}\n")
    assert [code for code, _ in found] == [Effect.ERROR]
    hook, raised, _ = found[0][1]
    assert hook == b"onevent"
    assert raised.decode().startswith("plugin.lua:3: ")
    assert message in raised.decode()


def test_a_refused_call_is_not_pending() -> None:
    plugin = PluginLua()
    plugin.run("pcall(T.async.copy, nil) pcall(T.async.schedule, {}) T.loginfo(T.async:pending_items())")
    assert plugin.logged == [(7, b"0")]


# ---- the limit


def test_past_the_limit_calls_return_nil_and_are_counted() -> None:
    plugin = PluginLua(queue_limit=3)
    found = plugin.run("""
    for i = 1, 4 do
      for _, call in ipairs{
        function() return T.async:rm('/x') end,
        function() return T.async:schedule{ onexecute = function() end } end,
      } do
        local first, second = call()
        T.loginfo(tostring(first) .. ' ' .. tostring(second))
      end
    end
    T.loginfo(T.async:pending_items())
    """)
    assert [text for _, text in plugin.logged] == [b"nil nil"] * 3 + [b"nil queue full"] * 5 + [b"3"]
    assert (len(files(found)), len(schedules(found))) == (2, 1)
    assert [values for code, values in found if code is Effect.REJECTED] == [(5,)]


@pytest.mark.parametrize(("own", "lines"), [(1, [b"nil", b"queue full"]), (3, [b"nil", b"nil"])])
def test_a_limit_of_its_own_can_only_be_lower(own: int, lines: list[bytes]) -> None:
    plugin = PluginLua(queue_limit=2)
    plugin.host[b"lower_limit"](own)
    plugin.run("for i = 1, 3 do local _, why = T.async:rm('/x') T.loginfo(tostring(why)) end")
    assert [text for _, text in plugin.logged] == [*lines, b"queue full"]


def test_rejected_ones_are_reported_once() -> None:
    plugin = PluginLua(queue_limit=1)
    plugin.run("T.async:rm('/a') T.async:rm('/b')")
    assert plugin.take() == []


def test_what_completes_makes_room() -> None:
    plugin = PluginLua(queue_limit=1)
    body = "local _, why = T.async:rm('/a') T.loginfo(tostring(why))"
    assert len(files(plugin.run(body))) == 1
    plugin.host[b"events"](0.0, b"t", b"")
    plugin.host[b"settle"](1)
    plugin.host[b"events"](0.0, b"t", b"")
    assert [text for _, text in plugin.logged] == [b"nil", b"queue full", b"nil"]


# ---- what is taken when


def test_a_table_is_read_when_it_is_scheduled_and_left_alone() -> None:
    plugin = PluginLua()
    found = plugin.run("""
    local job = { onexecute = function(d) return d:upper() end,
                  onresult = function(engine, req, resp) T.loginfo(req .. "=>" .. resp) end }
    local before = job
    for _, s in ipairs{ "a", "b", "c" } do job.data = s; T.async:schedule(job) end
    job.onresult, job.onexecute, job.data = nil, nil, nil
    T.loginfo(tostring(next(job)))
    """)
    assert data_of(found) == [b"a", b"b", b"c"]
    for task_id, *_, data, _timeout in schedules(found):
        plugin.host[b"complete"](1.0, task_id, 1, data.upper())
    assert [text for _, text in plugin.logged] == [b"nil", b"a=>A", b"b=>B", b"c=>C"]


def test_data_is_text_numbers_included_and_may_be_absent() -> None:
    body = "".join(f"T.async:schedule{{ {GOOD}, data = {data} }} " for data in ("'a\\0'", "1.5", "''", "nil"))
    assert data_of(PluginLua().run(body)) == [b"a\0", b"1.5", b"", b""]


def test_a_buffer_is_copied_during_the_call() -> None:
    plugin = PluginLua()
    [values] = files(
        plugin.run("""
        local M, ffi = require "offpath.buffer", require "ffi"
        local memory = ffi.new("uint8_t[3]", {65, 66, 67})
        local buffer = M.from_pointer(memory, 3, memory)
        T.async:copybuffer(buffer, '/f')
        memory[0] = 90
        M.reset(buffer, nil, 0)
        """)
    )
    assert values[3] == b"ABC"


def test_each_task_has_its_own_id_and_wants() -> None:
    found = PluginLua().run("""
    local f = function() end
    T.async:schedule{ onexecute = f }
    T.async:schedule{ onexecute = f, onresult = f }
    T.async:schedule{ onexecute = f, onerror = f }
    T.async:schedule{ onexecute = f, onresult = f, onerror = f }
    """)
    assert [(values[0], values[2]) for values in schedules(found)] == [(1, 0), (2, 1), (3, 2), (4, 3)]


# ---- what comes back

CALLBACKS = """
T.async:schedule{ onexecute = function() end, data = 'in', onresult = function(e, d, v)
  T.loginfo('result ' .. d .. ' ' .. v .. ' ' .. tostring(e == engine) .. ' ' .. T.async:pending_items())
end, onerror = function(e, d, v)
  T.loginfo('error ' .. d .. ' ' .. v)
end }
"""


def test_a_result_reaches_onresult_with_the_engine_and_the_data() -> None:
    plugin = PluginLua()
    plugin.run(CALLBACKS)
    plugin.host[b"complete"](1.0, 1, 1, b"")
    assert plugin.logged == [(7, b"result in  true 1")]


def test_an_error_reaches_onerror() -> None:
    plugin = PluginLua()
    plugin.run(CALLBACKS)
    plugin.host[b"complete"](1.0, 1, 2, b"wrong")
    assert plugin.logged == [(7, b"error in wrong")]


def test_a_task_that_is_done_calls_nothing_and_a_second_completion_neither() -> None:
    plugin = PluginLua()
    plugin.run(CALLBACKS)
    plugin.host[b"complete"](1.0, 1, 0, None)
    plugin.host[b"complete"](1.0, 1, 1, b"again")
    assert plugin.logged == []


def test_pending_goes_down_after_the_callback() -> None:
    plugin = PluginLua()
    plugin.run(
        "T.async:rm('/a') T.async:schedule{ onexecute = function() end, onresult = function() "
        "T.loginfo(T.async:pending_items()) end } say = function() T.loginfo(T.async:pending_items()) end",
        onto="TrisulPlugin.onmessage = function() say() end",
    )
    plugin.host[b"complete"](1.0, 2, 1, b"x")
    plugin.host[b"message"](1.0, b"", b"")
    plugin.host[b"settle"](1)
    plugin.host[b"message"](1.0, b"", b"")
    assert [text for _, text in plugin.logged] == [b"2", b"1", b"0"]


def test_an_error_in_a_callback_is_an_effect_and_the_next_still_runs() -> None:
    plugin = PluginLua()
    found = plugin.run("""
    for _, d in ipairs{ "bad", "good" } do
      T.async:schedule{ onexecute = function() end, data = d, onresult = function(e, d)
        if d == "bad" then error("no good") end
        T.loginfo(d)
      end }
    end""")
    assert len(schedules(found)) == 2
    plugin.host[b"complete"](1.0, 1, 1, b"", 2, 1, b"")
    assert plugin.errors() == [("onresult", "plugin.lua:4: no good")]
    assert plugin.logged == [(7, b"good")]


def test_work_from_a_callback_keeps_the_lease_of_its_task() -> None:
    plugin = PluginLua()
    assert (
        plugin.load(
            """
    TrisulPlugin = { filex_monitor = { onfile_http = function()
      T.async:schedule{ onexecute = function() end, onresult = function() T.async:rm('/x') end }
    end }, onmessage = function() T.async:rm('/y') end }
    """,
            block="filex_monitor",
        )
        is None
    )
    plugin.host[b"call"](b"onfile_http", 1.0, 77, b"06A:k", b"/p", b"", b"", 1, False)
    [scheduled] = schedules(plugin.take())
    assert scheduled[1] == 77
    plugin.host[b"complete"](2.0, scheduled[0], 1, b"")
    plugin.host[b"message"](3.0, b"", b"")
    assert [values[1] for values in files(plugin.take())] == [77, 0]
