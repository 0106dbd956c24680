"""What a service can feel of a full queue: waiting until it is drained, and a call at a high-water mark."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from engine import ConfigError, Engine, EngineError
from tests.scripts import on_event, write
from tests.support import eventually

HOLD = """
for _ = 1, tonumber(event) do
  T.async:schedule{ data = gate, onexecute = function(path) return io.open(path):read("*a") end }
end
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A FIFO that holds each task that reads it, until it is written."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def held(tmp_path: Path, gate: Path) -> Path:
    return write(tmp_path, on_event(HOLD, before=f'local gate = "{gate}"'))


async def let_one_go(engine: Engine, gate: Path) -> None:
    """Open the gate once a task is there, and wait until one was settled."""
    before = engine.stats.tasks.completed
    while engine.stats.tasks.completed == before:
        try:
            os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # no reader yet
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)


async def test_drained_waits_until_few_enough_are_left(tmp_path: Path, gate: Path) -> None:
    async with asyncio.timeout(30), Engine([held(tmp_path, gate)]) as engine:
        await engine.drained()
        await engine.emit("t", b"3")
        waiting = asyncio.create_task(engine.drained(below=2))
        await let_one_go(engine, gate)
        assert not waiting.done() or engine.stats.tasks.pending < 2
        while engine.stats.tasks.pending >= 2:
            await let_one_go(engine, gate)
        await waiting
        while engine.stats.tasks.pending:
            await let_one_go(engine, gate)
        await engine.drained()
    with pytest.raises(EngineError):
        await engine.drained()


async def test_a_high_water_mark_is_told_once_until_it_was_left(tmp_path: Path, gate: Path) -> None:
    told: list[int] = []
    async with asyncio.timeout(30), Engine([held(tmp_path, gate)]) as engine:
        engine.on_high_water(4, told.append)
        await engine.emit("t", b"3")
        await asyncio.sleep(0)
        assert told == []
        await engine.emit("t", b"2")
        await eventually(lambda: told == [5])
        await let_one_go(engine, gate)
        await engine.emit("t", b"1")
        await asyncio.sleep(0)
        assert told == [5], "it was not left in between"
        while engine.stats.tasks.pending > 2:
            await let_one_go(engine, gate)
        await engine.emit("t", b"9")
        await eventually(lambda: len(told) == 2)
        while engine.stats.tasks.pending:
            await let_one_go(engine, gate)
    assert told[1] >= 4


async def test_a_mark_below_one_is_refused(tmp_path: Path, gate: Path) -> None:
    async with Engine() as engine:
        with pytest.raises(ConfigError, match="at least 1"):
            engine.on_high_water(0, print)
