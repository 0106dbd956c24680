"""What happens to a worker's state, in a thread or in a process: prepared, counted, limited, dropped, built anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.offload import worker as worker_module
from engine.offload.task import Status
from tests.offload.worker_rig import DONE, FAILED, RESULT, RUN_FAILED, Exchange, Made, code_of, pack_of

Make = Callable[..., Made]

MIB = 1 << 20

LOAD, UNLOAD, SEEN, HOG, KEEP, CALM = 1, 2, 3, 4, 5, 6

CODES = {
    LOAD: "T.loginfo('load') handle, T.mine = 'open', 'of T'",
    UNLOAD: "T.loginfo('unload ' .. tostring(handle)) handle = nil",
    SEEN: "seen = (seen or 0) + 1 return tostring(handle) .. ' ' .. tostring(T.mine) .. ' ' .. seen",
    HOG: "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(100) .. i end",
    KEEP: "kept = kept or {} for i = 1, 1e9 do kept[i] = ('x'):rep(100) .. i end",
    CALM: "return tostring(#(...)) .. ' ' .. tostring(kept ~= nil)",
}
BOTH = {"onload": (LOAD, b""), "onunload": (UNLOAD, b"")}


def values(exchange: Exchange) -> dict[int, Any]:
    return {number: result[1] for number, result in exchange.results.items()}


def texts(made: Made) -> list[str]:
    return [text.decode() for _, text in made.logged]


# ---- async_onload, async_onunload


def test_a_state_is_prepared_once_before_its_first_task(make: Make) -> None:
    exchange = Exchange([(1, SEEN, b""), (2, SEEN, b"")])
    made = make(exchange, CODES, **BOTH)
    made.drain()
    exchange.chunks.append([(3, SEEN, b"")])
    made.drain()
    assert values(exchange) == {1: b"open of T 1", 2: b"open of T 2", 3: b"open of T 3"}
    assert texts(made) == ["load"]


def test_a_state_is_unloaded_before_it_is_dropped(make: Make) -> None:
    exchange = Exchange([(1, SEEN, b"")])
    made = make(exchange, CODES, **BOTH)
    made.drain()
    made.reset()
    made.reset()
    assert texts(made) == ["load", "unload open"]
    exchange.chunks.append([(2, SEEN, b"")])
    made.drain()
    made.worker.close().ended.result(5)
    assert values(exchange) == {1: b"open of T 1", 2: b"open of T 1"}
    assert texts(made) == ["load", "unload open"] * 2


def test_a_worker_that_was_never_used_has_nothing_to_unload(make: Make) -> None:
    made = make(Exchange(), CODES, **BOTH)
    made.worker.close().ended.result(5)
    assert made.logged == []


def test_a_stopped_worker_is_not_unloaded(make: Make) -> None:
    made = make(Exchange([(1, SEEN, b"")]), CODES, **BOTH)
    made.drain()
    made.worker.stop()
    made.worker.close().ended.result(5)
    assert texts(made) == ["load"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "\nerror('no server')",
            "async_onload: task.lua:2: no server\nstack traceback:\n\t[C]: in function 'error'\n\ttask.lua:2: in ",
        ),
        ("error()", "async_onload: error object: nil"),
        ("local function f() return 1 + f() end f()", "async_onload: "),
    ],
)
def test_a_state_that_cannot_be_prepared_is_given_up(make: Make, source: str, message: str) -> None:
    exchange = Exchange([(1, SEEN, b"")])
    made = make(exchange, CODES | {LOAD: source}, **BOTH)
    with pytest.raises(RUN_FAILED, match=r"^async_onload: "):
        made.drain()
    [(level, logged)] = made.logged
    assert (level, logged.decode()[: len(message)]) == (4, message)
    assert b"offpath/" not in logged
    assert exchange.results == {}
    made.reset()
    assert len(made.logged) == 1  # nothing to unload


def test_preparing_is_not_tried_again_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(worker_module.time, "monotonic", lambda: now[0])
    exchange = Exchange([(1, SEEN, b"")])
    made = make(exchange, CODES | {LOAD: "error('down', 0)"}, **BOTH)
    for _ in range(50):
        with pytest.raises(RUN_FAILED, match=r"^async_onload: down$"):
            made.drain()
        made.reset()
    assert made.worker.states_built == 1
    made.codes[LOAD] = code_of(CODES[LOAD])
    now[0] += 1.0
    assert made.drain() == 1
    assert values(exchange) == {1: b"open of T 1"}
    assert texts(made)[1:] == ["load"]


def test_what_unloading_raises_is_logged_and_no_more(make: Make) -> None:
    exchange = Exchange([(1, SEEN, b"")])
    made = make(exchange, CODES | {UNLOAD: "\n\nerror('still busy')"}, **BOTH)
    made.drain()
    made.reset()
    assert texts(made)[1].startswith("async_onunload: task.lua:3: still busy\nstack traceback:\n")
    exchange.chunks.append([(2, SEEN, b"")])
    made.drain()
    assert values(exchange)[2] == b"open of T 1"


def test_only_one_of_the_two_may_be_there(make: Make) -> None:
    for fields, logged in (({"onload": (LOAD, b"")}, ["load"]), ({"onunload": (UNLOAD, b"")}, ["unload nil"])):
        made = make(Exchange([(1, SEEN, b"")]), CODES, **fields)
        made.drain()
        made.reset()
        assert texts(made) == logged


# ---- after so many tasks


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_state_is_dropped_after_its_tasks(make: Make, limit: int) -> None:
    exchange = Exchange(*([(number, SEEN, b"")] for number in range(1, 7)))
    made = make(exchange, CODES, max_tasks=limit, **BOTH)
    runs = [made.drain() for _ in range(6 // limit)]
    assert runs == [limit] * (6 // limit)
    assert values(exchange) == {n: f"open of T {(n - 1) % limit + 1}".encode() for n in range(1, 7)}
    assert made.worker.states_built == 6 // limit
    assert made.worker.tasks_run == 6
    assert texts(made) == ["load", "unload open"] * (6 // limit)


def test_the_rest_of_a_pack_is_given_back(make: Make) -> None:
    exchange = Exchange([pack_of(7, *[(SEEN, b"")] * 5)])
    made = make(exchange, CODES, max_tasks=3)
    assert made.drain() == 3
    assert [row[:3] for row in exchange.rows if row[1] == Status.PACK_END] == [(7, Status.PACK_END, 3)]
    exchange.chunks.append([pack_of(8, *[(SEEN, b"")] * 2)])
    assert made.drain() == 2
    assert made.worker.states_built == 2


def test_without_a_limit_a_state_stays(make: Make) -> None:
    exchange = Exchange([(number, SEEN, b"") for number in range(1000)])
    made = make(exchange, CODES)
    assert made.drain() == 1000
    assert (made.worker.states_built, made.worker.tasks_run) == (1, 1000)


# ---- memory


def test_memory_is_reported_after_each_run(make: Make) -> None:
    exchange = Exchange([(1, 1, b"")])
    made = make(exchange, {1: "kept = ('x'):rep(8 * 2^20)", 2: "kept = nil collectgarbage() collectgarbage()"})
    assert made.worker.memory_bytes == 0
    made.drain()
    assert 8 * MIB < made.worker.memory_bytes < 32 * MIB
    exchange.chunks.append([(2, 2, b"")])
    made.drain()
    assert 0 < made.worker.memory_bytes < 8 * MIB


@pytest.mark.parametrize("code", [HOG, KEEP])
def test_the_task_that_passes_the_limit_fails_and_the_next_has_a_fresh_state(make: Make, code: int) -> None:
    exchange = Exchange([(1, CALM, b"ab")], [(2, code, b"")], [(3, CALM, b"abc")])
    made = make(exchange, CODES, memory_bytes=16 * MIB, **BOTH)
    assert made.drain() == 2
    assert exchange.results[1] == (RESULT, b"2 false", False)
    assert exchange.results[2] == (FAILED, b"out of memory: the worker's limit is 16 MiB", b"")
    assert made.drain() == 1
    assert exchange.results[3] == (RESULT, b"3 false", False)
    assert texts(made) == ["load", "unload open", "load"]
    assert made.worker.states_built == 2


def test_again_and_again(make: Make) -> None:
    exchange = Exchange()
    made = make(exchange, CODES, memory_bytes=4 * MIB)
    for number in range(40):
        exchange.chunks = [[(number, (HOG, KEEP)[number % 2], b"")], [(100 + number, CALM, b"x")]]
        made.drain()
        made.drain()
    assert {exchange.results[number][0] for number in range(40)} == {FAILED}
    assert {exchange.results[100 + number][1] for number in range(40)} == {b"1 false"}


@pytest.mark.parametrize(
    "source",
    [
        "return ('x'):rep(40e6)",
        "return #require('ffi').new('char[?]', 40e6) .. ''",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "local t = {} for i = 1, 1e9 do t[i] = function() return i end end",
        "local t = {} for i = 1, 1e9 do t[i] = coroutine.create(print) end",
        "local b = require('string.buffer').new() while true do b:put(('x'):rep(1e5)) end",
        "error(('x'):rep(40e6))",
        "local t = {} local function f(i) t[i] = ('y'):rep(1000) .. i return 1 + f(i + 1) end f(1)",
    ],
)
def test_ways_to_take_too_much(make: Make, source: str) -> None:
    exchange = Exchange([(1, 1, b"")])
    made = make(exchange, {1: source, 2: "return 'well'"}, memory_bytes=16 * MIB)
    made.drain()
    assert exchange.results[1][:2] == (FAILED, b"out of memory: the worker's limit is 16 MiB")
    exchange.chunks.append([(2, 2, b"")])
    made.drain()
    assert exchange.results[2][1] == b"well"


def test_a_task_may_catch_it_and_end(make: Make) -> None:
    exchange = Exchange([(1, 1, b"")])
    made = make(exchange, {1: "return tostring(select(2, pcall(string.rep, 'x', 40e6)))"}, memory_bytes=16 * MIB)
    made.drain()
    assert exchange.results[1][1] == b"not enough memory"
    assert made.worker.states_built == 1


def test_those_behind_it_in_a_pack_are_given_back(make: Make) -> None:
    exchange = Exchange([pack_of(7, (CALM, b"x"), (HOG, b""), (CALM, b"x"), (CALM, b"x"))])
    made = make(exchange, CODES, memory_bytes=16 * MIB)
    assert made.drain() == 2
    failures = [row for row in exchange.rows if row[1] == Status.FAILED_IN_PACK]
    assert [row[2] for row in failures] == [b"out of memory: the worker's limit is 16 MiB"]
    assert [row[2] for row in exchange.rows if row[1] == Status.PACK_END] == [2]


def test_data_and_results_within_the_limit_pass(make: Make) -> None:
    exchange = Exchange(*([(number, 1, b"x" * (4 * MIB))] for number in range(20)))
    made = make(exchange, {1: "return (...) .. 'y'"}, memory_bytes=64 * MIB)
    while exchange.chunks:
        made.drain()
    assert {len(result[1]) for result in exchange.results.values()} == {4 * MIB + 1}


def test_host_functions_work_in_a_state_with_a_limit(make: Make) -> None:
    sources = {
        1: "T.loginfo(('x'):rep(1000)) return tostring(T.re2('a+'):partial_match('caat'))",
        2: "local db = require('lsqlite3').open_memory() local s for r in db:rows([[select hex(zeroblob(100000))]]) "
        "do s = r[1] end return tostring(#s)",
        3: "local db = require('lsqlite3').open_memory() for r in db:rows([[select hex(zeroblob(12000000))]]) "
        "do s = r[1] end return tostring(#s)",
        4: "return tostring(pcall(T.re2, '('))",
    }
    exchange = Exchange(*([(number, number, b"")] for number in sources))
    made = make(exchange, sources, memory_bytes=16 * MIB)
    while exchange.chunks:
        made.drain()
    assert exchange.results[1][:2] == (RESULT, b"true")
    assert exchange.results[2][:2] == (RESULT, b"200000")
    assert exchange.results[3][:2] == (FAILED, b"out of memory: the worker's limit is 16 MiB")
    assert exchange.results[4][0] == RESULT
    assert made.logged[0] == (7, b"x" * 1000)


def test_loading_past_the_limit_fails_as_async_onload(make: Make) -> None:
    made = make(Exchange([(1, CALM, b"")]), CODES | {LOAD: CODES[KEEP]}, memory_bytes=4 * MIB, **BOTH)
    with pytest.raises(RUN_FAILED, match=r"^async_onload: out of memory: the worker's limit is 4 MiB$"):
        made.drain()
    assert texts(made) == ["async_onload: out of memory: the worker's limit is 4 MiB"]


def test_an_exchange_that_raises_comes_out_of_a_limited_state(make: Make) -> None:
    class Broken(Exchange):
        def __call__(self, more: bool, *flat: Any) -> tuple[Any, ...] | None:
            raise LookupError("no exchange")

    made = make(Broken(), CODES, memory_bytes=16 * MIB, max_tasks=5)
    with pytest.raises(LookupError, match="no exchange"):
        made.drain()
    made.reset()


def test_a_small_limit_is_beyond_what_a_fresh_state_needs(make: Make) -> None:
    exchange = Exchange([(1, CALM, b"x"), (2, 7, b"")])
    made = make(exchange, CODES | {7: "return"}, memory_bytes=MIB)
    made.drain()
    assert exchange.results[1][:2] == (RESULT, b"1 false")
    assert exchange.results[2][0] == DONE
