"""ProcessWorker, where it is unlike a thread: what crosses to a process, what belongs to it, and its start.

What tasks come to in it is in the tests of workers of both kinds.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from engine.offload.process import WorkerDiedError
from tests.offload.process_rig import PID, Drive
from tests.processes import alive, kill, pid_in
from tests.support import DEADLINE

DONE, RESULT, FAILED = 0, 1, 2

ECHO = "return (...)"


def test_the_worker_is_another_process_and_keeps_its_state(drive: Drive) -> None:
    driven = drive({1: PID + "seen = (seen or 0) + 1 return ffi.C.getpid() .. ' ' .. seen"})
    pids, seen = zip(*(driven.run(1)[1].split() for _ in range(3)), strict=True)
    assert seen == (b"1", b"2", b"3")
    assert len(set(pids)) == 1
    assert int(pids[0]) != os.getpid()
    driven.reset()
    assert not alive(int(pids[0]))
    pid, count = driven.run(1)[1].split()
    assert (pid != pids[0], count) == (True, b"1")


def test_code_is_asked_for_once_a_process(drive: Drive) -> None:
    driven = drive({1: ECHO})
    driven.drain([(n, 1, b"") for n in range(5)])
    driven.reset()
    driven.run(1)
    assert driven.loaded == [1, 1]


def test_ten_megabytes_in_and_out(drive: Drive) -> None:
    driven = drive({1: ECHO, 2: "return #(...)"})
    data = os.urandom(10 << 20)
    driven.drain([(1, 1, data), (2, 1, data[::-1]), (3, 2, data)])
    assert driven.results[1][1] == data
    assert driven.results[2][1] == data[::-1]
    assert driven.results[3][1] == str(len(data)).encode()


def test_two_workers_are_two_processes(drive: Drive, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    path = bytes(tmp_path / "fifo")
    reader = drive({1: "local f = io.open((...)) local all = f:read('*a') f:close() return all"})
    writer = drive({1: "local f = io.open((...), 'w') f:write('through') f:close()"})
    waits = reader.start([(1, 1, path)])
    writer.drain([(1, 1, path)])
    waits.result(DEADLINE)
    assert reader.results[1][1] == b"through"


# ---- what belongs to the process alone


def test_a_working_directory_is_its_own(drive: Drive, tmp_path: Path) -> None:
    driven = drive({1: "local ffi = require('ffi') ffi.cdef('int chdir(const char *);') return ffi.C.chdir((...))"})
    here = Path.cwd()
    assert driven.run(1, bytes(tmp_path))[1] == b"0"
    assert Path.cwd() == here


def test_standard_streams_are_its_own(drive: Drive, capfd: pytest.CaptureFixture[str]) -> None:
    close = "io[(...)]:close() local ffi = require('ffi') ffi.cdef('int close(int);') "
    driven = drive(
        {
            1: "print('printed', io.read('*a') == '')",
            2: close + "for n = 0, 2 do ffi.C.close(n) end",
            3: "print('lost') return 'on'",
        }
    )
    assert driven.run(1)[0] == DONE
    assert capfd.readouterr().out == "printed\ttrue\n"
    for name in (b"stdin", b"stdout", b"stderr"):
        assert driven.run(2, name)[0] == DONE
    assert driven.run(3)[1] == b"on"
    os.write(1, b"ours")
    assert capfd.readouterr().out == "ours"


def test_it_has_no_descriptor_of_ours(drive: Drive, tmp_path: Path) -> None:
    driven = drive({1: PID + "return ffi.C.getpid()"})
    with open(tmp_path / "secret", "w") as ours:
        os.set_inheritable(ours.fileno(), True)
        pid = driven.run(1)[1].decode()
        links = {int(each.name): str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}
    assert str(tmp_path / "secret") not in links.values()
    kinds = sorted(link.split(":")[0] for number, link in links.items() if number > 2)
    assert kinds == ["/memfd", "socket"]


def test_a_program_that_outlives_it_holds_nothing_up(drive: Drive, tmp_path: Path) -> None:
    driven = drive({1: "os.execute('sleep 1000 & echo $! > ' .. (...))"})
    file = tmp_path / "pid"
    driven.run(1, bytes(file))
    pid = pid_in(file)
    try:
        driven.reset()
        assert alive(pid)
        assert not any("memfd" in str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir())
    finally:
        kill(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_that_all_processes_of_a_service_get_are_the_parents(drive: Drive, number: signal.Signals) -> None:
    kill_itself = "ffi.cdef('int kill(int, int);') ffi.C.kill(ffi.C.getpid(), tonumber((...))) return 'on'"
    driven = drive({1: PID + "return ffi.C.getpid()", 2: PID + kill_itself})
    pid = int(driven.run(1)[1])
    os.killpg(pid, number)  # while it waits
    assert driven.run(2, str(int(number)).encode())[1] == b"on"  # and inside a task
    assert int(driven.run(1)[1]) == pid


def test_programs_that_a_task_starts_do_not_inherit_the_deafness(drive: Drive) -> None:
    driven = drive({1: "return io.popen('kill -TERM $$; echo survived'):read('*a')"})
    assert driven.run(1)[1] == b""


# ---- the start and the end


def test_settings_that_are_no_plain_data_fail_the_run(drive: Drive) -> None:
    driven = drive({1: ECHO}, settings={"config": object()})
    with pytest.raises(ValueError, match="unmarshallable"):
        driven.drain([(1, 1, b"")])


def test_a_process_that_cannot_begin_is_an_error_of_the_run(
    drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "main.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr("engine.offload.process_spawn._MAIN", tmp_path / "main.py")
    driven = drive({1: ECHO})
    with pytest.raises(WorkerDiedError, match=r"worker died \(exit code 3\)"):
        driven.drain([(1, 1, b"")])
    assert driven.results == {}
    assert len(driven.chunks) == 1  # nothing was drawn
    monkeypatch.undo()
    with pytest.raises(WorkerDiedError, match=r"worker died \(exit code 3\)$"):
        driven.drain()  # not tried again at once
    driven.worker._refused_until = 0
    assert driven.drain() == 1


def test_an_exchange_that_raises_comes_out_and_the_process_goes(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    driven = drive({1: ECHO})
    driven.run(1)

    def broken(*_: Any) -> None:
        raise OSError("no exchange")

    with monkeypatch.context() as patch:
        patch.setattr(driven.worker, "_exchange", broken)
        with pytest.raises(OSError, match="no exchange"):
            driven.drain([(1, 1, b"")])
    driven.chunks.clear()
    assert driven.run(1, b"well")[1] == b"well"


def test_a_run_without_tasks_and_an_unused_worker_cost_no_process(drive: Drive) -> None:
    unused = drive({})
    unused.worker.reset()
    driven = drive({1: ECHO})
    assert driven.drain() == 0
    assert driven.run(1, b"x")[1] == b"x"


# ---- states


def test_a_state_that_is_spent_is_replaced_in_the_same_process(drive: Drive) -> None:
    driven = drive({1: PID + "seen = (seen or 0) + 1 return ffi.C.getpid() .. ' ' .. seen"}, max_tasks=10)
    rows = [(n, 1, b"x" * 50_000) for n in range(100)]  # several frames a chunk
    assert driven.drain(rows) == 100
    pids, seen = zip(*(driven.results[n][1].split() for n in range(100)), strict=True)
    assert len(set(pids)) == 1
    assert seen == tuple(str(1 + n % 10).encode() for n in range(100))
    assert driven.worker.tasks_run == 100
    assert driven.worker.states_built == 10
    assert driven.worker.memory_bytes > 0
