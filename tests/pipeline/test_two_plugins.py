"""A plugin that floods its queue, beside one that does not: the second is served as if it were alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine import Engine
from engine.offload import operations as operations_module
from engine.values.stats import AsyncStats
from tests.offload.rig import HeldOperations, Hold
from tests.scripts import Collector, assert_counts_close, on_event, write
from tests.support import eventually, no_threads_left

WORK = """
local function work(data)
  if data:sub(1, 1) == "/" then local f = io.open(data) f:read("*a") f:close() end
  return data
end
"""

# Tasks that hold every worker, then thousands behind them.
FLOOD_TASKS = """
for path in event:gmatch("[^,]+") do T.async:schedule{ data = path, onexecute = work, onresult = function() end } end
for i = 1, 10000 do T.async:schedule{ data = tostring(i), onexecute = work, onresult = function() end } end
"""
FLOOD_FILES = 'for i = 1, 10000 do T.async:copy("/from", event .. i) end'

OTHER = """
for i = 1, 50 do
  T.async:schedule{ data = tostring(i), onexecute = work, onresult = function(_, _, r) T.loginfo(r) end }
  T.async:copybuffer(i .. ",", event)
end
"""


@pytest.mark.parametrize("workers", [2, 16])
async def test_a_flood_is_no_concern_of_another_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    operations, operate = HeldOperations(), operations_module.operate
    monkeypatch.setattr(
        operations_module,
        "operate",
        lambda task, given_up: (operations if task.method == "copy" else operate)(task, given_up),
    )
    rest = f"request_async_workers = {workers}"
    tasks = write(tmp_path, on_event(FLOOD_TASKS, before=WORK, rest=rest, topics='"tasks"'), "tasks.lua")
    files = write(tmp_path, on_event(FLOOD_FILES, rest=rest, topics='"files"'), "files.lua")
    other = write(tmp_path, on_event(OTHER, before=WORK, topics='"other"'), "other.lua")
    holds = [Hold(tmp_path / f"hold{number}") for number in range(workers)]
    collector = Collector()

    with no_threads_left():
        async with asyncio.timeout(60), Engine([tasks, files, other], sinks=[collector]) as engine:

            def counts(name: str) -> AsyncStats:
                [found] = [each.tasks for each in engine.stats.plugins if each.script == name]
                return found

            await engine.emit("tasks", ",".join(str(each.path) for each in holds))
            await engine.emit("files", f"{tmp_path}/target")
            for each in holds:
                await each.entered()
            await eventually(lambda: len(operations.entered) == workers)
            for number in range(3):
                await engine.emit("other", f"{tmp_path}/out")
                await eventually(lambda: not counts("other.lua").pending)
                assert len(collector.logged()) == (number + 1) * 50
            assert counts("tasks.lua").completed == counts("files.lua").completed == 0
            assert len(operations.entered) == workers
            for each in holds:
                each.release()
            await eventually(lambda: not counts("tasks.lua").pending)
            operations.let_go_all()
    assert_counts_close(engine.stats)
    assert {each.tasks.completed for each in engine.stats.plugins} == {300, 10_000, 10_000 + workers}
    assert (tmp_path / "out").read_text() == "".join(f"{number}," for number in range(1, 51)) * 3
