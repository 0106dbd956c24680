"""TaskQueue with workers of both kinds: order, concurrency, paths, timeouts, failures, the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.offload import Outcome, Status, operations
from engine.offload.files import GIVEN_UP
from tests.offload.rig import APPEND, ECHO, FAIL, NOTHING, ODD, WAIT, HeldOperations, Hold, Rig, closes, contents, turns
from tests.support import eventually, eventually_in_thread

MakeHold = Callable[[], Hold]


# ---- outcomes


async def test_what_tasks_come_to(rig: Rig, tmp_path: Path) -> None:
    queue = rig.queue()
    echo, fail, nothing, odd = (rig.lua(queue, code, b"x") for code in (ECHO, FAIL, NOTHING, ODD))
    missing = rig.operation(queue, "copy", tmp_path / "absent", tmp_path / "target")
    await rig.settled()
    assert rig.outcome(echo)[1:3] == (Status.RESULT, b"x")
    assert rig.outcome(fail)[1:3] == (Status.FAILED, b"x")
    assert rig.outcome(nothing)[1:3] == (Status.DONE, None)
    assert rig.outcome(odd)[1:3] == (Status.DONE, None)
    assert rig.outcome(missing).status is Status.FAILED
    assert b"No such file" in (rig.outcome(missing).value or b"")
    assert [level for level, _ in rig.logged] == [7, 5]
    counts = queue.stats()
    assert (counts.submitted, counts.completed, counts.failed, counts.pending) == (5, 3, 2, 0)
    assert queue.settled == 5


async def test_rejected_tasks_count_as_submitted(rig: Rig) -> None:
    queue = rig.queue()
    queue.reject(3)
    assert (queue.stats().submitted, queue.stats().rejected, queue.pending) == (3, 3, 0)


# ---- order and concurrency


@pytest.mark.parametrize("seed", range(4))
async def test_one_worker_keeps_the_order_of_everything(rig: Rig, tmp_path: Path, seed: int) -> None:
    chance, queue, model = random.Random(seed), rig.queue(), {}
    names = ["a", "b", "c"]
    for step in range(120):
        kind, name, other = chance.choice(["lua", "lua", "copy", "cat", "rm", "buffer"]), *chance.sample(names, 2)
        path, text = tmp_path / name, f"{step},".encode()
        if kind == "lua":
            rig.lua(queue, APPEND, bytes(path) + b"|" + text)
            model[name] = model.get(name, b"") + text
        elif kind == "buffer":
            rig.operation(queue, "copybuffer", target=path, data=text)
            model[name] = model.get(name, b"") + text
        elif kind == "rm":
            rig.operation(queue, "rm", target=path)
            model.pop(name, None)
        else:
            rig.operation(queue, kind, path, tmp_path / other)
            if name in model:
                model[other] = (model.get(other, b"") if kind == "cat" else b"") + model[name]
    await rig.settled()
    assert rig.ids() == list(range(1, 121))
    assert contents(tmp_path) == model


@pytest.mark.parametrize("workers", [1, 3])
async def test_at_most_so_many_run_at_once_and_they_start_in_order(rig: Rig, hold: MakeHold, workers: int) -> None:
    queue, holds = rig.queue(workers), [hold() for _ in range(6)]
    for each in holds:
        rig.lua(queue, WAIT, each.data)
    for first in range(len(holds)):
        running, waiting = holds[first : first + workers], holds[first + workers :]
        for each in running:
            await each.entered()
        await turns()
        assert not any(each.runs() for each in waiting)
        holds[first].release()
    await rig.settled()
    assert queue.stats().completed == 6


async def test_two_queues_with_ten_thousand_tasks(rig: Rig) -> None:
    queues = [rig.queue(), rig.queue(workers=2)]
    for n in range(5000):
        for queue in queues:
            rig.lua(queue, ECHO, b"%d" % n)
    await rig.settled()
    assert sorted(rig.ids()) == list(range(1, 10_001))
    assert [outcome.value for outcome in rig.delivered if outcome.value != outcome.task.data] == []
    assert [queue.stats().completed for queue in queues] == [5000, 5000]


async def test_a_slow_task_does_not_hold_up_those_behind_it_with_two_workers(rig: Rig, hold: MakeHold) -> None:
    queue, slow = rig.queue(2), hold()
    rig.lua(queue, WAIT, slow.data)
    quick = [rig.lua(queue, ECHO, b"q") for _ in range(50)]
    await eventually(lambda: len(rig.delivered) == 50)
    assert rig.ids() == [task.id for task in quick]
    await slow.entered()
    slow.release()
    await rig.settled()


# ---- timeouts


async def test_a_timeout_fails_the_task_at_once_and_the_queue_goes_on(rig: Rig, hold: MakeHold) -> None:
    queue, slow = rig.queue(), hold()
    late = rig.lua(queue, WAIT, slow.data, timeout=0.05)
    after = [rig.lua(queue, ECHO, b"on") for _ in range(3)]
    await slow.entered()
    await rig.settled()
    assert rig.outcome(late)[1:3] == (Status.FAILED, b"timeout")
    assert rig.ids() == [late.id, *(task.id for task in after)]
    counts = queue.stats()
    assert (counts.failed, counts.timed_out, counts.completed, counts.late_results) == (1, 1, 3, 0)
    slow.release()
    await eventually(lambda: queue.stats().stuck_threads == 0)
    assert len(rig.delivered) == 4


async def test_a_task_in_time_is_not_timed_out(rig: Rig) -> None:
    queue = rig.queue()
    for _ in range(5):
        rig.lua(queue, ECHO, b"quick", timeout=0.2)
    last = rig.lua(queue, FAIL, b"own failure", timeout=60)
    await rig.settled()
    assert queue.stats().timed_out == 0
    assert rig.outcome(last).value == b"own failure"


# ---- failures of workers


async def test_a_worker_that_cannot_be_built_fails_its_tasks(rig: Rig) -> None:
    queue = rig.queue(settings={"what no worker": object()})
    for _ in range(600):
        rig.lua(queue, ECHO)
    await rig.settled()
    assert queue.stats().failed == 600


# ---- the end


async def test_abandon_gives_up_what_runs_and_what_waits(rig: Rig, hold: MakeHold, tmp_path: Path) -> None:
    queue, slow = rig.queue(2), hold()
    running = rig.lua(queue, WAIT, slow.data)
    await slow.entered()
    waiting = [rig.lua(queue, ECHO, b"w") for _ in range(20)]
    queue.abandon()
    statuses = {rig.outcome(task).status for task in (running, *waiting)}
    assert statuses == {Status.ABANDONED}
    assert (queue.pending, queue.stats().abandoned) == (0, 21)
    slow.release()
    await eventually(lambda: queue.stats().stuck_threads == 0)
    queue.abandon()
    assert queue.stats().abandoned == 21
    assert closes(queue.stats())


async def test_abandon_gives_up_operations(rig: Rig, operations: HeldOperations) -> None:
    queue = rig.queue()
    running, waiting = rig.operation(queue, "rm", target="/a"), rig.operation(queue, "rm", target="/b")
    await eventually(lambda: operations.entered == [running])
    queue.abandon()
    assert [each.status for each in rig.delivered] == [Status.ABANDONED] * 2
    operations.let_go(running, waiting)
    await eventually(lambda: queue.stats().late_results == 1)
    assert operations.entered == [running]


async def test_an_operation_that_was_given_up_counts_as_abandoned_whoever_is_first_to_say_so(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = rig.queue()
    monkeypatch.setattr(operations, "operate", lambda task, _given_up: GIVEN_UP)
    given_up = rig.operation(queue, "rm", target="/nowhere")
    await rig.settled()
    assert rig.outcome(given_up).status is Status.ABANDONED
    assert (queue.stats().abandoned, queue.stats().failed) == (1, 0)


async def test_what_callbacks_submit_while_a_queue_is_abandoned_is_abandoned_too(rig: Rig) -> None:
    again: list[Outcome] = []

    def deliver(outcomes: list[Outcome]) -> None:
        rig.delivered.extend(outcomes)
        for outcome in outcomes:
            if outcome.status is Status.RESULT:
                again.append(outcome)
                rig.lua(queue, ECHO, b"more")

    queue = rig.queue(deliver=deliver)
    rig.lua(queue, ECHO, b"x")
    queue.pump()
    eventually_in_thread(lambda: rig.gate._given)  # the loop does not turn: what is given waits in the line
    queue.abandon()
    assert len(again) == 1
    assert queue.pending == 0
    assert (queue.stats().completed, queue.stats().abandoned) == (1, 1)


async def test_a_run_of_operations_that_begins_too_late_does_nothing(rig: Rig) -> None:
    queue = rig.queue()
    lost = rig.operation(queue, "rm", target="/nowhere")
    queue.pump()  # the run is a coroutine that has not begun
    queue.abandon()
    rig.gate.file_threads.shutdown()
    await asyncio.gather(*rig.tasks)
    assert rig.outcome(lost).status is Status.ABANDONED
    assert (queue._running, queue._starting) == (0, 0)


async def test_detach_drops_results_and_counts_them(rig: Rig, hold: MakeHold) -> None:
    queue, slow = rig.queue(), hold()
    rig.lua(queue, WAIT, slow.data)
    await slow.entered()
    rig.lua(queue, ECHO, b"x")
    rig.lua(queue, NOTHING)
    rig.lua(queue, FAIL, b"x")
    told: list[Any] = []
    queue.detach(told.extend)
    slow.release()
    await rig.settled()
    assert rig.delivered == []
    assert len(told) == 4
    assert (queue.stats().completed, queue.stats().failed, queue.stats().late_results) == (3, 1, 2)
