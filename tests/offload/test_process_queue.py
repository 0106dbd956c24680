"""Worker processes under a queue and its gate: crashes, kills and loops that end at once, as no thread can."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.offload import Status, TaskQueue, process_spawn
from tests.offload.process_rig import PID, SPIN
from tests.offload.rig import ECHO, Rig
from tests.offload.rig import SPIN as FOREVER
from tests.offload.worker_rig import code_of
from tests.processes import alive, children, kill, pid_in
from tests.support import DEADLINE, WorkerKind, eventually

CRASH, GETPID, SPIN_PID, WRITE = 101, 102, 103, 104
CODES = {
    CRASH: code_of("require('ffi').cast('int *', 0)[0] = 1"),
    GETPID: code_of(PID + "return ffi.C.getpid()"),
    SPIN_PID: code_of(SPIN),
}


@pytest.fixture
def worker_kind() -> WorkerKind:
    return "process"


def queue_of(rig: Rig, workers: int = 1) -> TaskQueue:
    queue = rig.queue(workers)
    for code, bytecode in CODES.items():
        queue.add_code(code, bytecode)
    return queue


async def test_each_plugin_has_processes_of_its_own(rig: Rig) -> None:
    tasks = [rig.lua(queue_of(rig), GETPID) for _ in range(2)]
    await rig.settled()
    assert len({rig.outcome(task).value for task in tasks}) == 2


async def test_a_crash_is_one_failure(rig: Rig) -> None:
    queue = queue_of(rig)
    before, crash, after = rig.lua(queue, ECHO, b"1"), rig.lua(queue, CRASH), rig.lua(queue, ECHO, b"2")
    await rig.settled()
    assert rig.outcome(before).value == b"1"
    assert rig.outcome(crash)[1:3] == (Status.FAILED, b"worker died (signal 11)")
    assert rig.outcome(after).value == b"2"
    assert rig.gate.stats().failed == 1


async def test_a_hundred_crashes_are_a_hundred_failures(rig: Rig) -> None:
    queue = queue_of(rig)
    for _ in range(100):
        rig.lua(queue, CRASH)
    await rig.settled()
    assert rig.gate.stats().failed == 100
    last = rig.lua(queue, ECHO, b"well")
    await rig.settled()
    assert rig.outcome(last).value == b"well"


async def test_a_timeout_ends_the_process_and_the_next_task_has_its_full_time(rig: Rig, tmp_path: Path) -> None:
    queue = queue_of(rig)
    spin = rig.lua(queue, SPIN_PID, bytes(tmp_path / "pid"), timeout=0.05)
    after = rig.lua(queue, ECHO, b"after", timeout=DEADLINE)
    await rig.settled()
    assert rig.outcome(spin).timed_out
    assert rig.outcome(after).value == b"after"
    pid = int((tmp_path / "pid").read_text() or 0) if (tmp_path / "pid").exists() else 0
    await eventually(lambda: not alive(pid))
    await eventually(lambda: rig.gate.stats().stuck_threads == 0)
    assert rig.gate.stats().timed_out == 1


async def test_the_start_of_a_process_is_no_part_of_a_tasks_time(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = process_spawn._MAIN
    slow = f"import runpy, time\ntime.sleep(1.2)\nrunpy.run_path({str(main)!r}, run_name='__main__')"
    (tmp_path / "main.py").write_text(slow)
    monkeypatch.setattr(process_spawn, "_MAIN", tmp_path / "main.py")
    task = rig.lua(queue_of(rig), ECHO, b"quick", timeout=1.0)
    await rig.settled()
    assert rig.outcome(task).value == b"quick"


async def test_kills_from_outside_lose_and_repeat_nothing(rig: Rig, tmp_path: Path) -> None:
    log = tmp_path / "log"
    queue = queue_of(rig)
    queue.add_code(WRITE, code_of(f"local f = io.open('{log}', 'a') f:write((...) .. ' ') f:close() return (...)"))
    tasks = [rig.lua(queue, WRITE, str(n).encode()) for n in range(2000)]
    for step in range(1, 9):
        await eventually(lambda step=step: len(rig.delivered) >= step * 200)  # type: ignore[misc]
        for pid in children():
            kill(pid)
    await rig.settled()
    assert rig.ids() == [task.id for task in tasks]  # each once, in order
    failed = [outcome for outcome in rig.delivered if outcome.status is Status.FAILED]
    assert all(b"worker died (signal 9)" in (outcome.value or b"") for outcome in failed)
    assert len(failed) <= 8 * 256  # one each, or a chunk when a process died before it could begin
    written = log.read_text().split()
    assert len(set(written)) == len(written) >= 2000 - len(failed)


async def test_the_end_leaves_no_loop_behind(rig: Rig, tmp_path: Path) -> None:
    queue = queue_of(rig, workers=2)
    rig.lua(queue, SPIN_PID, bytes(tmp_path / "pid"))
    rig.lua(queue, FOREVER)
    await eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pid = pid_in(tmp_path / "pid")
    rig.gate.abandon()
    await rig.gate.close()
    assert not alive(pid)
    assert rig.gate.stats().abandoned == 2
    assert rig.gate.stats().stuck_threads == 0
