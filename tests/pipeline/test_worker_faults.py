"""What tasks of workers of either kind do around them: too much, for ever, elsewhere, and with code of others."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import get_args

import pytest

from tests.pipeline.async_rig import TOLD, MakeConfig, enduring, task
from tests.processes import alive, kill, pid_in
from tests.support import WorkerKind

CHDIR = "local ffi = require('ffi') ffi.cdef('int chdir(const char *);') "


# ---- too much


@pytest.mark.parametrize("value", ["{}", "true", "print", "coroutine.create(print)", "io.stdout", "0/0"])
async def test_a_task_that_returns_something_else(config: MakeConfig, tmp_path: Path, value: str) -> None:
    async with enduring(tmp_path, config(), task(f"return {value}", "T.loginfo(type(r))")) as run:
        await run.wrong()
    assert run.errors == []
    assert run.lines == (["string"] if value == "0/0" else [])
    assert run.stats.tasks.failed == 0


async def test_a_task_that_returns_100_megabytes(config: MakeConfig, tmp_path: Path) -> None:
    big = task("return d:rep(100e6)", "T.loginfo(#r .. r:sub(1, 2))", data="x")
    async with enduring(tmp_path, config(), big) as run:
        await run.wrong()
    assert (run.lines, run.errors) == (["100000000xx"], [])


@pytest.mark.parametrize(
    "hog", ["local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(100) .. i end", "local s = d while true do s = s .. s end"]
)
async def test_a_task_that_allocates_without_end(config: MakeConfig, tmp_path: Path, hog: str) -> None:
    async with enduring(tmp_path, config(), task(hog, more=TOLD), rest="async_memory_mb = 16") as run:
        await run.wrong()
        await run.wrong()
    assert run.lines == ["in!out of memory: the worker's limit is 16 MiB"] * 2


async def test_a_task_that_loops_for_ever(config: MakeConfig, tmp_path: Path) -> None:
    """Nothing can end a thread: there, scripts must ask for strict timeouts."""
    body = task("while true do pcall(function() while true do end end) end", more=f"timeout = 0.1, {TOLD}")
    async with enduring(tmp_path, config(), body, rest="async_strict_timeout = true") as run:
        await run.wrong()
        await run.wrong()
    assert run.lines == ["in!timeout"] * 2
    assert run.stats.tasks.timed_out == 2


# ---- elsewhere


async def test_a_task_that_changes_the_directory(
    config: MakeConfig, worker_kind: WorkerKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thread it is the whole process's, and operations called before it are done after it."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    body = task(f"{CHDIR} ffi.C.chdir('{tmp_path}/elsewhere')") + " T.async:copybuffer(event, 'file')"
    async with enduring(tmp_path, config(), body) as run:
        await run.wrong(b"1")
        await run.wrong(b"2")
    assert run.errors == []
    if worker_kind == "thread":
        assert Path.cwd() == tmp_path / "elsewhere"
        assert [(tmp_path / name).read_bytes() for name in ("file", "elsewhere/file")] == [b"1", b"2"]
    else:
        assert Path.cwd() == tmp_path
        assert (tmp_path / "file").read_bytes() == b"12"


async def test_a_task_that_removes_the_directory(
    config: MakeConfig, worker_kind: WorkerKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    remove = f"if {str(here.exists()).lower()} then os.remove('{here}') end"
    body = f"{task(remove)} T.async:copybuffer('x', 'file') T.async:rm('{tmp_path}/absent')"
    async with enduring(tmp_path, config(), body) as run:
        await run.wrong()
        assert not here.exists()
        await run.wrong()
    first, second = run.errors
    assert first.endswith(f"T.async:copybuffer: {here}/file: No such file or directory")
    assert "'file' is relative, and there is no working directory" in second
    assert run.stats.events.failed == 1


# ---- children


def descriptors(pid: int) -> set[int]:
    """Those that a process has open; of this one, but for the one that looks."""
    return {int(each.name) for each in list(Path(f"/proc/{pid}/fd").iterdir()) if each.exists()}


async def test_a_child_that_outlives_everything(config: MakeConfig, tmp_path: Path) -> None:
    """It holds no thread, no process and no descriptor of ours."""
    file = tmp_path / "pid"
    inherited = {number for number in descriptors(os.getpid()) if os.get_inheritable(number)}
    began = time.monotonic()
    async with enduring(tmp_path, config(), task(f"os.execute('sleep 1000 & echo $! >{file}')")) as run:
        await run.wrong()
    pid = pid_in(file)
    try:
        assert run.errors == []
        assert time.monotonic() - began < 60
        assert alive(pid)
        assert descriptors(pid) <= inherited | {0, 1, 2}
    finally:
        kill(pid)


async def test_a_program_that_a_task_reads_from_ends_with_the_state(config: MakeConfig, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    began = time.monotonic()
    async with enduring(tmp_path, config(), task(f"handle = io.popen('echo $$ >{file}; exec sleep 1000')")) as run:
        await run.wrong()
    assert run.errors == []
    assert time.monotonic() - began < 60
    assert not alive(pid_in(file))


# ---- code


async def test_bytecode_that_one_kind_made_runs_in_the_other(
    config: MakeConfig, worker_kind: WorkerKind, tmp_path: Path
) -> None:
    dump = task("return (string.dump(function(x) return 'made for ' .. x end):gsub('.', function(c) "
                "return ('%02x'):format(c:byte()) end))", "T.loginfo(r)")  # fmt: skip
    async with enduring(tmp_path, config(), dump) as made:
        await made.wrong()
    code = bytes.fromhex(made.lines[0])
    [other] = set(get_args(WorkerKind)) - {worker_kind}
    load = task("return loadstring(d)('another')", "T.loginfo(r)").replace('"in"', "event")
    async with enduring(tmp_path, config(async_isolation=other), load) as run:
        await run.wrong(code)
    assert run.lines == ["made for another"]


async def test_one_script_in_workers_of_both_kinds(config: MakeConfig, tmp_path: Path) -> None:
    """The code that hooks ship has the same numbers in both."""
    body = "local by = 2 local function twice(x) return x * by end " + task("return twice(21)", "T.loginfo(r)")
    for kind in get_args(WorkerKind):
        async with enduring(tmp_path, config(), body, rest=f'async_isolation = "{kind}"') as run:
            await run.wrong()
        assert (run.lines, run.errors) == (["42"], [])


@pytest.mark.parametrize(
    "code",
    [b"", b"\x1b", b"\x1bLua\x51\0\1\4\x08\4\x08\0", b"\x1bLJ\x7f\0", b"\x1bLJ\2\xff", b"\x1bLJ\2\0\x0bwords"],
    ids=["nothing", "a byte", "Lua 5.1", "a later version", "unknown flags", "cut off"],
)
async def test_what_is_no_bytecode_is_an_error_of_its_task(config: MakeConfig, tmp_path: Path, code: bytes) -> None:
    load = task("return assert(loadstring(d))() .. ''", "T.loginfo(r)", more=TOLD).replace('"in"', "event")
    async with enduring(tmp_path, config(), load) as run:
        await run.wrong(code)
    assert len(run.errors) == 1
    assert run.stats.tasks.failed == 1
