"""From a script file to plugins: one state per block, contained errors, `require` of siblings."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from engine import Config, Engine, EngineError, ScriptLoadError
from engine.plugins.loader import load_script, read_script
from engine.stream.groups import Groups
from engine.values.errors import EngineClosedError
from engine.vm import LuaState
from tests.scripts import ALERTS, Collector, on_event, plugin, write

TWO_BLOCKS = f"""
local group = "{ALERTS}"
counter = (counter or 0) + 1
T.mine = (T.mine or 0) + 1
local upvalue = 0
local function say(where)
  upvalue = upvalue + 1
  T.loginfo(where .. " " .. counter .. " " .. T.mine .. " " .. upvalue)
  counter, T.mine = counter + 10, T.mine + 10
end
TrisulPlugin = {{
  id = {{ name = "two" }},
  onload = function() say("onload") end,
  event_monitor = {{ onevent = function(engine, ts, topic, event)
    say("event")
    engine:add_alert(group, nil, "s", 1, "m")
  end }},
  alert_monitor = {{ alert_guid = group, onnewalert = function() say("alert") end }},
}}
"""


async def loaded(*scripts: Path, config: Config | None = None) -> tuple[Engine, Collector]:
    """An engine that loaded some scripts and ended; what it was and what it logged."""
    collector = Collector()
    engine = Engine(scripts, config=config, sinks=[collector])
    async with engine:
        pass
    return engine, collector


async def test_each_block_runs_in_a_state_of_its_own(tmp_path: Path) -> None:
    collector = Collector()
    async with Engine([write(tmp_path, TWO_BLOCKS)], sinks=[collector]) as engine:
        await engine.emit("t", "x")
        assert [each.block for each in engine.stats.plugins] == ["alert_monitor", "event_monitor"]
    assert sorted(collector.logged()) == ["alert 11 11 2", "event 11 11 2", "onload 1 1 1", "onload 1 1 1"]


async def test_a_script_loaded_twice_works_and_shares_nothing(tmp_path: Path) -> None:
    script = write(tmp_path, on_event("n = (n or 0) + 1; T.loginfo(n)"))
    collector = Collector()
    async with Engine([script, script], sinks=[collector]) as engine:
        await engine.emit_batch("t", ["a", "b"])
        assert len(engine.stats.plugins) == 2
    assert collector.logged() == ["1", "2", "1", "2"]


async def test_the_table_and_t_may_be_replaced_by_the_script(tmp_path: Path) -> None:
    script = write(tmp_path, on_event("got = event", rest="onload = function() T = {}; TrisulPlugin = nil end"))
    async with Engine([script]) as engine:
        await engine.emit("t", "x")
        assert engine.stats.events.handled == 1
        assert engine.stats.script_errors == 0


async def test_require_finds_a_sibling_of_either_style(tmp_path: Path) -> None:
    write(tmp_path, "return { word = 'table' }", "sni-tls.lua")
    write(tmp_path, "function mkconfig() return 'global' end", "mkconfig.lua")
    (tmp_path / "helpers").mkdir()
    write(tmp_path / "helpers", "return 'path'", "deep.lua")
    body = (
        'T.loginfo(require("sni-tls").word); require"mkconfig"; T.loginfo(mkconfig()); T.loginfo(require"helpers/deep")'
    )
    _, collector = await loaded(write(tmp_path, plugin(f"onload = function() {body} end")))
    assert collector.logged() == ["table", "global", "path"]


async def test_two_folders_have_siblings_of_their_own(tmp_path: Path) -> None:
    scripts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, f"return '{name}'", "sibling.lua")
        body = 'onload = function() T.loginfo(require "sibling") end'
        scripts.append(write(tmp_path / name, plugin(body)))
    _, collector = await loaded(*scripts)
    assert collector.logged() == ["one", "two"]


BROKEN = {
    "syntax": ("x = 1\nTrisulPlugin = {\n  id = = 5\n}", 3),
    "chunk": ("\n\n\nerror('early')", 4),
    "require": ("local gone = require 'not_there_at_all'", 1),
    "no-table": ("x = 1", 0),
    "not-a-table": ("TrisulPlugin = 5", 0),
    "workers": (plugin("request_async_workers = 0"), 0),
    "bytecode-like": ("\x1bLJ garbage", 0),
    "object": ("error({})", 0),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_script_names_its_file_and_line_and_the_others_load(tmp_path: Path, name: str) -> None:
    text, line = BROKEN[name]
    broken = write(tmp_path, text, "broken.lua")
    good = write(tmp_path, on_event("T.loginfo(event)"), "good.lua")
    collector = Collector()
    async with Engine([broken, good], sinks=[collector]) as engine:
        await engine.emit("t", "still here")
        (error,) = engine.load_errors
        assert engine.stats.script_errors == 1
    assert isinstance(error, ScriptLoadError)
    assert (error.script, error.hook, error.line) == ("broken.lua", "load", line)
    assert str(error).startswith("broken.lua: load: ")
    assert collector.logged() == ["still here"]
    (logged,) = collector.of("log")[:1]
    assert (logged.level, logged.script) == ("ERROR", "broken.lua")
    assert error.message in logged.text


async def test_a_missing_file_and_a_folder_are_load_errors(tmp_path: Path) -> None:
    engine, _ = await loaded(tmp_path / "absent.lua", tmp_path)
    assert [error.message for error in engine.load_errors] == ["No such file or directory", "Is a directory"]
    assert engine.load_errors[0].script == str(tmp_path / "absent.lua")


async def test_load_at_run_time_raises_and_the_engine_goes_on(tmp_path: Path) -> None:
    good = write(tmp_path, on_event("T.loginfo(event)"), "good.lua")
    collector = Collector()
    async with Engine(sinks=[collector]) as engine:
        with pytest.raises(ScriptLoadError, match=r"absent\.lua"):
            await engine.load(tmp_path / "absent.lua")
        assert await engine.load(good) == ("event_monitor",)
        await engine.emit("t", "x")
        assert engine.load_errors == ()
    assert collector.logged() == ["x"]


@pytest.mark.parametrize(
    ("body", "kept"),
    [("return false", False), ("error('no')", False), ("return nil", True), ("return 0", True), ("return 'no'", True)],
)
async def test_onload_disables_with_false_or_an_error_only(tmp_path: Path, body: str, kept: bool) -> None:
    rest = f"onload = function() {body} end, onunload = function() T.loginfo('unloaded') end"
    collector = Collector()
    async with Engine([write(tmp_path, on_event("T.loginfo(event)", rest=rest))], sinks=[collector]) as engine:
        await engine.emit("t", "x")
        assert engine.load_errors == ()
        assert len(engine.stats.plugins) == kept
        assert engine.stats.script_errors == ("error" in body)
    told = [line for line in collector.logged() if "is disabled" not in line]
    assert told == (["x", "unloaded"] if kept else [])
    assert any("event_monitor is disabled: onload" in line for line in collector.logged()) is not kept


async def test_the_onload_of_a_block_comes_second_and_may_veto(tmp_path: Path) -> None:
    text = plugin(
        "onload = function() T.loginfo('top') end,"
        "event_monitor = { onload = function() T.loginfo('block'); return false end, onevent = function() end },"
        f"alert_monitor = {{ alert_guid = '{ALERTS}', onnewalert = function() end }}"
    )
    collector = Collector()
    async with Engine([write(tmp_path, text)], sinks=[collector]) as engine:
        assert [each.block for each in engine.stats.plugins] == ["alert_monitor"]
    assert [line for line in collector.logged() if "disabled" not in line] == ["top", "top", "block"]


async def test_warnings_are_logged_once_per_script(tmp_path: Path) -> None:
    text = plugin("alertmonitor = {}, event_monitor = { onevent = function() end },\nonmesage = function() end")
    _, collector = await loaded(write(tmp_path, text))
    assert sorted(collector.logged("WARN")) == [
        "TrisulPlugin.alertmonitor is no name known here: did you mean 'alert_monitor'?",
        "TrisulPlugin.onmesage is no name known here: did you mean 'onmessage'?",
    ]


async def test_an_error_in_a_group_function_is_logged_with_its_message(tmp_path: Path) -> None:
    text = plugin("alert_monitor = { alert_guid = function() error('no guid today') end, onnewalert = function() end }")
    engine, collector = await loaded(write(tmp_path, text, "guid.lua"))
    assert engine.stats.plugins == ()
    errors = collector.logged("ERROR")
    assert len(errors) == 1
    assert "alert_monitor.alert_guid" in errors[0]
    assert "no guid today" in errors[0]


async def test_unload_names_what_is_loaded_instead(tmp_path: Path) -> None:
    async with Engine([write(tmp_path, on_event(""), "here.lua")]) as engine:
        with pytest.raises(EngineError, match=r"gone\.lua: is not loaded, there are: here\.lua"):
            await engine.unload("gone.lua")
        await engine.unload("here.lua")
        with pytest.raises(EngineError, match="there are: none"):
            await engine.unload("here.lua")
    with pytest.raises(EngineClosedError):
        await engine.unload("here.lua")


def open_states() -> int:
    """How many Lua states live and were not closed."""
    gc.collect()
    return sum(isinstance(each, LuaState) and not each.closed for each in gc.get_objects())


def test_a_failure_half_way_leaves_no_state_behind(tmp_path: Path) -> None:
    """The inspection succeeds, then the chunk fails in the state of the second block."""
    marker = tmp_path / "runs"
    text = (
        f'local f = io.open("{marker}", "a"); f:write("x"); f:close()\n'
        f'if #io.open("{marker}"):read("*a") == 3 then error("third time") end\n'
    ) + plugin("event_monitor = { onevent = function() end }, filex_monitor = { filter = function() end }")
    script = read_script(write(tmp_path, text))
    settings = {"homenets": [], "config": {}, "queue_limit": 1}
    before = open_states()
    with pytest.raises(ScriptLoadError, match="third time"):
        load_script(script, lambda side: {"side": side, **settings}, lambda *_: None, Groups())
    assert marker.read_text() == "xxx"
    assert open_states() == before
