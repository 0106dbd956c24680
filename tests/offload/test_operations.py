"""Copies that are made with one call: what may start meanwhile, what becomes of those behind a slow one, the end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.offload import Outcome, Status, Task, TaskQueue, operations
from engine.offload.copier import MOST, Copier
from tests.offload.rig import ECHO, WAIT, HeldOperations, Hold, LoopWithLooks, Rig, closes, turns
from tests.offload.slow_source import MakeSlow, SlowSource
from tests.support import DEADLINE, eventually, eventually_in_thread

MakeHold = Callable[[], Hold]


@pytest.fixture
def worker_kind() -> str:
    """No worker makes copies with one call."""
    return "thread"


class _Taken(list[Callable[[], None]]):
    """Looks that are taken in the next turn of the loop."""

    def append(self, look: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(look)


class Copies:
    """A queue that makes many copies with one call, as those before were small; and which were made in which way."""

    def __init__(self, rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = rig
        self.folder = folder
        self.looks: list[Callable[[], None]] = []
        """Looks that the queue wants to take at its runs."""
        self.by_copier: list[Task] = []
        self.plainly: list[Task] = []
        self.counted: list[int] = []
        self.outcomes: list[Outcome] = []
        copy, operate = Copier.copy, operations.operate

        def noted_copy(copier: Copier, tasks: Any) -> list[int]:
            moved = copy(copier, tasks)
            self.by_copier += [task for task, count in zip(tasks, moved, strict=False) if count >= 0]
            return moved

        def noted_operate(task: Task, given_up: Any) -> str | None:
            self.plainly.append(task)
            return operate(task, given_up)

        monkeypatch.setattr(Copier, "copy", noted_copy)
        monkeypatch.setattr(operations, "operate", noted_operate)
        (folder / "source").write_bytes(b"quick")

    def hold_looks(self) -> None:
        """Have looks taken only when the test calls them."""
        loop: Any = LoopWithLooks(self.rig.gate.loop, lambda look, begun: self.looks.append(lambda: look(begun)))
        self.rig.gate.loop = loop

    def let_look(self) -> None:
        """Take those that were held, and others as soon as the queue wants them."""
        assert self.looks
        waiting = self.looks[:]
        self.looks = _Taken()
        for look in waiting:
            look()

    async def queue(self, workers: int) -> TaskQueue:
        """Counts and outcomes begin anew with it."""
        queue = self.rig.queue(workers, deliver=self.outcomes.extend, deliver_count=self.counted.append)
        for _ in range(3 * MOST):
            self.rig.operation(queue, "copy", self.folder / "source", self.folder / "warm")
        await self.rig.settled()
        await asyncio.gather(*self.rig.tasks)  # no run is left that could draw the first of the next alone
        self.by_copier.clear()
        self.plainly.clear()
        self.counted.clear()
        assert self.outcomes == []
        self._before = 3 * MOST
        return queue

    def submit(self, queue: TaskQueue, count: int = MOST, **sources: SlowSource) -> list[Task]:
        """Copies to t0, t1 and so on; `s2=source` is the source of the third."""
        chosen = {int(name[1:]): source.path for name, source in sources.items()}
        source = self.folder / "source"
        return [
            self.rig.operation(queue, "copy", chosen.get(number, source), self.folder / f"t{number}")
            for number in range(count)
        ]

    def there(self) -> list[int]:
        """Which copies are there."""
        return sorted(int(path.name[1:]) for path in self.folder.glob("t*") if path.name[1:].isdigit())

    def completed(self, queue: TaskQueue) -> int:
        """How many were completed since the beginning."""
        return queue.stats().completed - self._before


@pytest.fixture
def copies(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copies:
    return Copies(rig, tmp_path, monkeypatch)


# ---- order


@pytest.mark.parametrize("at", [0, 3, MOST - 2])
async def test_nothing_behind_starts_before_all_copies_have_begun(
    rig: Rig, copies: Copies, slow: MakeSlow, hold: MakeHold, at: int
) -> None:
    copies.hold_looks()
    queue, held, behind = await copies.queue(3), slow(), hold()
    tasks = copies.submit(queue, **{f"s{at}": held})
    rig.lua(queue, WAIT, behind.data)
    last = rig.operation(queue, "rm", target=copies.folder / "warm")
    await eventually(held.is_entered)
    rig.lua(queue, ECHO, b"later")
    await turns()
    assert not behind.runs()
    counts = queue.stats()
    assert (counts.queued, counts.running) == (3, MOST)
    assert last not in copies.plainly
    held.release()
    await behind.entered()
    assert copies.there() == list(range(MOST))
    behind.release()
    await rig.settled()
    assert copies.by_copier == tasks
    assert queue.stats().waits.count == 3 * MOST + MOST + 3


async def test_what_is_behind_starts_when_the_last_has_begun(
    rig: Rig, copies: Copies, slow: MakeSlow, hold: MakeHold
) -> None:
    copies.hold_looks()
    queue, held, behind = await copies.queue(2), slow(), hold()
    copies.submit(queue, **{f"s{MOST - 1}": held})
    rig.lua(queue, WAIT, behind.data)
    await eventually(held.is_entered)
    copies.let_look()
    await behind.entered()
    assert copies.there() == list(range(MOST - 1))
    behind.release()
    held.release()
    await rig.settled()


async def test_operations_between_copies_keep_their_place(rig: Rig, copies: Copies, tmp_path: Path) -> None:
    queue = await copies.queue(3)
    for number in range(200):
        rig.operation(queue, "copybuffer", target=tmp_path / "a", data=b"%d," % number)
        rig.operation(queue, "copy", tmp_path / "a", tmp_path / "b")
        rig.operation(queue, "copy", tmp_path / "b", tmp_path / f"t{number}")
        rig.operation(queue, "rm", target=tmp_path / "b")
    await rig.settled()
    expected = b""
    for number in range(200):
        expected += b"%d," % number
        assert (tmp_path / f"t{number}").read_bytes() == expected
    assert not (tmp_path / "b").exists()


# ---- a slow one


@pytest.mark.parametrize("at", [0, 1, 7, MOST - 1])
@pytest.mark.parametrize("workers", [2, 4])
async def test_another_run_does_what_is_behind_a_slow_copy(
    rig: Rig, copies: Copies, slow: MakeSlow, at: int, workers: int
) -> None:
    copies.hold_looks()
    queue, held = await copies.queue(workers), slow()
    tasks = copies.submit(queue, 2 * MOST, **{f"s{at}": held})
    echo = rig.lua(queue, ECHO, b"behind")
    await eventually(held.is_entered)
    copies.let_look()
    others = [number for number in range(2 * MOST) if number != at]
    await eventually(lambda: copies.there() == others)
    await eventually(lambda: [each.task for each in copies.outcomes] == [echo])
    assert held.is_entered()
    held.release()
    await rig.settled()
    assert copies.there() == list(range(2 * MOST))
    done = [*copies.by_copier, *copies.plainly]
    assert sorted(task.id for task in done) == [task.id for task in tasks]
    assert copies.by_copier[: at + 1] == tasks[: at + 1]
    counts = queue.stats()
    assert sum(copies.counted) == 2 * MOST
    assert (copies.completed(queue), counts.queued, counts.running) == (2 * MOST + 1, 0, 0)
    assert counts.waits.count == counts.runs.count == 3 * MOST + 2 * MOST + 1
    assert counts.bytes_copied == 5 * (3 * MOST + 2 * MOST) - 1  # the slow one has a byte less


async def test_with_one_worker_all_wait_for_the_slow_copy(rig: Rig, copies: Copies, slow: MakeSlow) -> None:
    copies.hold_looks()
    queue, held = await copies.queue(1), slow()
    tasks = copies.submit(queue, s4=held)
    rig.lua(queue, ECHO, b"behind")
    await eventually(held.is_entered)
    copies.let_look()
    await eventually(lambda: queue.stats().queued == MOST - 5 + 1)
    await turns()
    assert copies.there() == [0, 1, 2, 3]
    held.release()
    await rig.settled()
    assert sorted(task.id for task in [*copies.by_copier, *copies.plainly]) == [task.id for task in tasks]


async def test_a_source_that_is_slow_and_then_fails(rig: Rig, copies: Copies, slow: MakeSlow) -> None:
    copies.hold_looks()
    queue, held = await copies.queue(2), slow()
    tasks = copies.submit(queue, s1=held)
    await eventually(held.is_entered)
    copies.let_look()
    await eventually(lambda: copies.there() == [number for number in range(MOST) if number != 1])
    (copies.folder / "t1").mkdir()  # after it was looked at
    held.release()
    await rig.settled()
    [outcome] = copies.outcomes
    assert (outcome.task, outcome.status) == (tasks[1], Status.FAILED)
    assert outcome.value == (f"T.async:copy: {held.path} -> {copies.folder}/t1: {os.strerror(errno.EISDIR)}".encode())
    assert not list(copies.folder.glob(".*"))


# ---- paths


async def test_a_path_of_the_rest_is_in_use(rig: Rig, copies: Copies, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, other = await copies.queue(2), rig.queue(name="other")
    elsewhere, operate = HeldOperations(), operations.operate
    monkeypatch.setattr(
        operations, "operate", lambda task, up: (elsewhere if task.method == "rm" else operate)(task, up)
    )
    removing = rig.operation(other, "rm", target=copies.folder / "t5")
    await eventually(lambda: elsewhere.entered == [removing])
    copies.submit(queue, 8)
    await eventually(lambda: copies.there() == [0, 1, 2, 3, 4])
    await turns()
    assert queue.stats().queued == 3
    elsewhere.let_go(removing)
    await rig.settled()
    assert copies.there() == list(range(8))


async def test_what_is_not_begun_any_more_is_free_for_others(rig: Rig, copies: Copies, slow: MakeSlow) -> None:
    copies.hold_looks()
    queue, other = await copies.queue(1), [rig.queue(name=name) for name in ("begun", "behind", "at hand")]
    held = slow()
    copies.submit(queue, s1=held)
    await eventually(held.is_entered)
    (copies.folder / "t3").write_bytes(b"to remove")
    for each, name in zip(other, ("t0", "t3", "t1"), strict=True):
        rig.operation(each, "rm", target=copies.folder / name)
    await turns()
    assert copies.there() == [0, 3]
    copies.let_look()
    await eventually(lambda: [each.pending for each in other] == [0, 0, 1])
    assert copies.there() == []
    held.release()
    await rig.settled()
    assert copies.there() == [0, *range(2, MOST)] or copies.there() == list(range(2, MOST))


# ---- failures


async def test_one_that_fails_is_told_of_as_ever_and_the_others_are_done(
    rig: Rig, copies: Copies, tmp_path: Path
) -> None:
    queue = await copies.queue(1)
    tasks = copies.submit(queue, 4)
    tasks.append(rig.operation(queue, "copy", tmp_path / "missing", tmp_path / "t4"))
    tasks += [rig.operation(queue, "copy", tmp_path / "source", tmp_path / f"t{number}") for number in (5, 6)]
    await rig.settled()
    [outcome] = copies.outcomes
    assert (outcome.task, outcome.status) == (tasks[4], Status.FAILED)
    expected = f"T.async:copy: {tmp_path}/missing -> {tmp_path}/t4: {os.strerror(errno.ENOENT)}"
    assert outcome.value == expected.encode()
    assert copies.there() == [0, 1, 2, 3, 5, 6]
    assert copies.by_copier[:4] == tasks[:4]
    assert sum(copies.counted) == 6
    assert (queue.stats().failed, copies.completed(queue)) == (1, 6)


@pytest.mark.parametrize("lines", [b"return nil .. 1", b"error('not enough memory', 0)"])
async def test_a_copier_that_cannot_be_used(
    rig: Rig, copies: Copies, monkeypatch: pytest.MonkeyPatch, lines: bytes
) -> None:
    """In the middle of a chain, of which nothing may be done again."""

    def build(copier: Copier) -> None:
        whole(copier)
        assert copier._state is not None
        copier._state.execute(
            b"local find, calls = string.find, 0 string.find = function(...) calls = calls + 1 "
            b"if calls > 70 then " + lines + b" end return find(...) end"
        )

    whole = Copier._build
    monkeypatch.setattr(Copier, "_build", build)
    queue = rig.queue(1, deliver=copies.outcomes.extend, deliver_count=copies.counted.append)
    folder = copies.folder
    for name in "ab":
        (folder / name).write_bytes(name.encode())
    for _ in range(41):  # an odd number of times, the two are exchanged
        for source, target in ("ac", "ba", "cb"):
            rig.operation(queue, "copy", folder / source, folder / target)
    await rig.settled()
    assert [(folder / name).read_bytes() for name in "ab"] == [b"b", b"a"]
    assert copies.outcomes == []
    assert sum(copies.counted) == 3 * 41
    assert len(copies.by_copier) + len(copies.plainly) == 3 * 41


# ---- the end


async def test_given_up_while_a_copy_is_at_hand(rig: Rig, copies: Copies, slow: MakeSlow) -> None:
    copies.hold_looks()
    queue, held = await copies.queue(2), slow()
    copies.submit(queue, 2 * MOST, s2=held)
    rig.lua(queue, ECHO, b"behind")
    await eventually(held.is_entered)
    queue.abandon()
    counts = queue.stats()
    assert counts.abandoned == len(copies.outcomes) == 2 * MOST + 1
    assert (counts.pending, counts.queued, counts.running) == (0, 0, 0)
    held.release()
    await rig.gate.close()
    counts = rig.gate.stats()
    assert closes(counts)
    assert counts.late_results == 3  # those that were begun, and are there
    assert copies.there() == [0, 1, 2]
    assert copies.counted == []


async def test_given_up_when_the_rest_was_taken_back(rig: Rig, copies: Copies, slow: MakeSlow) -> None:
    copies.hold_looks()
    queue, held = await copies.queue(1), slow()
    copies.submit(queue, s2=held)
    await eventually(held.is_entered)
    copies.let_look()
    await eventually(lambda: queue.stats().queued == MOST - 3)
    queue.abandon()
    assert queue.stats().abandoned == len(copies.outcomes) == MOST
    held.release()
    await rig.gate.close()
    assert copies.there() == [0, 1, 2]


async def test_no_copies_begin_while_a_queue_is_given_up(rig: Rig, copies: Copies, slow: MakeSlow) -> None:
    """The run that has the copier comes back for more before the queue has told what is lost."""
    copies.hold_looks()
    queue, held = await copies.queue(1), slow()
    copies.submit(queue, 3 * MOST, s2=held)
    await eventually(held.is_entered)

    def go_on() -> None:
        held.release()
        eventually_in_thread(lambda: not queue.stats().queued)

    rig.gate.call_in_line(queue, go_on)
    queue.abandon()
    assert queue.stats().pending == 0
    await rig.gate.close()
    assert copies.there() == [0, 1, 2]
    assert closes(rig.gate.stats())
    assert len(copies.by_copier) == 3


async def test_what_is_submitted_to_a_queue_that_was_given_up(rig: Rig, copies: Copies) -> None:
    queue = await copies.queue(1)
    queue.abandon()
    copies.submit(queue)
    await rig.settled()
    assert copies.there() == []
    assert [each.status for each in copies.outcomes] == [Status.ABANDONED] * MOST


async def test_detached_while_a_copy_is_at_hand(rig: Rig, copies: Copies, slow: MakeSlow) -> None:
    copies.hold_looks()
    queue, held = await copies.queue(2), slow()
    tasks = []
    for number in range(MOST):
        source = held.path if number == 3 else copies.folder / "source"
        lease = number if number % 2 else 0
        tasks.append(rig.operation(queue, "copy", source, copies.folder / f"t{number}", lease=lease))
    await eventually(held.is_entered)
    settled: list[Outcome] = []
    copies.let_look()
    queue.detach(settled.extend)
    held.release()
    await rig.settled()
    assert copies.there() == list(range(MOST))
    assert {each.task for each in settled} == {task for task in tasks if task.lease}
    assert copies.completed(queue) == MOST
    assert (copies.outcomes, copies.counted) == ([], [])
    assert queue.stats().late_results == 0


@pytest.mark.parametrize("at", [None, 2])
async def test_each_lease_comes_home(rig: Rig, copies: Copies, slow: MakeSlow, at: int | None) -> None:
    if at is not None:
        copies.hold_looks()
    queue = await copies.queue(2)
    held = slow() if at is not None else None
    leases = {2, 3, 9, MOST + 4}
    for number in range(2 * MOST):
        source = held.path if held is not None and number == at else copies.folder / "source"
        lease = number if number in leases else 0
        rig.operation(queue, "copy", source, copies.folder / f"t{number}", lease=lease)
    if held is not None:
        await eventually(held.is_entered)
        copies.let_look()
        await eventually(lambda: len(copies.there()) == 2 * MOST - 1)
        held.release()
    await rig.settled()
    assert sorted(each.task.lease for each in copies.outcomes) == sorted(leases)
    assert {each.status for each in copies.outcomes} == {Status.DONE}
    assert sum(copies.counted) == 2 * MOST - len(leases)


async def test_closed_while_a_copy_is_stuck(
    rig: Rig, copies: Copies, slow: MakeSlow, caplog: pytest.LogCaptureFixture
) -> None:
    copies.hold_looks()
    queue, held = await copies.queue(2), slow()
    copies.submit(queue, s2=held)
    rig.operation(queue, "rm", target=copies.folder / "warm")
    await eventually(held.is_entered)
    copies.let_look()
    with caplog.at_level(logging.WARNING, "offpath.offload"):
        await rig.gate.close()
    assert [each.message for each in caplog.records] == ["queue: 1 thread(s) still run a task and are left behind"]
    assert closes(rig.gate.stats())
    assert rig.gate.stats().pending == 0
    held.release()
    [copier] = queue._operations.close()
    copier.join(DEADLINE)
    assert not (set(copies.there()) - set(range(MOST)))
