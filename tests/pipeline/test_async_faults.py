"""What scripts can do wrong in Lua, in a hook and in a worker of either kind: the engine and all other work go on."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import pytest

from tests.pipeline.async_rig import TOLD, MakeConfig, enduring, task
from tests.support import WorkerKind

Place = Literal["hook", "thread", "process"]

WRONGS = {
    "error('why')": r"\.lua:\d+: why$",
    "error()": "error object: nil$",
    "error(nil)": "error object: nil$",
    "error({})": "error object: table: 0x",
    "error(setmetatable({}, { __tostring = function() error('again') end }))": "error object of type table$",
    "os.exit(3)": r"\.lua:\d+: os.exit is not available",
    "os.exit(true, true)": r"\.lua:\d+: os.exit is not available",
    "local function f() return 1 + f() end f()": "stack overflow",
    "local t = {} t[nil] = 1": "index is nil",
    "require('no_such_module')": "module 'no_such_module' not found",
    "coroutine.yield(1)": "attempt to yield",
}

HARMLESS = [
    "assert(not io.stdout:close())",
    "assert(not io.stdin:close())",
    "assert(not io.stderr:close())",
    "assert(not io.close())",
    "assert(not io.close(io.stdin))",
    "getmetatable(io.stdout).__gc(io.stdout)",
    "for k in pairs(T) do T[k] = nil end",
    "string.format, table.concat, pcall, tostring = nil",
    "collectgarbage() collectgarbage()",
]


@pytest.fixture(params=["hook", "thread", "process"])
def place(request: pytest.FixtureRequest) -> Place:
    """Where a test does what is wrong."""
    place: Place = request.param
    return place


@pytest.fixture
def worker_kind(place: Place) -> WorkerKind:
    return "thread" if place == "hook" else place


def put(place: Place, body: str) -> str:
    return f"do {body} end" if place == "hook" else task(body, more=TOLD)


def standard_streams() -> list[os.stat_result]:
    return [os.fstat(descriptor) for descriptor in range(3)]


@pytest.mark.parametrize("wrong", WRONGS)
async def test_what_raises_is_one_error_and_no_more(
    place: Place, config: MakeConfig, tmp_path: Path, wrong: str
) -> None:
    async with enduring(tmp_path, config(), put(place, wrong)) as run:
        await run.wrong()
        [error] = run.errors
        told = run.lines
    assert error.startswith("event_monitor.onevent: " if place == "hook" else "event_monitor.onexecute: ")
    assert re.search(WRONGS[wrong], error.split("\nstack traceback:")[0])
    assert len(told) == (place != "hook")
    assert run.stats.tasks.failed == (place != "hook")
    assert run.stats.events.failed == (place == "hook")


@pytest.mark.parametrize("harmless", HARMLESS)
async def test_what_does_no_harm(place: Place, config: MakeConfig, tmp_path: Path, harmless: str) -> None:
    before = standard_streams()
    async with enduring(tmp_path, config(), put(place, harmless)) as run:
        await run.wrong()
        await run.wrong()
    assert run.errors == []
    assert [(each.st_dev, each.st_ino) for each in standard_streams()] == [(s.st_dev, s.st_ino) for s in before]


async def test_printing_after_the_streams_were_closed(
    place: Place, config: MakeConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    close = "io.stdin:close() io.stdout:close() io.stderr:close() "
    body = close + "print('printed') io.write('written\\n') io.stdout:flush() io.stderr:write('said\\n') io.read('*l')"
    async with enduring(tmp_path, config(), put(place, body)) as run:
        await run.wrong()
        await run.wrong()
    assert run.errors == []
    out, said = capfd.readouterr()
    assert (out, said) == ("printed\nwritten\n" * 2, "said\n" * 2)
