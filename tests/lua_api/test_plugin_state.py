"""A plugin's state: loading, onload and onunload, errors of every kind in hooks, and what the host keeps for itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lua_api import Effect
from tests.support import PluginLua

# ---- loading


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("TrisulPlugin = {\n  id = = 1 }", "bad.lua:2: unexpected symbol near '='"),
        ("local a\nlocal b = a.c\nTrisulPlugin = {}", "bad.lua:2: attempt to index local 'a' (a nil value)"),
        ("\n\nerror('at once')", "bad.lua:3: at once"),
        ("error({})", "error object: table: "),
        ("error()", "error object: nil"),
        ("local x = 1", "the script defines no global table TrisulPlugin"),
        ("TrisulPlugin = 'text'", "TrisulPlugin must be a table, not a string"),
        ("local x = ('x'):rep(1e6) x = x:rep(3000)", "not enough memory"),
    ],
)
def test_what_cannot_be_loaded(source: str, message: str) -> None:
    wrong = PluginLua().load(source, "bad.lua")
    assert wrong is not None
    assert wrong[0].decode().startswith(message)


def test_a_load_error_in_a_function_has_a_traceback_without_host_frames() -> None:
    wrong = PluginLua().load(
        "local function inner()\n  error('deep')\nend\nlocal function outer() inner() end\nouter()", "bad.lua"
    )
    assert wrong is not None
    message, traceback = wrong[0].decode(), wrong[1].decode()
    assert message == "bad.lua:2: deep"
    assert "bad.lua:2: in function 'inner'" in traceback
    assert "bad.lua:5: in main chunk" in traceback
    assert "offpath" not in traceback


def test_the_description_tells_fields_and_blocks() -> None:
    plugin = PluginLua()
    plugin.load("""TrisulPlugin = {
      id = { name = "n", description = "d" }, request_async_workers = 2, message_subscriptions = { "a", "b" },
      event_monitor = { topics = { "t.*" }, onevent = function() end }, onload = function() end, [1] = "x",
    }""")
    told = json.loads(plugin.host[b"describe"]())
    assert told["id"]["name"] == {"kind": "string", "value": "n"}
    assert told["fields"]["request_async_workers"] == {"kind": "number", "value": 2}
    assert told["fields"]["message_subscriptions"]["value"] == ["a", "b"]
    assert told["fields"]["onload"] == {"kind": "function"}
    assert set(told["blocks"]) == {"event_monitor"}
    assert told["blocks"]["event_monitor"]["topics"] == {"kind": "table", "value": ["t.*"]}


# ---- onload and onunload

ORDER = """TrisulPlugin = {
  onload = function() T.loginfo('top') %s end, onunload = function() T.loginfo('top gone') end,
  event_monitor = { onload = function() T.loginfo('block') %s end, onunload = function() T.loginfo('block gone') end },
}"""


def lines(plugin: PluginLua) -> list[str]:
    return [text.decode() for _, text in plugin.logged]


def test_onload_of_the_top_comes_first_and_onunload_last() -> None:
    plugin = PluginLua()
    plugin.load(ORDER % ("", ""), block="event_monitor")
    assert plugin.onload() is True
    plugin.host[b"onunload"](2.0)
    assert lines(plugin) == ["top", "block", "block gone", "top gone"]


@pytest.mark.parametrize(
    ("top", "block", "result", "ran"),
    [
        ("return false", "", False, ["top"]),
        ("", "return false", False, ["top", "block"]),
        ("return nil", "return 0", True, ["top", "block"]),
        ("error('no')", "", None, ["top"]),
        ("", "error('no')", None, ["top", "block"]),
    ],
)
def test_a_veto_and_an_error_end_the_loading(top: str, block: str, result: bool | None, ran: list[str]) -> None:
    plugin = PluginLua()
    plugin.load(ORDER % (top, block), block="event_monitor")
    assert plugin.onload() is result
    assert lines(plugin) == ran
    assert len(plugin.errors()) == (result is None)


def test_an_error_in_one_onunload_does_not_keep_the_other_from_running() -> None:
    plugin = PluginLua()
    plugin.load(
        "TrisulPlugin = { onunload = function() T.loginfo('top gone') end,"
        " event_monitor = { onunload = function() error('stuck') end } }",
        block="event_monitor",
    )
    plugin.host[b"onunload"](1.0)
    assert plugin.errors() == [("onunload", "plugin.lua:1: stuck")]
    assert lines(plugin) == ["top gone"]


def test_a_script_without_hooks_loads_and_unloads() -> None:
    plugin = PluginLua()
    plugin.load("TrisulPlugin = {}")
    assert plugin.onload() is True
    plugin.host[b"onunload"](1.0)
    assert plugin.take() == []


# ---- the script's own changes


@pytest.mark.parametrize("change", ["T = nil", "T = {}", "T = { async = 'mine' }", "T.async = nil"])
def test_the_host_works_on_after_a_script_overwrote_t(change: str) -> None:
    plugin = PluginLua()
    source = f"""
    local async = T.async
    {change}
    TrisulPlugin = {{ event_monitor = {{ onevent = function(engine)
      engine:tag_flow('06A:k', 'seen')
      async:schedule{{ onexecute = function() end, data = 'd',
        onresult = function(engine) engine:tag_flow('06A:k', 'done') end }}
    end }} }}
    """
    assert plugin.load(source, block="event_monitor") is None
    plugin.host[b"bind"](b"event_monitor", b"{GROUP}", None)
    plugin.host[b"events"](1.0, b"t", b"")
    codes = [code for code, _ in plugin.take()]
    assert codes == [Effect.FLOW_UPDATE, Effect.CODE, Effect.SCHEDULE]
    plugin.host[b"complete"](2.0, 1, 1, b"r")
    assert [values[3] for _, values in plugin.take()] == [b"done"]


@pytest.mark.parametrize("name", ["pairs", "ipairs", "type", "tostring", "error", "select", "next", "unpack", "xpcall"])
def test_the_host_works_on_after_a_script_overwrote_a_global(name: str) -> None:
    plugin = PluginLua()
    body = (
        "engine:update_counter('{G}', 'k', 0, 1) local up = {} T.async:schedule{ onexecute = function() return up end }"
    )
    found = plugin.run(body + " T.async:rm('/x')", onto=f"{name} = nil")
    assert [code for code, _ in found] == [Effect.CODE, Effect.SCHEDULE, Effect.FILE_OPERATION]
    assert plugin.counted() == {("{G}", "k", 0): [1]}


# ---- errors in hooks


def error_of(body: str) -> tuple[str, str]:
    """Message and traceback of the error that statements in a hook raise."""
    plugin = PluginLua()
    [(code, values)] = plugin.run(body)
    assert code is Effect.ERROR
    assert values[0] == b"onevent"
    return values[1].decode(), values[2].decode()


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        ("error('text')", "plugin.lua:1: text"),
        ("error('text', 0)", "text"),
        ("error()", "error object: nil"),
        ("error(nil)", "error object: nil"),
        ("error(5)", "plugin.lua:1: 5"),
        ("error(true)", "error object: true"),
        ("error(setmetatable({}, { __tostring = function() return 'mine' end }))", "error object: mine"),
        ("error(setmetatable({}, { __tostring = function() error('worse') end }))", "error object of type table"),
        ("error(setmetatable({}, { __tostring = function() return 5 end }))", "error object of type table"),
        ("local x = ('x'):rep(1e6) return x:rep(3000)", "not enough memory"),
        ("local function f() return 1 + f() end f()", "stack overflow"),
        ("local t = setmetatable({}, { __index = function(t, k) return t[k] end }) return t.x", "stack overflow"),
        ("coroutine.wrap(function() error('inside') end)()", "plugin.lua:1: inside"),
        ("return nil + 1", "plugin.lua:1: attempt to perform arithmetic on a nil value"),
    ],
)
def test_whatever_is_raised_becomes_a_message(raised: str, message: str) -> None:
    assert message in error_of(raised)[0]


def test_a_raised_table_is_named() -> None:
    assert error_of("error({})")[0].startswith("error object: table: 0x")


def test_a_traceback_has_the_frames_of_the_script_and_no_others() -> None:
    message, traceback = error_of(
        "\nlocal function inner()\n  error('here')\nend\nlocal function outer() inner() end\nouter()"
    )
    assert message == "plugin.lua:3: here"
    assert "plugin.lua:3: in function 'inner'" in traceback
    assert "plugin.lua:5: in function 'outer'" in traceback
    for host in ("offpath", "xpcall", "hooks.lua", "[C]: at"):
        assert host not in traceback


def test_one_event_that_raises_does_not_stop_the_batch() -> None:
    plugin = PluginLua()
    plugin.load(
        "TrisulPlugin = { event_monitor = { onevent = function(engine, time, topic, event)\n"
        "  if event == 'bad' then error(topic) end\n  engine:tag_flow('06A:k', event) end } }",
        block="event_monitor",
    )
    assert plugin.host[b"events"](1.0, b"top.ic", b"a", b"bad", b"c") == 2, "the place of the bad one"
    found = plugin.take()
    assert [code for code, _ in found] == [Effect.FLOW_UPDATE, Effect.ERROR, Effect.FLOW_UPDATE]
    assert found[1][1][1] == b"plugin.lua:2: top.ic"


def test_a_message_that_raises_is_told() -> None:
    plugin = PluginLua()
    plugin.load("TrisulPlugin = { onmessage = function(id, text) if text == '' then error(id) end end }")
    assert plugin.host[b"message"](1.0, b"id", b"text") is True
    assert plugin.host[b"message"](1.0, b"id", b"") is False
    assert plugin.errors() == [("onmessage", "plugin.lua:1: id")]


@pytest.mark.parametrize(
    ("returned", "result"),
    [("true", True), ("false", False), ("nil", None), ("'text'", b"text"), ("0", b"0"), ("", None)],
)
def test_what_a_hook_returns(returned: str, result: Any) -> None:
    plugin = PluginLua()
    plugin.load(
        f"TrisulPlugin = {{ filex_monitor = {{ filter_flow = function() return {returned} end }} }}",
        block="filex_monitor",
    )
    assert plugin.host[b"call"](b"filter_flow", 1.0, 0, b"06A:k") == (True, result)


def test_stream_time_is_whole_for_documented_hooks_and_exact_for_events() -> None:
    plugin = PluginLua()
    plugin.load(
        "TrisulPlugin = { filex_monitor = { filter_flow = function(e, time) T.loginfo(time) end },"
        " event_monitor = { onevent = function(e, time) T.loginfo(time) end } }",
        block="filex_monitor",
    )
    plugin.host[b"call"](b"filter_flow", 9.75, 0, b"06A:k")
    plugin.host[b"bind"](b"event_monitor", None, None)
    plugin.host[b"events"](9.75, b"t", b"")
    assert lines(plugin) == ["9", "9.75"]
