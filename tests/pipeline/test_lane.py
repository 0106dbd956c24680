"""Quick tasks go by the lane while they can, and nobody can tell by what comes of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Config, Engine
from engine.offload import TaskQueue
from engine.offload.task import Task
from tests.offload.rig import Hold
from tests.processes import nothing_left
from tests.scripts import Collector, assert_counts_close, on_event, write
from tests.support import eventually

# Of each task: a word of what it does, and more.
SCRIPT = """
local function work(data)
  local word, more = data:match("^(%a*) ?(.*)$")
  if word == "hold" then io.open(more):read("*a") end
  if word == "bad" then error("no " .. more, 0) end
  if word == "large" then return ("x"):rep(tonumber(more)) end
  if word == "note" then
    local path, text = more:match("^(%S+) (.*)$")
    local file = io.open(path, "ab")
    file:write(text)
    file:close()
  end
  return data
end
local order, failures = {}, 0
local function back(_, data, answer) order[#order + 1] = data:match("^large") and data .. "=" .. #answer or answer end
local function failed() failures = failures + 1 end
local function schedule(data, more)
  more = more or {}
  more.data, more.onexecute, more.onresult, more.onerror = data, more.onexecute or work, back, failed
  T.async:schedule(more)
end
"""

HOOK = """
if topic == "many" then
  for i = 1, tonumber(event) do schedule(tostring(i)) end
elseif topic == "new" then
  local helper = assert(loadstring("return function(d) return d .. '!' end"))()
  for _ = 1, 40 do schedule("a") end
  schedule("b", { onexecute = function(d) return helper(d) end })
  for _ = 1, 40 do schedule("c") end
elseif topic == "tell" then
  T.logdebug(table.concat(order, ","))
  T.loginfo(("%d %d %d"):format(#order, failures, T.async:pending_items()))
  order, failures = {}, 0
else
  for item in event:gmatch("[^,]+") do
    local path, text = item:match("^append (%S+) (.*)$")
    local limited = item:match("^limited (.*)$")
    if path then T.async:copybuffer(text, path)
    elseif limited then schedule(limited, { timeout = 60 })
    else schedule(item) end
  end
end
"""


class Runner:
    def __init__(self, engine: Engine, collector: Collector) -> None:
        self.engine = engine
        self.collector = collector
        queue = engine.plugins[0].queue
        assert queue is not None
        self.queue: TaskQueue = queue

    async def run(self, *items: str) -> None:
        await self.engine.emit("run", ",".join(items))

    async def settled(self) -> None:
        await eventually(lambda: not self.engine.stats.tasks.pending)

    async def told(self) -> tuple[str, list[str]]:
        """How many results and failures came back and how many items are pending, and the results."""
        await self.engine.emit("tell", b"")
        return self.collector.logged()[-1], self.collector.logged("DEBUG")[-1].split(",")

    async def ready(self) -> None:
        """Wait until tasks go by the lane, and a worker waits there."""
        while True:  # a task that the machine holds up is not known to be quick for a while
            before = self.posted
            await self.engine.emit("many", b"100")
            await self.settled()
            if self.posted > before and self.queue._lane.slot is not None:
                break
        await self.told()

    @property
    def posted(self) -> int:
        """Tasks that went by the lane."""
        lane = self.queue._lane._lane
        return 0 if lane is None else int(lane._memory.posted_tasks)


@asynccontextmanager
async def running(tmp_path: Path, workers: int, config: Config | None = None, rest: str = "") -> AsyncIterator[Runner]:
    collector = Collector()
    rest = f"request_async_workers = {workers}, {rest}"
    script = write(tmp_path, on_event(HOOK, before=SCRIPT, rest=rest))
    config = config or Config(slow_hook_seconds=3600.0)
    with nothing_left():
        async with asyncio.timeout(60), Engine([script], config=config, sinks=[collector]) as engine:
            assert engine.load_errors == ()
            yield Runner(engine, collector)
    assert_counts_close(engine.stats)


# ---- order


async def test_what_is_called_in_between_keeps_its_place(tmp_path: Path) -> None:
    log = tmp_path / "log"
    kinds = ["note", "append", "limited note"]
    items = [f"{kinds[(at % 20 == 19) + (at % 40 == 39)]} {log} {at};" for at in range(120)]
    async with running(tmp_path, 1) as runner:
        await runner.ready()
        before = runner.posted
        for _ in range(30):
            log.write_bytes(b"")
            await runner.run(*items)
            await runner.settled()
            assert [int(each) for each in log.read_text().split(";") if each] == list(range(120))
            _, results = await runner.told()
            assert results == [item.removeprefix("limited ") for item in items if not item.startswith("append")]
        assert runner.posted > before


async def test_nothing_behind_the_lane_is_drawn_before_it_is_taken_back(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    os.mkfifo(gate)
    async with running(tmp_path, 2) as runner:
        await runner.ready()
        queue = runner.queue
        log.write_bytes(b"")
        await runner.run(f"hold {gate}", *[f"note {log} a"] * 40)
        lane = queue._lane._lane
        assert lane is not None
        if lane.is_busy:  # a machine under load may have taken it back already
            queue.submit(Task(2**40, 0, "copybuffer", data=b"z", target=str(log)))
            with queue._lock:
                drawn = queue._draw(lua=False)
            assert drawn == []
        await eventually(lambda: queue.pending == 1)
        gate.write_bytes(b"")
        await runner.settled()
        assert sorted(log.read_bytes()) == sorted(b"a" * 40 + b"z" * log.read_bytes().count(b"z"))


async def test_a_new_function_as_upvalue_is_known_to_the_worker(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as runner:
        await runner.ready()
        for _ in range(5):
            await runner.engine.emit("new", b"")
            await runner.settled()
            line, order = await runner.told()
            assert line == "81 0 0"
            assert order == ["a"] * 40 + ["b!"] + ["c"] * 40


# ---- what is not as usual


async def test_a_slow_task_holds_up_no_other(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with running(tmp_path, 2) as runner:
        await runner.ready()
        for _ in range(5):
            await runner.run(*map(str, range(300)), f"hold {gate}", *map(str, range(300)))
            await eventually(lambda: runner.engine.stats.tasks.pending == 1)
            await runner.engine.emit("many", b"200")  # while it is still held
            await eventually(lambda: runner.engine.stats.tasks.pending == 1)
            stats = runner.engine.stats.tasks
            assert (stats.queued, stats.running) == (0, 1)
            gate.write_bytes(b"")
            await runner.settled()
            line, _ = await runner.told()
            assert line == "801 0 0"


async def test_results_that_the_lane_has_no_room_for_keep_their_place(tmp_path: Path) -> None:
    items = [f"large {200_000 if at % 7 == 3 else 3000}" if at % 3 == 0 else str(at) for at in range(200)]
    async with running(tmp_path, 1) as runner:
        await runner.ready()
        for _ in range(10):
            await runner.run(*items)
            await runner.settled()
            line, order = await runner.told()
            assert line == "200 0 0"
            assert order == [f"{item}={item.split()[1]}" if item.startswith("large") else item for item in items]


@pytest.mark.parametrize("workers", [1, 2])
async def test_failures_inside(tmp_path: Path, workers: int) -> None:
    items = [f"bad {at}" if at % 9 == 4 else str(at) for at in range(300)]
    good = [item for item in items if not item.startswith("bad")]
    async with running(tmp_path, workers) as runner:
        await runner.ready()
        before = runner.engine.stats.tasks
        for _ in range(5):
            await runner.run(*items)
            await runner.settled()
            line, order = await runner.told()
            assert line == f"{len(good)} {300 - len(good)} 0"
            assert order == good if workers == 1 else sorted(order) == sorted(good)
        after = runner.engine.stats.tasks
        assert after.failed - before.failed == 5 * (300 - len(good))


# ---- counts


async def test_counts_see_tasks_of_the_lane(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    reached: list[int] = []
    async with running(tmp_path, 1) as runner:
        await runner.ready()
        runner.engine.on_high_water(50, reached.append)
        before = runner.engine.stats.tasks
        await runner.run(f"hold {gate}", *map(str, range(60)))
        stats = runner.engine.stats.tasks
        assert stats.submitted - before.submitted == 61
        assert stats.pending == 61
        assert stats.queued + stats.running == 61
        await eventually(lambda: reached)
        assert reached == [61]
        gate.write_bytes(b"")
        await runner.engine.drained()
        stats = runner.engine.stats.tasks
        assert (stats.pending, stats.queued, stats.running) == (0, 0, 0)
        assert stats.waits.count - before.waits.count == 61
        assert stats.runs.count - before.runs.count == 61


@pytest.mark.parametrize("rest", ['async_isolation = "process"', "async_memory_mb = 64", "async_max_tasks = 100000"])
async def test_workers_with_a_limit_or_a_process_have_none(tmp_path: Path, rest: str) -> None:
    async with running(tmp_path, 1, rest=rest) as runner:
        for _ in range(5):
            await runner.engine.emit("many", b"100")
            await runner.settled()
        assert runner.queue._lane._lane is None


# ---- the end


@pytest.mark.parametrize("end", ["unload", "leave", "cancel"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(workers=st.integers(1, 2), sizes=st.lists(st.integers(16, 600), min_size=1, max_size=4), turns=st.integers(0, 9))
async def test_counts_close_however_it_ends(
    tmp_path: Path, end: str, workers: int, sizes: list[int], turns: int
) -> None:
    config = Config(slow_hook_seconds=3600.0, drain_seconds=20 if end == "unload" else 0)
    with suppress(asyncio.CancelledError):
        async with running(tmp_path, workers, config) as runner:
            await runner.ready()
            submitted = runner.engine.stats.tasks.submitted
            for size in sizes:
                await runner.engine.emit("many", str(size))
            for _ in range(turns):
                await asyncio.sleep(0)
            if end == "unload":
                await runner.engine.unload("script.lua")
                await runner.settled()
                assert runner.engine.stats.tasks.completed == submitted + sum(sizes)
            if end == "cancel":
                raise asyncio.CancelledError
    assert_counts_close(runner.engine.stats)
    assert runner.engine.stats.tasks.submitted == submitted + sum(sizes)


@pytest.mark.parametrize("workers", [1, 2])
async def test_abandoned_while_a_task_of_the_lane_is_slow(tmp_path: Path, workers: int) -> None:
    slow = Hold(tmp_path / "gate")
    async with running(tmp_path, workers, Config(slow_hook_seconds=3600.0, drain_seconds=0)) as runner:
        await runner.ready()
        before = runner.engine.stats.tasks
        await runner.run(*map(str, range(30)), f"hold {slow.path}", *map(str, range(30)))
        await slow.entered()
        await runner.engine.unload("script.lua")
        await eventually(lambda: not runner.engine.stats.tasks.pending)
        stats = runner.engine.stats.tasks
        assert stats.completed - before.completed + stats.abandoned == 61
        assert stats.abandoned > 0
        slow.release()
