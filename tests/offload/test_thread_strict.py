"""Threads with strict timeouts: whatever Lua code a task is at, it ends in time, and the worker goes on.

Processes have no use for them: they are killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.offload.worker_rig import FAILED, RESULT, Exchange, Made
from tests.support import WorkerKind

Make = Callable[..., Made]

TIMEOUT = 0.05  # seconds; a task that is not ended in time fails at the deadline of the run

ENDLESS = [
    "while true do end",
    "repeat until false",
    "for i = 1, math.huge do end",
    "while true do pcall(function() while true do end end) end",
    "while true do pcall(function() while true do pcall(function() while true do end end) end end) end",
    "while true do xpcall(function() while true do end end, function() while true do end end) end",
    "while true do xpcall(error, function(e) while true do end end) end",
    "while true do local c = coroutine.create(function() while true do end end) coroutine.resume(c) end",
    "while true do coroutine.wrap(function() pcall(function() while true do end end) end)() end",
    "local c = coroutine.wrap(function() while true do pcall(coroutine.yield) end end) while true do c() end",
    "error(setmetatable({}, { __tostring = function() while true do end end }))",
    "local function again() return again() end again()",
    "while true do ('x'):rep(100):gsub('.', function() return (pcall(error)) end) end",
    "local t = {} for i = 1, 1000 do t[i] = i end while true do table.sort(t, function(a, b) return a > b end) end",
    "return pcall(function() while true do end end)",
    "jit.on() while true do end",
    "pcall(debug.sethook) while true do end",
    "xpcall = nil pcall = nil error = nil while true do end",
]


@pytest.fixture
def worker_kind() -> WorkerKind:
    return "thread"


@pytest.mark.parametrize("source", ENDLESS)
def test_a_task_that_never_ends_is_ended(make: Make, source: str) -> None:
    exchange = Exchange([(1, 1, b"", TIMEOUT)], [(2, 2, b"in", TIMEOUT)])
    began = time.monotonic()
    assert make(exchange, {1: source, 2: "return (...) .. ' time'"}, strict_timeout=True).drain() == 2
    assert time.monotonic() - began >= TIMEOUT
    assert exchange.results[1][:2] == (FAILED, b"timeout")
    assert exchange.results[2][:2] == (RESULT, b"in time")


def test_it_says_where_the_task_was(make: Make) -> None:
    exchange = Exchange([(1, 1, b"", TIMEOUT)])
    make(exchange, {1: "local function spin()\nwhile true do end\nend\nspin()"}, strict_timeout=True).drain()
    trace = exchange.results[1][2]
    assert b"task.lua:2: in function 'spin'" in trace
    assert b"offpath" not in trace


def test_a_task_without_a_timeout_is_not_watched(make: Make) -> None:
    exchange = Exchange([(1, 1, b"", TIMEOUT), (2, 2, b"")])
    codes = {1: "while true do end", 2: "for i = 1, 1e7 do end return tostring(debug.gethook())"}
    make(exchange, codes, strict_timeout=True).drain()
    assert exchange.results[2][:2] == (RESULT, b"nil")


@pytest.mark.parametrize(
    ("source", "status", "value"),
    [
        ("for i = 1, 1e6 do end return 'done'", RESULT, b"done"),
        ("\nerror('own')", FAILED, b"task.lua:2: own"),
        ("return select(2, xpcall(error, function(e) return 'handled ' .. e end, 'it'))", RESULT, b"handled it"),
        ("return tostring((xpcall(print, 5)))", RESULT, b"true"),
        ("return tostring(jit.status())", RESULT, b"false"),
        ("local f = xpcall return tostring(f == _G.xpcall)", RESULT, b"true"),
    ],
)
def test_tasks_within_their_time_are_as_ever(make: Make, source: str, status: int, value: bytes) -> None:
    exchange = Exchange([(1, 1, b"", 60.0)])
    make(exchange, {1: source}, strict_timeout=True).drain()
    assert exchange.results[1][:2] == (status, value)


def test_many_of_them_one_after_the_other(make: Make) -> None:
    exchange = Exchange(*([(number, 1, b"", 0.001)] for number in range(100)))
    made = make(exchange, {1: ENDLESS[3]}, strict_timeout=True)
    assert made.drain() == 100
    assert {result[:2] for result in exchange.results.values()} == {(FAILED, b"timeout")}
    assert made.worker.states_built == 1


def test_with_a_memory_limit_too(make: Make) -> None:
    hog = "local t = {} while true do pcall(function() for i = 1, 1e9 do t[i] = ('x'):rep(100) .. i end end) end"
    exchange = Exchange([(1, 1, b"", 2.0)])
    made = make(exchange, {1: hog, 2: "return 'well'"}, strict_timeout=True, memory_bytes=4 << 20)
    made.drain()
    assert exchange.results[1][0] == FAILED
    exchange.chunks.append([(2, 2, b"", 60.0)])
    made.drain()
    assert exchange.results[2][:2] == (RESULT, b"well")


def test_other_workers_keep_the_compiler(make: Make) -> None:
    exchange = Exchange([(1, 1, b"")])
    make(exchange, {1: "return tostring(jit.status())"}).drain()
    assert exchange.results[1][1] == b"true"
