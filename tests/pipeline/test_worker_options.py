"""What a script says about its workers, from TrisulPlugin to what its tasks come to: async_onload and the limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine import Engine
from tests.pipeline.async_rig import TOLD, Logged, MakeConfig, task, times
from tests.scripts import Collector, assert_counts_close, on_event, write
from tests.support import eventually, no_threads_left

MIB = 1 << 20

HOG = "local t = {} for i = 1, 1e9 do t[i] = (d):rep(100) .. i end"


# ---- async_onload, async_onunload


async def test_a_handle_that_async_onload_opens_is_there_for_tasks(logged: Logged, tmp_path: Path) -> None:
    before = "local file = ...  local names = {}"
    rest = (
        f'onload = function() file = "{tmp_path}/opened" names[1] = "by onload" end, '
        "async_onload = function() handle, T.name = assert(io.open(file, 'ab')), names[1] end, "
        "async_onunload = function() handle:write('end') handle:close() end"
    )
    body = times(3, task("handle:write(d) return T.name", data="x"))
    with no_threads_left():
        collector, stats = await logged(body, rest=rest, before=before)
    assert collector.logged() == ["x>by onload"] * 3
    assert collector.logged("ERROR") == []
    assert (tmp_path / "opened").read_bytes() == b"xxxend"
    assert stats.tasks.completed == 3


async def test_each_worker_has_its_own(logged: Logged, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "meeting")
    path = f'"{tmp_path}/states"'
    append = "local f = io.open({}, 'ab') f:write('{}') f:close()"
    rest = (
        f"request_async_workers = 2, async_onload = function() {append.format(path, '+')} mine = 0 end, "
        f"async_onunload = function() {append.format(path, '-')} end"
    )
    meet = f"mine = mine + 1 io.open('{tmp_path}/meeting', d):close() return mine"  # waits for the other
    collector, _ = await logged("".join(task(meet, "T.loginfo(r)", data=each) for each in "rw"), rest=rest)
    assert collector.logged() == ["1", "1"]
    assert sorted((tmp_path / "states").read_text()) == ["+", "+", "-", "-"]


async def test_without_tasks_nothing_is_prepared(logged: Logged) -> None:
    collector, _ = await logged("", rest="async_onload = function() T.loginfo('no') end")
    assert collector.logged() == []


async def test_unloading_a_plugin_unloads_its_workers(config: MakeConfig, tmp_path: Path) -> None:
    collector = Collector()
    script = write(tmp_path, on_event(task("return 'r'"), rest="async_onunload = function() T.loginfo('gone') end"))
    async with Engine([script], config=config(), sinks=[collector]) as engine:
        await engine.emit("t", "go")
        await eventually(lambda: collector.logged() == ["in>r"])
        await engine.unload("script.lua")
        await eventually(lambda: collector.logged() == ["in>r", "gone"])


async def test_an_async_onload_that_raises_fails_the_tasks_and_is_not_repeated_at_once(logged: Logged) -> None:
    rest = "async_onload = function()\nerror('no server')\nend"
    with no_threads_left():
        collector, stats = await logged(times(300, task("return 'r'", more=TOLD)), rest=rest)
    lines = collector.logged()
    assert len(lines) == 300
    assert all(line.endswith("no server") and "async_onload: work.lua:" in line for line in lines)
    errors = [line for line in collector.logged("ERROR") if line.startswith("async_onload: ")]
    assert 1 <= len(errors) <= 10
    assert errors[0].startswith("async_onload: work.lua:")
    assert "no server\nstack traceback:\n" in errors[0]
    assert (stats.tasks.failed, stats.tasks.completed) == (300, 0)


async def test_an_async_onload_that_is_no_lua_function_is_said(logged: Logged) -> None:
    collector, _ = await logged(task("return 'r'"), rest="async_onload = print")
    assert collector.logged() == ["in>r"]
    [error] = collector.logged("ERROR")
    assert "async_onload must be a Lua function, not a C function" in error


async def test_what_async_onunload_raises_is_logged(logged: Logged) -> None:
    collector, stats = await logged(task("return 'r'"), rest="async_onunload = function() error('stuck') end")
    assert collector.logged() == ["in>r"]
    [error] = collector.logged("ERROR")
    assert error.startswith("async_onunload: work.lua:")
    assert stats.tasks.completed == 1


# ---- limits


@pytest.mark.parametrize("fields", [{}, {"worker_tasks": 100}])
async def test_a_state_for_each_task(config: MakeConfig, tmp_path: Path, fields: dict[str, int]) -> None:
    rest = "async_max_tasks = 1, async_onunload = function() T.logwarning('dropped') end"
    collector = Collector()
    script = write(tmp_path, on_event(task("seen = (seen or 0) + 1 return seen"), rest=rest), "one.lua")
    async with Engine([script], config=config(**fields), sinks=[collector]) as engine:
        for number in range(3):
            await engine.emit("t", "go")
            await eventually(lambda: len(collector.logged()) == number + 1)  # noqa: B023
    assert collector.logged() == ["in>1"] * 3
    assert collector.logged("WARN") == ["dropped"] * 3


async def test_states_are_dropped_while_many_tasks_wait(logged: Logged) -> None:
    body = times(2000, task("seen = (seen or 0) + 1 return seen", "T.loginfo(r)"))
    collector, stats = await logged(body, worker_tasks=300)
    seen = [int(line) for line in collector.logged()]
    assert len(seen) == 2000
    assert 1 < seen.count(1) <= 7
    assert max(seen) < 600
    assert stats.tasks.completed == 2000


@pytest.mark.parametrize(("rest", "fields"), [("async_memory_mb = 16", {}), ("", {"worker_memory_mb": 16})])
async def test_a_task_that_takes_too_much_fails_alone(
    config: MakeConfig, tmp_path: Path, rest: str, fields: dict[str, int]
) -> None:
    collector = Collector()
    kinds = {"hog": HOG, "calm": "return 'well'"}
    choices = [f'if event == "{kind}" then {task(code, data=kind, more=TOLD)} end' for kind, code in kinds.items()]
    script = write(tmp_path, on_event(" ".join(choices), rest=rest))
    with no_threads_left():
        async with Engine([script], config=config(**fields), sinks=[collector]) as engine:
            for at, kind in enumerate(["calm", "hog", "calm", "hog", "calm"]):
                await engine.emit("t", kind)
                await eventually(lambda: len(collector.logged()) == at + 1)  # noqa: B023
    out = "hog!out of memory: the worker's limit is 16 MiB"
    assert collector.logged() == ["calm>well", out, "calm>well", out, "calm>well"]
    assert_counts_close(engine.stats)
    assert (engine.stats.tasks.completed, engine.stats.tasks.failed) == (3, 2)
