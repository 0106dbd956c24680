"""Worker processes under a queue and its gate: outcomes, timeouts, deaths, the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.offload import Status, TaskQueue, process_spawn
from engine.offload.process import ProcessWorker
from tests.offload.process_rig import PID, SPIN, alive, children, code_of, kill, nothing_left, pid_in
from tests.offload.rig import BYTECODES, ECHO, FAIL, NOTHING, Rig, running_rig, worker_setup
from tests.offload.rig import SPIN as FOREVER
from tests.support import DEADLINE, eventually

CRASH, GETPID, SPIN_PID, WRITE = 101, 102, 103, 104
CODES = {
    CRASH: code_of("require('ffi').cast('int *', 0)[0] = 1"),
    GETPID: code_of(PID + "return ffi.C.getpid()"),
    SPIN_PID: code_of(SPIN),
}


def process_queue(rig: Rig, workers: int = 1) -> TaskQueue:
    queue = TaskQueue(
        rig.gate,
        name="processes",
        workers=workers,
        setup=worker_setup("processes"),
        deliver=rig.delivered.extend,
        log=lambda *line: rig.logged.append(line),
        make_worker=ProcessWorker,
    )
    for code, bytecode in (BYTECODES | CODES).items():
        queue.add_code(code, bytecode)
    rig.gate.add(queue)
    return queue


@asynccontextmanager
async def rigged() -> AsyncIterator[Rig]:
    with nothing_left():
        async with running_rig() as rig:
            yield rig


async def test_outcomes() -> None:
    async with rigged() as rig:
        queue = process_queue(rig)
        tasks = [rig.lua(queue, ECHO, b"a\0"), rig.lua(queue, FAIL, b"wrong"), rig.lua(queue, NOTHING)]
        await rig.settled()
        first, second, third = map(rig.outcome, tasks)
        assert first[1:3] == (Status.RESULT, b"a\0")
        assert second[1:3] == (Status.FAILED, b"wrong")
        assert third.status is Status.DONE


async def test_two_plugins_have_two_processes_and_ten_thousand_tasks_are_all_settled() -> None:
    async with rigged() as rig:
        queues = [process_queue(rig), process_queue(rig, workers=2)]
        pids = [rig.lua(queue, GETPID) for queue in queues]
        await rig.settled()
        assert len({rig.outcome(task).value for task in pids}) == 2
        for n in range(5000):
            for queue in queues:
                rig.lua(queue, ECHO, str(n).encode())
        await rig.settled()
        assert len(rig.delivered) == 10_002
        assert rig.gate.stats().completed == 10_002


async def test_a_crash_is_one_failure() -> None:
    async with rigged() as rig:
        queue = process_queue(rig)
        before, crash, after = rig.lua(queue, ECHO, b"1"), rig.lua(queue, CRASH), rig.lua(queue, ECHO, b"2")
        await rig.settled()
        assert rig.outcome(before).value == b"1"
        assert rig.outcome(crash)[1:3] == (Status.FAILED, b"worker died (signal 11)")
        assert rig.outcome(after).value == b"2"
        assert rig.gate.stats().failed == 1


async def test_a_hundred_crashes_are_a_hundred_failures() -> None:
    async with rigged() as rig:
        queue = process_queue(rig)
        for _ in range(100):
            rig.lua(queue, CRASH)
        await rig.settled()
        assert rig.gate.stats().failed == 100
        last = rig.lua(queue, ECHO, b"well")
        await rig.settled()
        assert rig.outcome(last).value == b"well"


async def test_a_timeout_ends_the_process_and_the_next_task_has_its_full_time(tmp_path: Path) -> None:
    async with rigged() as rig:
        queue = process_queue(rig)
        spin = rig.lua(queue, SPIN_PID, bytes(tmp_path / "pid"), timeout=0.05)
        after = rig.lua(queue, ECHO, b"after", timeout=DEADLINE)
        await rig.settled()
        assert rig.outcome(spin).timed_out
        assert rig.outcome(after).value == b"after"
        pid = pid_in(tmp_path / "pid") if (tmp_path / "pid").exists() else 0
        await eventually(lambda: not alive(pid))
        await eventually(lambda: rig.gate.stats().stuck_threads == 0)
        assert rig.gate.stats().timed_out == 1


async def test_the_start_of_a_process_is_no_part_of_a_tasks_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = process_spawn._MAIN
    slow = f"import runpy, time\ntime.sleep(1.2)\nrunpy.run_path({str(main)!r}, run_name='__main__')"
    (tmp_path / "main.py").write_text(slow)
    monkeypatch.setattr(process_spawn, "_MAIN", tmp_path / "main.py")
    async with rigged() as rig:
        task = rig.lua(process_queue(rig), ECHO, b"quick", timeout=1.0)
        await rig.settled()
        assert rig.outcome(task).value == b"quick"


async def test_kills_from_outside_lose_and_repeat_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with rigged() as rig:
        queue = process_queue(rig)
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


async def test_the_end_leaves_no_loop_behind(tmp_path: Path) -> None:
    async with rigged() as rig:
        queue = process_queue(rig, workers=2)
        rig.lua(queue, SPIN_PID, bytes(tmp_path / "pid"))
        rig.lua(queue, FOREVER)
        await eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        pid = pid_in(tmp_path / "pid")
        rig.gate.abandon()
    assert not alive(pid)
    assert rig.gate.stats().abandoned == 2
    assert rig.gate.stats().stuck_threads == 0
