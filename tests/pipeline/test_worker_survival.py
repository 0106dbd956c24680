"""What scripts can do to hurt themselves, in hooks and in workers alike: the engine and the other tasks go on."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from engine import Engine
from tests.pipeline.async_rig import task
from tests.scripts import Collector, assert_counts_close, on_event, write
from tests.support import eventually, no_threads_left

WRONGS = {
    "error('why')": r"\.lua:\d+: why$",
    "error()": "error object: nil$",
    "error({})": "error object: table: 0x",
    "error(setmetatable({}, { __tostring = function() error('again') end }))": "error object of type table$",
    "os.exit(3)": r"\.lua:\d+: os.exit is not available",
    "os.exit(true, true)": r"\.lua:\d+: os.exit is not available",
    "local function f() return 1 + f() end f()": "stack overflow",
    "local t = {} t[nil] = 1": "index is nil",
    "require('no_such_module')": "module 'no_such_module' not found",
    "coroutine.yield(1)": "attempt to yield",
}

HARMLESS = {
    "assert(not io.stdout:close())": [],
    "assert(not io.stdin:close())": [],
    "assert(not io.stderr:close())": [],
    "assert(not io.close())": [],
    "assert(not io.close(io.stdin))": [],
    "getmetatable(io.stdout).__gc(io.stdout)": [],
    "for k in pairs(T) do T[k] = nil end": [],
    "string.format, table.concat, pcall, tostring = nil": [],
    "collectgarbage() collectgarbage()": [],
}


def in_worker(body: str) -> str:
    return task(body)


def in_hook(body: str) -> str:
    return f"do {body} end"


async def run_twice(tmp_path: Path, body: str, onto: str = "") -> tuple[list[str], list[str]]:
    """Info and error lines of two events to a script; the second event finds it as able as the first did."""
    collector = Collector()
    hook = f"if event == 'wrong' then {body} end {onto}"
    script = write(tmp_path, on_event(hook, before="local info = T.loginfo"))
    well = write(tmp_path, on_event("T.loginfo('other')"), "other.lua")
    with no_threads_left():
        async with Engine([script, well], sinks=[collector]) as engine:
            for event in ("wrong", "well"):
                await engine.emit("t", event)
                await eventually(lambda: not engine.stats.tasks.pending)
    assert_counts_close(engine.stats)
    assert collector.logged().count("other") == 2
    for descriptor in range(3):
        os.fstat(descriptor)
    return [line for line in collector.logged() if line != "other"], collector.logged("ERROR")


@pytest.mark.parametrize("wrong", WRONGS)
@pytest.mark.parametrize("place", [in_worker, in_hook])
async def test_what_raises_is_one_error_and_no_more(tmp_path: Path, place: object, wrong: str) -> None:
    body = in_worker(wrong) if place is in_worker else in_hook(wrong)
    lines, errors = await run_twice(tmp_path, body, "if event == 'well' then " + task("return 'well'") + " end")
    assert lines == ["in>well"]
    [error] = errors
    assert error.startswith("event_monitor.onexecute: " if place is in_worker else "event_monitor.onevent: ")
    assert re.search(WRONGS[wrong], error.split("\nstack traceback:")[0])


@pytest.mark.parametrize("body", HARMLESS)
@pytest.mark.parametrize("place", [in_worker, in_hook])
async def test_what_does_no_harm(tmp_path: Path, place: object, body: str) -> None:
    wrong = in_worker(body) if place is in_worker else in_hook(body)
    _, errors = await run_twice(tmp_path, wrong, "info('still here')")
    assert errors == []


@pytest.mark.parametrize("value", ["{}", "true", "print", "coroutine.create(print)", "io.stdout", "0/0"])
async def test_a_worker_that_returns_something_else(tmp_path: Path, value: str) -> None:
    _, errors = await run_twice(tmp_path, task(f"return {value}"), task("return 'well'"))
    assert errors == []


async def test_a_worker_that_returns_100_megabytes(tmp_path: Path) -> None:
    big = task("return d:rep(100e6)", "T.loginfo(#r .. r:sub(1, 2))", data="x")
    lines, errors = await run_twice(tmp_path, big)
    assert (lines, errors) == (["100000000xx"], [])


async def test_a_worker_that_changes_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the whole process's; paths of `T.async` are made absolute before any worker runs."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    chdir = f"local ffi = require('ffi') ffi.cdef('int chdir(const char *);') ffi.C.chdir('{tmp_path}/elsewhere')"
    _, errors = await run_twice(tmp_path, task(chdir) + " T.async:copybuffer('here', 'file')")
    assert errors == []
    assert (tmp_path / "file").read_bytes() == b"here"
    assert Path.cwd() == tmp_path / "elsewhere"


@pytest.mark.parametrize("place", [in_worker, in_hook])
async def test_a_child_that_outlives_everything(tmp_path: Path, place: object) -> None:
    """It holds no thread, no pipe and no file of ours."""
    spawn = f"os.execute('sleep 100 >/dev/null 2>&1 & echo $! >{tmp_path}/pid')"
    began = time.monotonic()
    _, errors = await run_twice(tmp_path, in_worker(spawn) if place is in_worker else in_hook(spawn))
    pid = int((tmp_path / "pid").read_text())
    try:
        assert errors == []
        assert time.monotonic() - began < 60
        os.kill(pid, 0)  # it still runs
    finally:
        os.kill(pid, signal.SIGKILL)
