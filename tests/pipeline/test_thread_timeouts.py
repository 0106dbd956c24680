"""Timeouts of threads, which nothing can end: what is stuck is counted and bounded, what is late is dropped.

Strict timeouts end what is Lua. A process has no need of either: it is killed.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from engine import Config, Engine
from tests.pipeline.async_rig import TOLD, Logged, task
from tests.scripts import Collector, assert_counts_close, on_event, write
from tests.support import WorkerKind, eventually, no_threads_left

SPIN = "local function spin() while true do pcall(function() while true do end end) end end spin()"

HOOK = """
T.async:schedule{ data = event, timeout = event == "stuck" and 0.05 or nil,
  onexecute = function(what) if what == "stuck" then io.open(gate):read("*a") end return what end,
  onresult = function(_, _, answer) T.loginfo("done " .. answer) end,
  onerror = function(_, what, message) T.loginfo("failed " .. what .. ": " .. message) end }
"""


@pytest.fixture
def worker_kind() -> WorkerKind:
    return "thread"


async def test_a_result_past_the_timeout_is_dropped_and_counted(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    collector = Collector()
    body = task(f"io.open('{gate}'):read('*a') return 'late'", more=f"timeout = 0.05, {TOLD}")
    async with Engine([write(tmp_path, on_event(body))], sinks=[collector]) as engine:
        await engine.emit("t", "go")
        await eventually(lambda: engine.stats.tasks.timed_out)
        gate.write_bytes(b"")
        await eventually(lambda: engine.stats.tasks.late_results == 1)
    assert collector.logged() == ["in!timeout"]
    assert_counts_close(engine.stats)


async def test_past_the_bound_tasks_fail_until_a_thread_ends(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    collector = Collector()
    script = write(tmp_path, on_event(HOOK, before=f'local gate = "{gate}"'))
    config = Config(stuck_threads=2)
    with no_threads_left():
        async with asyncio.timeout(40), Engine([script], config=config, sinks=[collector]) as engine:
            await engine.emit("t", "stuck")
            await eventually(lambda: engine.stats.tasks.failed == 1)
            await engine.emit("t", "quick")
            await eventually(lambda: engine.stats.tasks.completed == 1)
            await engine.emit("t", "stuck")
            await eventually(lambda: engine.stats.tasks.failed == 2)
            assert engine.stats.tasks.stuck_threads == 2
            await engine.emit("t", "refused")
            await eventually(lambda: engine.stats.tasks.failed == 3)
            gate.write_bytes(b"")
            await eventually(lambda: engine.stats.tasks.stuck_threads == 0)
            await engine.emit("t", "again")
            await eventually(lambda: engine.stats.tasks.completed == 2)
        assert collector.logged() == [
            "failed stuck: timeout",
            "done quick",
            "failed stuck: timeout",
            "failed refused: no worker is left: 2 threads are stuck in tasks past their timeout",
            "done again",
        ]
    assert_counts_close(engine.stats)
    assert engine.stats.tasks.timed_out == 2


# ---- strict timeouts


async def test_a_strict_timeout_ends_the_task_and_keeps_the_worker(logged: Logged) -> None:
    body = task(SPIN, more=f"timeout = 0.1, {TOLD}") + task("count = (count or 0) + 1 return count")
    rest = "async_strict_timeout = true, async_onload = function() count = 10 end"
    with no_threads_left():
        collector, stats = await logged(body, rest=rest)
    assert collector.logged() == ["in!timeout", "in>11"]
    counts = stats.tasks
    assert (counts.failed, counts.completed, counts.timed_out, counts.stuck_threads) == (1, 1, 1, 0)
    assert counts.late_results == 0
    assert "in function 'spin'" in collector.logged("ERROR")[0]


async def test_what_blocks_outside_of_lua_is_left_to_itself(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    collector = Collector()
    body = task(f"return io.open('{gate}'):read('*a')", more=f"timeout = 0.1, {TOLD}") + task("return 'next'")
    script = write(tmp_path, on_event(body, rest="async_strict_timeout = true"))
    with no_threads_left():
        async with Engine([script], sinks=[collector]) as engine:
            await engine.emit("t", "go")
            await eventually(lambda: len(collector.logged()) == 2)
            assert collector.logged() == ["in!timeout", "in>next"]
            assert engine.stats.tasks.stuck_threads == 1
            gate.write_bytes(b"")
