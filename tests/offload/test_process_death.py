"""Worker processes that die, are killed, or are left behind: what their tasks come to, and that nothing stays.

A thread can do none of that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import engine
from engine.offload.process import WorkerDiedError
from engine.vm import LuaState
from tests.offload.process_rig import PID, SPIN, WRITE_PID, Drive, Driven
from tests.offload.worker_rig import code_of
from tests.processes import alive, kill, pid_in
from tests.support import DEADLINE, SETTINGS, eventually_in_thread

DONE, RESULT, FAILED, PART, FAILED_IN_PACK, PACK_END = 0, 1, 2, 4, 5, 6

ECHO = "return (...)"
CRASH = "require('ffi').cast('int *', 0)[0] = 1"
APPEND = "local f = io.open('{}', 'a') f:write((...)) f:close() return (...)"


def ffi_call(declaration: str, call: str) -> str:
    return f"local ffi = require('ffi') ffi.cdef('{declaration}') ffi.C.{call}"


@pytest.mark.parametrize(
    ("source", "how"),
    [
        (CRASH, b"signal 11"),
        (ffi_call("void exit(int);", "exit(3)"), b"exit code 3"),
        (ffi_call("void _exit(int);", "_exit(0)"), b"exit code 0"),
        (ffi_call("void abort(void);", "abort()"), b"signal 6"),
        (ffi_call("int raise(int);", "raise(9)"), b"signal 9"),
        ("local ffi = require('ffi') ffi.cdef('int close(int);') for n = 3, 99 do ffi.C.close(n) end", b"exit code 0"),
    ],
)
def test_a_death_fails_the_task_that_was_run_only(drive: Drive, tmp_path: Path, source: str, how: bytes) -> None:
    driven = drive({1: APPEND.format(tmp_path / "log"), 2: source})
    driven.drain([(1, 1, b"a"), (2, 1, b"b"), (3, 2, b""), (4, 1, b"c"), (5, 1, b"d")], [(6, 1, b"e")])
    assert driven.results[3] == (FAILED, b"worker died (" + how + b")", b"")
    others = [driven.results[n][:2] for n in (1, 2, 4, 5, 6)]
    assert others == [(RESULT, each) for each in (b"a", b"b", b"c", b"d", b"e")]
    assert (tmp_path / "log").read_bytes() == b"abcde"  # in order, and nothing twice


def test_bytes_that_are_no_frame_end_the_process(drive: Drive) -> None:
    write = ffi_call("long write(int, const void *, size_t);", "write(tonumber((...)), ('x'):rep(100), 100)")
    driven = drive({1: ECHO, 2: write})
    driven.drain([(1, 1, b"a")])
    child = driven.worker._child
    assert child is not None
    [end] = [
        each.name
        for each in Path(f"/proc/{child._process.pid}/fd").iterdir()
        if str(each.readlink()).startswith("socket:") and int(each.name) > 2
    ]
    driven.drain([(2, 2, end.encode()), (3, 1, b"after")])
    assert driven.results[2][0] == FAILED
    assert driven.results[2][1].startswith(b"worker died (no frame begins with")
    assert driven.results[3][1] == b"after"


def test_a_process_that_dies_over_and_over_fails_its_chunk_and_the_next_is_run(drive: Drive) -> None:
    driven = drive({1: CRASH, 2: ECHO})
    with pytest.raises(WorkerDiedError, match=r"worker died \(signal 11\), 5 times in a row"):
        driven.drain([(n, 1, b"") for n in range(20)])
    assert sorted(driven.results) == [0, 1, 2, 3]  # the queue fails the others that it gave
    assert driven.run(2, b"x") == (RESULT, b"x")
    driven.drain([(n, 1 + n % 2, b"") for n in range(12)])  # a finished task between two deaths
    assert [driven.results[n][0] for n in range(12)] == [FAILED, RESULT] * 6


def test_a_process_that_was_killed_while_it_waited_is_replaced_and_no_task_fails(drive: Drive) -> None:
    driven = drive({1: PID + "return ffi.C.getpid()"})
    pid = int(driven.run(1)[1])
    os.kill(pid, signal.SIGKILL)
    eventually_in_thread(lambda: not alive(pid))
    status, other = driven.run(1)
    assert status == RESULT
    assert int(other) != pid


def test_a_process_killed_from_outside_fails_what_it_was_at(drive: Drive, tmp_path: Path) -> None:
    driven = drive({1: SPIN, 2: ECHO})
    run = driven.start([(1, 1, bytes(tmp_path / "pid")), (2, 2, b"after")])
    os.kill(pid_in(tmp_path / "pid"), signal.SIGKILL)
    run.result(DEADLINE)
    assert driven.results[1][:2] == (FAILED, b"worker died (signal 9)")
    assert driven.results[2][1] == b"after"


# ---- packs


def pack(*tasks: tuple[int, bytes], first: int = 0) -> bytes:
    """Tasks of code and data as async.lua packs them, all with a wanted result."""
    state = LuaState()
    flat = [first] + [value for code, data in tasks for value in (code, b"", data, 3)]
    packed: bytes = state.execute(
        b"local b = require('string.buffer').new() for _, v in ipairs({...}) do b:encode(v) end return b:get()", *flat
    )
    state.close()
    return packed


def unpack(outcomes: bytes) -> list[tuple[int, int, bytes]]:
    """Task id, status and value of each outcome."""
    state = LuaState()
    source = b"local b, t = require('string.buffer').new():set(...), {} "
    values = state.execute(source + b"while #b > 0 do t[#t + 1] = b:decode() end return unpack(t)", outcomes)
    state.close()
    flat = values or ()
    return list(zip(*[iter(flat)] * 3, strict=True))


def outcomes_of(driven: Driven) -> list[tuple[int, int, bytes]]:
    return [each for row in driven.rows if row[1] == PART for each in unpack(row[2])]


def test_a_pack_is_run_in_parts(drive: Drive) -> None:
    driven = drive({1: ECHO})
    count = driven.drain([(7, 0, 1, pack(*((1, str(n).encode()) for n in range(5))), 4)])
    assert count == 4
    assert outcomes_of(driven) == [(n, RESULT, str(n).encode()) for n in range(1, 5)]
    assert [row[2] for row in driven.rows if row[1] == PACK_END] == [4]


def test_a_death_in_a_pack_keeps_what_had_ended_and_leaves_the_rest_to_the_queue(drive: Drive) -> None:
    driven = drive({1: ECHO, 2: CRASH})
    tasks = pack((1, b"skipped"), *[(1, b"a")] * 9, (2, b""), (1, b"never"))
    assert driven.drain([(7, 0, 1, tasks, 11), (8, 1, b"next")]) == 10
    message = b"worker died (signal 11)"
    assert outcomes_of(driven) == [*((n, RESULT, b"a") for n in range(1, 10)), (10, FAILED, message)]
    assert sum(row[3] for row in driven.rows if row[1] == PART) == 10
    assert [row for row in driven.rows if row[1] == FAILED_IN_PACK] == [(7, FAILED_IN_PACK, message, b"")]
    assert [row for row in driven.rows if row[1] == PACK_END] == [(7, PACK_END, 10, False)]
    assert driven.results[8][:2] == (RESULT, b"next")


@pytest.mark.parametrize(
    ("given", "ended", "place", "stop", "failed", "end"),
    [
        (0, 0, -1, 0, [], 0),  # before the first was begun
        (0, 0, 0, 0, [0], 1),
        (2, 3, 5, 0, [5], 6),
        (2, 3, 4, 0, [], 5),  # between two
        (2, 3, 5, 6, [], 5),  # where it was told to stop
        (2, 3, 5, 7, [5], 6),  # the last it may run
        (2, 8, 9, 0, [], 10),  # all are over, and that was not said
    ],
)
def test_where_death_strikes_in_a_pack(
    drive: Drive, given: int, ended: int, place: int, stop: int, failed: list[int], end: int
) -> None:
    worker = drive({}).worker
    worker._parts[7] = given
    progress = worker._shared.progress
    progress.place, progress.count, worker._shared.stop = place, ended, stop
    first = 2**40 + 7
    rows = list(zip(*[iter(worker._failure((7, 0, 100, pack(first=first), 10), b"died"))] * 4, strict=True))
    parts = [row for row in rows if row[1] == PART]
    assert [row[3] for row in parts] == ([ended + len(failed)] if ended or failed else [])
    assert [each for row in parts for each in unpack(row[2])] == [(first + 100 + at, FAILED, b"died") for at in failed]
    assert sum(row[1] == FAILED_IN_PACK for row in rows) == len(failed)
    assert rows[-1] == (7, PACK_END, end, False)


def test_outcomes_do_not_overtake_those_that_are_on_their_way(drive: Drive) -> None:
    worker = drive({}).worker
    progress = worker._shared.progress
    progress.count, progress.bytes = 3, 5
    progress.outcomes[:5] = b"abcde"
    assert worker.outcomes() == (3, b"abcde")
    progress.gives = 1  # a part of the pack was given, and the queue has not taken it
    assert worker.outcomes() == (0, b"")
    worker._hand_on(False, (7, PART, b"ab", 2))
    assert worker.outcomes() == (3, b"abcde")


def test_place_and_outcomes_are_seen_from_here(drive: Drive, tmp_path: Path) -> None:
    driven = drive({1: ECHO, 2: SPIN})
    run = driven.start([(7, 0, 0, pack((1, b"a"), (2, bytes(tmp_path / "pid")), (1, b"never")), 3)])
    pid = pid_in(tmp_path / "pid")
    assert driven.worker.place() == 1
    driven.worker.stop()
    run.result(DEADLINE)
    eventually_in_thread(lambda: not alive(pid))


# ---- stop


def test_stop_ends_a_loop_at_once_and_there_is_no_other_process(drive: Drive, tmp_path: Path) -> None:
    driven = drive({1: SPIN, 2: ECHO})
    run = driven.start([(1, 1, bytes(tmp_path / "pid")), (2, 2, b"")], [(3, 2, b"")])
    pid = pid_in(tmp_path / "pid")
    driven.worker.stop()
    run.result(DEADLINE)
    assert not alive(pid)
    assert {number: row[:2] for number, row in driven.results.items()} == {
        1: (FAILED, b"worker died (signal 9)"),
        2: (FAILED, b"worker died (signal 9)"),
    }
    assert driven.drain() == 0
    assert len(driven.chunks) == 1


def test_stop_ends_programs_that_a_task_started(drive: Drive, tmp_path: Path) -> None:
    driven = drive({1: "os.execute('sleep 1000 & echo $! > ' .. (...) .. '; wait')"})
    run = driven.start([(1, 1, bytes(tmp_path / "pid"))])
    pid = pid_in(tmp_path / "pid")
    driven.worker.stop()
    run.result(DEADLINE)
    eventually_in_thread(lambda: not alive(pid))


def test_stop_before_the_first_run(drive: Drive) -> None:
    driven = drive({1: ECHO})
    driven.worker.stop()
    assert driven.drain([(1, 1, b"")]) == 0
    assert driven.results == {}


def test_a_reset_does_not_wait_for_ever(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    driven = drive({1: PID + "return ffi.C.getpid()"})
    pid = int(driven.run(1)[1])
    os.kill(pid, signal.SIGSTOP)
    driven.reset()
    assert not alive(pid)


# ---- memory


def test_memory_beyond_the_limit_fails_the_task_and_no_other(drive: Drive) -> None:
    hog = "local ffi = require('ffi') ffi.cdef('void *malloc(size_t);') return tostring(ffi.C.malloc(1e9) == nil)"
    grow = "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end"
    driven = drive({1: hog, 2: grow, 3: ECHO}, memory_bytes=32 << 20)
    assert driven.run(1) == (RESULT, b"true")
    status, message = driven.run(2)
    assert status == FAILED
    assert b"memory" in message
    assert driven.run(3, b"still") == (RESULT, b"still")


def test_data_that_does_not_fit_fails_with_the_reason(drive: Drive) -> None:
    driven = drive({1: ECHO}, memory_bytes=1 << 20)
    with pytest.raises(WorkerDiedError, match="out of memory"):
        driven.run(1, b"x" * (200 << 20))
    assert driven.run(1, b"small") == (RESULT, b"small")


# ---- the parent


HOST = """
import os, sys, time
print("main", flush=True)
sys.path.insert(0, {root!r})
from engine.offload.process import ProcessWorker
from engine.offload.worker import WorkerSetup
chunks = [(1, 1, b"", {file!r}.encode(), 0.0)]
code = bytes.fromhex({code!r})
worker = ProcessWorker(
    WorkerSetup("host", {settings!r}, "/nonexistent", (), print, lambda _: code),
    lambda more, *flat: chunks.pop() if more and chunks else None,
)
run = worker.executor.submit(worker.drain)
if {wait}:
    run.result()
    print("over", flush=True)
    sys.stdin.read()
