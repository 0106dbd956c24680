"""What only a process survives: its tasks crash, exit, are killed, or take memory that no state counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.async_rig import TOLD, MakeConfig, enduring, task
from tests.support import WorkerKind

FFI = "local ffi = require('ffi') "


@pytest.fixture
def worker_kind() -> WorkerKind:
    return "process"


@pytest.mark.parametrize(
    ("source", "how"),
    [
        ("ffi.cast('int *', 0)[0] = 1", "signal 11"),
        ("ffi.cdef('void exit(int);') ffi.C.exit(3)", "exit code 3"),
        ("ffi.cdef('void _exit(int);') ffi.C._exit(0)", "exit code 0"),
        ("ffi.cdef('int raise(int);') ffi.C.raise(9)", "signal 9"),
    ],
)
async def test_a_task_that_ends_its_process(config: MakeConfig, tmp_path: Path, source: str, how: str) -> None:
    async with enduring(tmp_path, config(), task(FFI + source, more=TOLD)) as run:
        await run.wrong()
        await run.wrong()
    assert run.lines == [f"in!worker died ({how})"] * 2
    assert run.stats.tasks.failed == 2


async def test_a_task_that_closes_all_descriptors(config: MakeConfig, tmp_path: Path) -> None:
    close = FFI + "ffi.cdef('int close(int);') for n = 0, 99 do ffi.C.close(n) end print('x')"
    async with enduring(tmp_path, config(), task(close, more=TOLD)) as run:
        await run.wrong()
    assert run.lines == ["in!worker died (exit code 0)"]


async def test_a_task_that_closes_the_standard_streams_for_good(config: MakeConfig, tmp_path: Path) -> None:
    close = FFI + "ffi.cdef('int close(int);') for n = 0, 2 do ffi.C.close(n) end print('x') return 'on'"
    async with enduring(tmp_path, config(), task(close, "T.loginfo(r)")) as run:
        await run.wrong()
        await run.wrong()
    assert run.lines == ["on", "on"]


async def test_memory_that_is_not_of_the_state_is_limited_too(config: MakeConfig, tmp_path: Path) -> None:
    hog = FFI + "ffi.cdef('void *malloc(size_t);') local n = 0 while ffi.C.malloc(1e6) ~= nil do n = n + 1 end return n"
    check = "T.loginfo(tonumber(r) > 30 and tonumber(r) < 300 and 'bounded' or r)"
    async with enduring(tmp_path, config(), task(hog, check), rest="async_memory_mb = 32, async_max_tasks = 1") as run:
        await run.wrong()
    assert run.lines == ["bounded"]


async def test_a_loop_in_c_code_is_ended_by_its_timeout(config: MakeConfig, tmp_path: Path) -> None:
    body = task("os.execute('sleep 1000') return 'late'", more=f"timeout = 0.1, {TOLD}")
    async with enduring(tmp_path, config(), body) as run:
        await run.wrong()
    assert run.lines == ["in!timeout"]
    assert run.stats.tasks.late_results == 0
