"""Quick tasks cross in packs: what comes back, in which order, and how a slow one among them holds up nobody else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Config, Engine
from engine.offload.lane import Lane
from engine.offload.task import Task
from tests.pipeline.async_rig import MakeConfig
from tests.scripts import Collector, assert_counts_close, on_event, write
from tests.support import eventually, no_threads_left

# An event is a list of items, or how many tasks to make. Tasks answer with what they got, but for "nil" and "bad".
SCRIPT = """
local function work(data)
  if data:sub(1, 5) == "hold " then io.open(data:sub(6)):read("*a") end
  if data:sub(1, 3) == "bad" then error("no " .. data) end
  if data:sub(1, 3) == "nil" then return nil end
  return data
end
local order, failures = {}, 0
local function back(engine, data, answer)
  assert(data == answer)
  order[#order + 1] = data
end
local function failed(engine, data, message)
  assert(message:find("no " .. data, 1, true))
  failures = failures + 1
end
"""

HOOK = """
if topic == "run" then
  for item in event:gmatch("[^,]+") do
    T.async:schedule{ data = item, onexecute = work, onresult = back, onerror = failed }
  end
elseif topic == "many" then
  for i = 1, tonumber(event) do T.async:schedule{ data = tostring(i), onexecute = work, onresult = back } end
else
  T.loginfo(("%d %d %d"):format(#order, failures, T.async:pending_items()))
  T.logdebug(table.concat(order, ","))
  order = {}
end
"""


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Where in the order of the calls each pack begins, and its size, in the order in which they cross.

    Of those that go by the lane, how many tasks they are; they begin at 0.
    """
    crossed: list[tuple[int, int]] = []
    crossing, news = Task.crossing, Lane.news

    def note(task: Task) -> tuple[int, int, object, bytes, float]:
        if task.is_pack:
            crossed.append((task.first + task.skip, task.size))
        return crossing(task)

    def note_lane(lane: Lane) -> tuple[int, int]:
        told = news(lane)
        if told[0]:
            crossed.append((0, told[0]))
        return told

    monkeypatch.setattr(Task, "crossing", note)
    monkeypatch.setattr(Lane, "news", note_lane)
    return crossed


class Runner:
    """An engine with the script; its tasks are known to be quick."""

    def __init__(self, engine: Engine, collector: Collector) -> None:
        self.engine = engine
        self.collector = collector

    async def settled(self) -> None:
        await eventually(lambda: not self.engine.stats.tasks.pending)

    async def told(self) -> tuple[str, list[str]]:
        """How many results and failures came back and how many items are pending, and the results."""
        await self.engine.emit("tell", b"")
        return self.collector.logged()[-1], self.collector.logged("DEBUG")[-1].split(",")


@asynccontextmanager
async def running(tmp_path: Path, workers: int, config: Config) -> AsyncIterator[Runner]:
    collector = Collector()
    script = write(tmp_path, on_event(HOOK, before=SCRIPT, rest=f"request_async_workers = {workers}"))
    with no_threads_left():
        async with asyncio.timeout(60), Engine([script], config=config, sinks=[collector]) as engine:
            runner = Runner(engine, collector)
            for _ in range(3):  # until it is known how quick the tasks are
                await engine.emit("many", b"20")
                await runner.settled()
            await runner.told()
            yield runner
    assert_counts_close(engine.stats)


async def test_quick_tasks_cross_in_packs_and_come_back_in_order(
    config: MakeConfig, tmp_path: Path, packs: list[tuple[int, int]]
) -> None:
    async with running(tmp_path, 1, config()) as runner:
        for _ in range(50):  # a task that the machine holds up is not known to be quick for a while
            packs.clear()
            await runner.engine.emit("many", b"1000")
            await runner.settled()
            line, order = await runner.told()
            assert line == "1000 0 0"
            assert order == [str(number) for number in range(1, 1001)]
            if sum(size for _, size in packs) > 900:
                break
        assert sum(size for _, size in packs) > 900
        assert len(packs) < 100


@pytest.mark.parametrize("workers", [1, 2, 4])
async def test_failures_and_silence_in_a_pack(config: MakeConfig, tmp_path: Path, workers: int) -> None:
    items = [f"{('bad', 'nil', 'x', 'y')[number % 4]}{number}" for number in range(200)]
    async with running(tmp_path, workers, config()) as runner:
        before = runner.engine.stats.tasks
        await runner.engine.emit("run", ",".join(items))
        await runner.settled()
        after = runner.engine.stats.tasks
        line, order = await runner.told()
        errors = [each for each in runner.collector.logged("ERROR") if "onexecute" in each]
    assert line == "100 50 0"
    assert sorted(order) == sorted(item for item in items if item[0] in "xy")
    assert (after.completed - before.completed, after.failed - before.failed) == (150, 50)
    assert len(errors) == 50
    assert "script.lua:" in errors[0]


async def test_a_slow_task_in_a_pack_holds_up_no_other_that_an_idle_worker_can_take(
    config: MakeConfig, tmp_path: Path, packs: list[tuple[int, int]]
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    items = [str(number) for number in range(5_000)] + [f"hold {gate}"] + [str(number) for number in range(5_000)]
    async with running(tmp_path, 2, config()) as runner:
        before = runner.engine.stats.tasks.completed
        packs.clear()
        await runner.engine.emit("run", ",".join(items))
        await eventually(lambda: runner.engine.stats.tasks.completed - before == 10_000)
        assert runner.engine.stats.tasks.pending == 1
        gate.write_bytes(b"")
        await runner.settled()
        line, order = await runner.told()
    assert line == "10001 0 0"
    assert sorted(order) == sorted(items), "each ran once"
    assert packs == sorted(packs), "work starts in the order of the calls, the rest of a pack included"


async def test_nothing_waits_for_a_slow_task_that_is_the_last_of_its_pack(config: MakeConfig, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    items = [str(number) for number in range(1_000)]
    async with running(tmp_path, 2, config()) as runner:
        before = runner.engine.stats.tasks.completed
        await runner.engine.emit("run", ",".join([*items, f"hold {gate}"]))
        await runner.engine.emit("run", ",".join(items))
        await eventually(lambda: runner.engine.stats.tasks.completed - before == 2_000)
        gate.write_bytes(b"")
        await runner.settled()


async def test_results_before_a_slow_task_in_a_pack_come_at_once(config: MakeConfig, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with running(tmp_path, 1, config()) as runner:
        before = runner.engine.stats.tasks.completed
        await runner.engine.emit("run", ",".join([*"abc", f"hold {gate}", *"de"]))
        await eventually(lambda: runner.engine.stats.tasks.pending == 3)
        gate.write_bytes(b"")
        await runner.settled()
        _, order = await runner.told()
        assert runner.engine.stats.tasks.completed - before == 6
    assert order == ["a", "b", "c", f"hold {gate}", "d", "e"]


async def test_upvalues_of_a_task_are_its_own_in_a_pack_too(
    config: MakeConfig, tmp_path: Path, packs: list[tuple[int, int]]
) -> None:
    collector = Collector()
    hook = """
local base = tonumber(event)
for _ = 1, 50 do
  T.async:schedule{ onexecute = function() base = base + 1 return base end,
    onresult = function(_, _, answer) T.loginfo(answer) end }
end"""
    async with Engine([write(tmp_path, on_event(hook))], config=config(), sinks=[collector]) as engine:
        for _ in range(50):
            packs.clear()
            collector.records.clear()
            for base in (b"1", b"7"):
                await engine.emit("t", base)
                await eventually(lambda: not engine.stats.tasks.pending)
            assert collector.logged() == ["2"] * 50 + ["8"] * 50
            if len(packs) >= 2:
                break
        assert len(packs) >= 2


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(workers=st.integers(1, 3), sizes=st.lists(st.integers(1, 700), min_size=1, max_size=6), turns=st.integers(0, 40))
async def test_counts_close_wherever_the_engine_is_left(
    config: MakeConfig, tmp_path: Path, workers: int, sizes: list[int], turns: int
) -> None:
    async with running(tmp_path, workers, config(drain_seconds=0)) as runner:
        for size in sizes:
            await runner.engine.emit("many", str(size))
        for _ in range(turns):
            await asyncio.sleep(0)


async def test_results_of_packs_of_an_unloaded_plugin_are_counted_as_late(config: MakeConfig, tmp_path: Path) -> None:
    async with running(tmp_path, 1, config()) as runner:
        await runner.engine.emit("many", b"2000")
        settled = runner.engine.stats.tasks.completed
        await runner.engine.unload("script.lua")
        await eventually(lambda: not runner.engine.stats.tasks.pending)
        stats = runner.engine.stats.tasks
    assert stats.completed == 60 + 2000
    assert 0 < stats.late_results <= stats.completed - settled
