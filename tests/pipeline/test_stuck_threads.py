"""Threads stuck in tasks past their timeout are bounded: past the bound tasks fail and say why."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from engine import Config, Engine
from tests.scripts import Collector, assert_counts_close, on_event, write
from tests.support import eventually, no_threads_left

HOOK = """
T.async:schedule{ data = event, timeout = event == "stuck" and 0.05 or nil,
  onexecute = function(what) if what == "stuck" then io.open(gate):read("*a") end return what end,
  onresult = function(_, _, answer) T.loginfo("done " .. answer) end,
  onerror = function(_, what, message) T.loginfo("failed " .. what .. ": " .. message) end }
"""


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