elif {close}:
    run.result()
    worker.close().join(10)
else:
    time.sleep(1000)
"""


def host(tmp_path: Path, source: str, *, wait: bool = False, close: bool = False) -> subprocess.Popen[str]:
    root = Path(engine.__file__).parent.parent
    text = HOST.format(
        root=str(root),
        file=str(tmp_path / "pid"),
        code=code_of(source).hex(),
        settings=SETTINGS,
        wait=wait,
        close=close,
    )
    (tmp_path / "host.py").write_text(textwrap.dedent(text))
    return subprocess.Popen(
        [sys.executable, "host.py"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(("source", "wait"), [(SPIN, False), (WRITE_PID, True)])
def test_no_process_outlives_its_parent(tmp_path: Path, source: str, wait: bool, number: signal.Signals) -> None:
    with host(tmp_path, source, wait=wait) as parent:
        pid = pid_in(tmp_path / "pid")
        assert alive(pid)
        parent.send_signal(number)
    try:
        eventually_in_thread(lambda: not alive(pid))
    finally:
        kill(pid)


def test_a_host_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    with host(tmp_path, WRITE_PID, close=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.read() == "main\n"
    assert parent.returncode == 0
    assert not alive(pid_in(tmp_path / "pid"))


def test_a_process_whose_socket_closes_ends(drive: Drive) -> None:
    driven = drive({1: PID + "return ffi.C.getpid()"})
    pid = int(driven.run(1)[1])
    child = driven.worker._child
    assert child is not None
    child.channel.close()
    eventually_in_thread(lambda: not alive(pid))
    assert child.bury(DEADLINE) == "exit code 0"
    driven.worker._child = None
