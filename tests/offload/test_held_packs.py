"""Packs that a slow task holds up: what is taken from a worker was not begun by it, whatever it does in between."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import cast

import pytest

from engine.offload.held_packs import HeldPacks
from engine.offload.slot import Slot
from engine.offload.task import Task
from engine.offload.worker import Worker
from tests.support import eventually


@dataclass
class FakeWorker:
    """One that stands at a place of its pack, or between packs at -1."""

    at: int
    told: list[int] = field(default_factory=list)

    def place(self) -> int:
        return self.at

    def outcomes(self) -> tuple[int, bytes]:
        return 0, b""

    def end_pack_after(self, count: int) -> None:
        self.told.append(count)


class Rig:
    """A worker at a pack of ten, and what is taken from it."""

    def __init__(self, at: int) -> None:
        self.worker = FakeWorker(at)
        self.task = Task(1, 0, "pack", size=10)
        self.slot = Slot()
        self.slot.worker = cast(Worker, self.worker)
        self.slot.holding[1] = self.task
        self.rests: list[Task] = []
        self.begun: list[Task] = []
        self.looks = 0
        self.held = HeldPacks(
            asyncio.get_running_loop(),
            threading.Lock(),
            [self.slot],
            before_look=self._look,
            someone_is_idle=lambda: True,
            more_may_come=lambda: False,
            give=lambda _: None,
            put_back=self.rests.append,
            all_begun=self.begun.append,
        )

    def _look(self) -> bool:
        self.looks += 1
        return False

    async def looked(self, times: int) -> None:
        wanted = self.looks + times
        self.held.look_later()
        await eventually(lambda: self.looks >= wanted)

    def end(self) -> None:
        self.slot.holding.clear()


async def test_what_is_behind_a_slow_task_is_taken() -> None:
    rig = Rig(at=3)
    await rig.looked(2)
    await eventually(lambda: rig.rests)
    assert (rig.task.size, rig.rests[0].skip, rig.rests[0].size) == (4, 4, 6)
    assert set(map(id, rig.begun)) == {id(rig.task)}
    rig.end()


@pytest.mark.parametrize("later", [-1, 0, 2])
async def test_nothing_is_taken_from_one_that_left_its_pack(later: int) -> None:
    """It says itself what it has run: all that it began before, which its place does not show any more."""
    rig = Rig(at=later)
    rig.held._take_rest(rig.slot, cast(Worker, rig.worker), rig.task, 3)
    assert (rig.rests, rig.begun, rig.worker.told) == ([], [], [])
    assert rig.task.size == 10


async def test_nothing_waits_for_a_slow_task_that_is_the_last_of_its_pack() -> None:
    rig = Rig(at=9)
    await rig.looked(2)
    await eventually(lambda: rig.begun)
    assert rig.rests == []
    assert rig.worker.told == []
    rig.end()


async def test_one_that_has_not_begun_its_pack_is_left_alone() -> None:
    rig = Rig(at=-1)
    await rig.looked(4)
    rig.end()
    assert (rig.rests, rig.begun, rig.worker.told) == ([], [], [])
