"""WorkerThread: jobs in order, nothing of them kept. Workers of both kinds: what tasks come to, how results go back."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.offload.worker import WorkerThread
from lua_api import Effect
from tests.offload.rig import ECHO, FAIL, INNER, NOTHING, ODD
from tests.offload.worker_rig import DONE, FAILED, RESULT, Exchange, code_of
from tests.support import DEADLINE, PluginLua, no_threads_left


@pytest.fixture
def thread() -> Iterator[WorkerThread]:
    with no_threads_left():
        thread = WorkerThread("test-worker")
        yield thread
        thread.end()


# ---- the thread


def test_jobs_run_in_order_on_one_thread(thread: WorkerThread) -> None:
    ran: list[tuple[int, str]] = []
    futures = [thread.submit(lambda n: ran.append((n, threading.current_thread().name)), n) for n in range(50)]
    for future in futures:
        future.result(DEADLINE)
    assert ran == [(n, "test-worker") for n in range(50)]


def test_a_job_that_raises_does_not_end_the_thread(thread: WorkerThread) -> None:
    with pytest.raises(ZeroDivisionError):
        thread.submit(lambda: 1 // 0).result(DEADLINE)
    assert thread.submit(lambda: "next").result(DEADLINE) == "next"


def test_a_cancelled_job_is_skipped(thread: WorkerThread) -> None:
    gate, ran = threading.Event(), []
    first = thread.submit(gate.wait, DEADLINE)
    second = thread.submit(ran.append, 1)
    assert second.cancel()
    gate.set()
    assert first.result(DEADLINE)
    thread.submit(lambda: None).result(DEADLINE)
    assert ran == []


def test_the_end_comes_after_the_queued_jobs(thread: WorkerThread) -> None:
    ran: list[int] = []
    for n in range(10):
        thread.submit(ran.append, n)
    assert not thread.gone.is_set()
    thread.end().result(DEADLINE)
    thread.join(DEADLINE)
    assert ran == list(range(10))
    assert thread.gone.is_set()


def test_shutdown_waits(thread: WorkerThread) -> None:
    done = thread.submit(lambda: None)
    thread.shutdown()
    assert done.done()
    assert thread.gone.is_set()


def test_nothing_of_a_job_lives_on_while_the_thread_waits(thread: WorkerThread) -> None:
    class Job:
        def __call__(self, _argument: object) -> None:
            pass

    job, argument = Job(), Job()
    references = [weakref.ref(job), weakref.ref(argument)]
    thread.submit(job, argument).result(DEADLINE)
    thread.submit(lambda: None).result(DEADLINE)
    del job, argument
    gc.collect()
    assert [reference() for reference in references] == [None, None]


# ---- a worker of either kind


def test_what_tasks_come_to(make: Any) -> None:
    exchange = Exchange(
        [(1, ECHO, b"a\0"), (2, ECHO, b""), (3, FAIL, b"wrong"), (4, NOTHING, b""), (5, ODD, b"said"), (6, INNER, b"")]
    )
    made = make(exchange)
    assert made.drain() == 6
    results = exchange.results
    assert results[1] == (RESULT, b"a\0", False)
    assert results[2] == (RESULT, b"", False)
    assert results[3][:2] == (FAILED, b"wrong")
    assert results[4] == (DONE, False, False)
    assert results[5] == (DONE, False, False)
    assert b"T.async is not available inside onexecute" in results[6][1]
    assert made.logged == [(7, b"said"), (5, b"onexecute returned a table, which is ignored: return a string")]
    assert exchange.threads == {"worker"}


@pytest.mark.parametrize(
    ("source", "status", "value"),
    [
        ("return 5", RESULT, b"5"),
        ("return 0.5, 'second'", RESULT, b"0.5"),
        ("return true", DONE, False),
        ("\nerror('here')", FAILED, b"task.lua:2: here"),
        ("error()", FAILED, b"error object: nil"),
        ("local x = ('x'):rep(1e6) return x:rep(3000)", FAILED, b"not enough memory"),
        ("return T.util ~= nil and type(T.logerror)", RESULT, b"function"),
        ("return tostring(engine) .. tostring(TrisulPlugin)", RESULT, b"nilnil"),
        ("os.exit(1)", FAILED, b"task.lua:1: os.exit is not available: it would end the whole process"),
        ("return type(require('JSON'):encode({}))", RESULT, b"string"),
    ],
)
def test_one_task(make: Any, source: str, status: int, value: Any) -> None:
    exchange = Exchange([(1, 1, b"")])
    make(exchange, {1: code_of(source)}).drain()
    assert exchange.results[1][:2] == (status, value)


def test_a_traceback_has_no_frames_of_the_host(make: Any) -> None:
    exchange = Exchange([(1, 1, b"")])
    make(exchange, {1: code_of("local function inner() error('x') end\ninner()")}).drain()
    trace = exchange.results[1][2]
    assert b"task.lua:1: in function 'inner'" in trace
    assert b"offpath" not in trace


@pytest.mark.parametrize(
    "name", ["type", "tostring", "error", "pcall", "require", "loadstring", "unpack", "T", "assert"]
)
def test_a_global_that_a_task_overwrites_does_not_break_the_worker(make: Any, name: str) -> None:
    codes = {
        1: code_of(f"{name} = nil"),
        2: code_of("error('still')"),
        3: code_of("return 'works'"),
        4: code_of("return {}"),
    }
    exchange = Exchange([(number, number, b"") for number in codes])
    make(exchange, codes).drain()
    assert [exchange.results[number][0] for number in codes] == [DONE, FAILED, RESULT, DONE]


def test_upvalues_cross(make: Any) -> None:
    lua = PluginLua()
    effects = lua.run(
        "local greeting, add = 'hello ', function(x) return x .. '!' end "
        "for i = 1, 3 do "
        "T.async:schedule{onexecute = function(d) return add(greeting .. d) end, data = tostring(i)} end"
    )
    lua.state.close()
    codes = {values[0]: values[1] for effect, values in effects if effect is Effect.CODE}
    exchange = Exchange([(v[0], *v[3:7]) for effect, v in effects if effect is Effect.SCHEDULE])
    made = make(exchange, codes)
    made.drain()
    assert [exchange.results[number][1] for number in (1, 2, 3)] == [b"hello 1!", b"hello 2!", b"hello 3!"]
    assert sorted(made.loaded) == sorted(codes)
    assert len(codes) == 2


def test_require_finds_a_sibling_of_the_script_and_the_roots(make: Any, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "sibling.lua").write_text("return { name = 'sibling' }")
    (tmp_path / "root" / "far.lua").write_text("return { name = 'far' }")
    codes = {1: "return require((...)).name", 2: "return type(require('JSON').decode)"}
    exchange = Exchange([(1, 1, b"sibling"), (2, 1, b"far"), (3, 2, b"")])
    make(exchange, codes, directory=str(tmp_path), roots=(str(tmp_path / "root"),)).drain()
    assert [exchange.results[number][1] for number in (1, 2, 3)] == [b"sibling", b"far", b"function"]


def test_ten_thousand_tasks_in_their_order(make: Any) -> None:
    exchange = Exchange(*([(n, ECHO, b"%d" % n) for n in range(at, at + 250)] for at in range(0, 10_000, 250)))
    assert make(exchange).drain() == 10_000
    assert [(row[0], row[2]) for row in exchange.rows] == [(n, b"%d" % n) for n in range(10_000)]


def test_unknown_code_fails_its_task_only(make: Any) -> None:
    exchange = Exchange([(1, 99, b""), (2, ECHO, b"b")])
    make(exchange).drain()
    assert exchange.results[1][0] == FAILED
    assert exchange.results[2][:2] == (RESULT, b"b")


def test_code_is_asked_for_once(make: Any) -> None:
    made = make(Exchange([(n, ECHO, b"") for n in range(5)], [(9, ECHO, b""), (10, NOTHING, b"")]))
    made.drain()
    assert made.loaded == [ECHO, NOTHING]


def test_chunks_follow_until_there_is_none(make: Any) -> None:
    exchange = Exchange([(1, ECHO, b"")], [(2, ECHO, b""), (3, ECHO, b"")])
    assert make(exchange).drain() == 3
    asked = [given for more, given in exchange.calls if more]
    assert asked[0] == []
    assert len(asked) == 3
    assert sorted(exchange.results) == [1, 2, 3]


def test_results_go_back_before_the_next_task_begins(make: Any) -> None:
    exchange = Exchange([(1, ECHO, b""), (2, ECHO, b""), (3, ECHO, b"")])
    make(exchange).drain()
    assert exchange.calls == [(True, []), (False, [1]), (False, [2]), (True, [3])]


def test_a_recursion_without_end_fails_its_task(make: Any) -> None:
    exchange = Exchange([(1, 1, b"")])
    make(exchange, {1: code_of("local function f() return 1 + f() end f()")}).drain()
    status, message, _ = exchange.results[1]
    assert status == FAILED
    assert message.endswith(b"stack overflow")  # compiled code says it without the place


def test_a_state_lasts_until_it_is_reset(make: Any) -> None:
    codes = {1: code_of("seen = (seen or 0) + 1 return seen")}
    exchange = Exchange([(1, 1, b"")])
    made = make(exchange, codes)
    made.drain()
    exchange.chunks.append([(2, 1, b"")])
    made.drain()
    made.reset()
    exchange.chunks.append([(3, 1, b"")])
    made.drain()
    assert [exchange.results[number][1] for number in (1, 2, 3)] == [b"1", b"2", b"1"]


def test_an_exchange_that_raises_comes_out_of_the_drain(make: Any) -> None:
    class Broken(Exchange):
        def __call__(self, more: bool, *flat: Any) -> tuple[Any, ...] | None:
            raise LookupError("no exchange")

    with pytest.raises(LookupError, match="no exchange"):
        make(Broken()).drain()
