"""TaskQueue and file operations: what waits for what, and that operations on one path neither overlap nor overtake."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.offload import Status, operations
from tests.offload.rig import ECHO, WAIT, HeldOperations, Hold, LoopWithLooks, Rig, contents, turns
from tests.support import eventually

MakeHold = Callable[[], Hold]


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("seed", range(3))
async def test_operations_on_a_path_keep_their_order_with_many_workers(
    rig: Rig, tmp_path: Path, seed: int, workers: int
) -> None:
    chance, queue, model = random.Random(seed), rig.queue(workers), {}
    for step in range(150):
        kind, name, other = chance.choice(["copy", "cat", "rm", "buffer", "buffer"]), *chance.sample("abcd", 2)
        path, text = tmp_path / name, f"{step},".encode()
        if kind == "buffer":
            rig.operation(queue, "copybuffer", target=path, data=text)
            model[name] = model.get(name, b"") + text
        elif kind == "rm":
            rig.operation(queue, "rm", target=path)
            model.pop(name, None)
        else:
            rig.operation(queue, kind, path, tmp_path / other)
            if name in model:
                model[other] = (model.get(other, b"") if kind == "cat" else b"") + model[name]
        if chance.random() < 0.2:
            rig.lua(queue, ECHO, b"between")
    await rig.settled()
    assert contents(tmp_path) == model


async def test_an_operation_waits_for_the_lua_task_before_it_with_one_worker(
    rig: Rig, hold: MakeHold, operations: HeldOperations
) -> None:
    queue, slow = rig.queue(), hold()
    rig.lua(queue, WAIT, slow.data)
    behind = rig.operation(queue, "rm", target="/a")
    await slow.entered()
    await turns()
    assert operations.entered == []
    slow.release()
    await eventually(lambda: operations.entered == [behind])
    operations.let_go(behind)
    await rig.settled()


async def test_a_lua_task_waits_for_the_operation_before_it_with_one_worker(
    rig: Rig, hold: MakeHold, operations: HeldOperations
) -> None:
    queue, slow = rig.queue(), hold()
    first = rig.operation(queue, "rm", target="/a")
    rig.lua(queue, WAIT, slow.data)
    await eventually(lambda: operations.entered == [first])
    await turns()
    assert not slow.runs()
    operations.let_go(first)
    await slow.entered()
    slow.release()
    await rig.settled()


async def test_an_operation_passes_a_running_lua_task_with_two_workers(
    rig: Rig, hold: MakeHold, operations: HeldOperations
) -> None:
    queue, slow = rig.queue(2), hold()
    rig.lua(queue, WAIT, slow.data)
    behind = rig.operation(queue, "rm", target="/a")
    await slow.entered()
    await eventually(lambda: operations.entered == [behind])
    operations.let_go(behind)
    await eventually(lambda: rig.ids() == [behind.id])
    slow.release()
    await rig.settled()


# ---- paths


async def test_operations_on_one_path_never_overlap_nor_overtake(rig: Rig, operations: HeldOperations) -> None:
    queue = rig.queue(4)
    first = rig.operation(queue, "cat", "/s1", "/t")
    second = rig.operation(queue, "copy", "/s2", "/t")
    third = rig.operation(queue, "rm", target="/elsewhere")  # behind a head that waits
    await eventually(lambda: operations.entered == [first])
    await turns()
    assert operations.entered == [first]
    operations.let_go(first)
    await eventually(lambda: len(operations.entered) == 3)
    assert operations.left == [first]
    assert operations.entered[1] is second
    operations.let_go(second, third)
    await rig.settled()


async def test_appends_to_one_file_are_done_as_one_run(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    whole = operations.operate_run
    monkeypatch.setattr(operations, "operate_run", lambda run, up: runs.append(len(run)) or whole(run, up))
    queue = rig.queue()
    for number in range(600):
        rig.operation(queue, "copybuffer", target=str(tmp_path / "t"), data=b"%03d\n" % number)
    await rig.settled()
    assert (tmp_path / "t").read_bytes() == b"".join(b"%03d\n" % number for number in range(600))
    assert runs == [256, 256, 88]
    assert queue.stats().completed == 600


async def test_one_run_does_operations_until_it_turns_out_to_be_slow(
    rig: Rig, operations: HeldOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Callable[[], None]] = []
    monkeypatch.setattr(
        rig.gate, "loop", LoopWithLooks(rig.gate.loop, lambda look, drawn: looks.append(lambda: look(drawn)))
    )
    queue = rig.queue(3)
    tasks = [rig.operation(queue, "rm", target=f"/{number}") for number in range(12)]
    await eventually(lambda: operations.entered == tasks[:1])
    await turns()
    assert operations.entered == tasks[:1]
    operations.let_go(*tasks[:9])
    await eventually(lambda: operations.entered == tasks[:10])
    looks.pop()()  # quick so far
    await turns()
    assert operations.entered == tasks[:10]
    looks.pop()()
    await eventually(lambda: operations.entered == tasks[:11])
    looks.pop()()
    await eventually(lambda: operations.entered == tasks[:12])
    assert looks == []
    operations.let_go(*tasks[9:])
    await rig.settled()


async def test_readers_of_one_path_run_together(rig: Rig, operations: HeldOperations) -> None:
    queue = rig.queue(4)
    readers = [rig.operation(queue, "copy", "/s", f"/t{n}") for n in range(3)]
    writer = rig.operation(queue, "rm", target="/s")
    await eventually(lambda: len(operations.entered) == 3)
    await turns()
    assert operations.entered == readers
    operations.let_go(*readers, writer)
    await rig.settled()
    assert operations.left[-1] is writer


async def test_queues_share_the_paths_but_not_their_waiting(rig: Rig, operations: HeldOperations) -> None:
    one, two = rig.queue(name="one"), rig.queue(name="two")
    first = rig.operation(one, "rm", target="/t")
    await eventually(lambda: operations.entered == [first])
    same = rig.operation(two, "rm", target="/t")
    free = rig.operation(one, "rm", target="/free")
    await turns()
    assert operations.entered == [first]
    operations.let_go(first)
    await eventually(lambda: len(operations.entered) == 3)
    operations.let_go(same, free)
    await rig.settled()
    assert (one.stats().completed, two.stats().completed) == (2, 1)


async def test_a_path_that_no_file_can_have_fails_and_the_queue_goes_on(rig: Rig) -> None:
    queue = rig.queue()
    bad = rig.operation(queue, "rm", target="/a\0b/c")
    after = rig.lua(queue, ECHO, b"on")
    await rig.settled()
    assert rig.outcome(bad).status is Status.FAILED
    assert rig.outcome(after).status is Status.RESULT
