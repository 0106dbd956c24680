"""What a queue tells of its tasks and workers while they run, and afterwards; with both kinds of worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.values.stats import AsyncStats
from tests.offload.rig import ECHO, FAIL, WAIT, HeldOperations, Hold, Rig
from tests.support import eventually

MakeHold = Callable[[], Hold]


def closes(counts: AsyncStats) -> bool:
    ended = counts.completed + counts.failed + counts.rejected + counts.abandoned
    return counts.submitted == ended + counts.pending and counts.pending == counts.queued + counts.running


async def test_what_waits_and_what_runs(rig: Rig, hold: MakeHold) -> None:
    queue = rig.queue(workers=1)
    slow = hold()
    rig.lua(queue, WAIT, slow.data, timeout=600.0)  # alone, so that those behind it are not drawn with it
    await slow.entered()
    for _ in range(4):
        rig.lua(queue, ECHO, b"x")
    counts = queue.stats()
    assert closes(counts)
    assert (counts.queued, counts.running, counts.waits.count, counts.runs.count) == (4, 1, 1, 0)
    assert [each.state for each in counts.workers] == ["running"]
    slow.release()
    await rig.settled()
    counts = queue.stats()
    assert closes(counts)
    assert (counts.queued, counts.running, counts.waits.count, counts.runs.count) == (0, 0, 5, 5)


async def test_workers_and_their_memory(rig: Rig) -> None:
    queue = rig.queue(workers=1)
    rig.lua(queue, ECHO, b"x")
    await rig.settled()
    await eventually(lambda: queue.stats().workers[0].memory_bytes > 0)
    await eventually(lambda: queue.stats().workers[0].state == "idle")
    [worker] = queue.stats().workers
    assert (worker.kind, worker.states_built) == (rig.kind, 1)
    assert worker.tasks_run == 1
    assert 100_000 < worker.memory_bytes < 100_000_000


async def test_failed_tasks_have_run_too(rig: Rig) -> None:
    queue = rig.queue(workers=2)
    for _ in range(10):
        rig.lua(queue, FAIL, b"wrong")
    await rig.settled()
    counts = queue.stats()
    assert (counts.failed, counts.runs.count, counts.waits.count) == (10, 10, 10)
    assert 0 < counts.runs.seconds < 60
    assert counts.waits.percentile(50) <= counts.waits.percentile(100)


async def test_bytes_copied(rig: Rig, tmp_path: Path) -> None:
    queue = rig.queue()
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * 70_000)
    rig.operation(queue, "copy", source, target)
    rig.operation(queue, "cat", source, target)
    rig.operation(queue, "copybuffer", target=target, data=b"y" * 100)
    rig.operation(queue, "copy", tmp_path / "missing", target)
    await rig.settled()
    counts = queue.stats()
    assert counts.bytes_copied == 70_000 + 70_000 + 100
    assert target.stat().st_size == 140_100
    assert (counts.runs.count, counts.waits.count) == (4, 4)


async def test_given_up_tasks_neither_wait_nor_run(rig: Rig, operations: HeldOperations, tmp_path: Path) -> None:
    queue = rig.queue(workers=1)
    held = rig.operation(queue, "copy", "/from", tmp_path / "held")
    await eventually(lambda: operations.entered)
    for _ in range(3):
        rig.lua(queue, ECHO, b"x")
    queue.abandon()
    counts = queue.stats()
    assert closes(counts)
    assert (counts.abandoned, counts.queued, counts.running) == (4, 0, 0)
    operations.let_go(held)
