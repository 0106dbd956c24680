"""Workers that are threads, where they are unlike processes.

Nothing can end a thread: one that is stuck is left behind, counted, and what it still brings is late. And a chunk is
Lua's as a whole once it has crossed, where a process gets its tasks one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.offload import Status
from engine.offload import worker as worker_module
from engine.offload.worker import WorkerFunctions
from engine.values.errors import EngineError
from tests.offload.rig import ECHO, WAIT, Hold, Rig, closes
from tests.offload.worker_rig import FAILED, RESULT, Exchange, Made
from tests.support import WorkerKind, eventually

Make = Callable[..., Made]
MakeHold = Callable[[], Hold]

MIB = 1 << 20

SEEN = "seen = (seen or 0) + 1 return seen"
CALM = "return #(...)"
HOG = "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(100) .. i end"


@pytest.fixture
def worker_kind() -> WorkerKind:
    return "thread"


# ---- left behind


async def test_a_thread_past_its_timeout_is_stuck_until_its_task_ends(rig: Rig, hold: MakeHold) -> None:
    queue, slow = rig.queue(), hold()
    rig.lua(queue, WAIT, slow.data, timeout=0.05)
    await slow.entered()
    await rig.settled()
    assert (queue.stats().late_results, queue.stats().stuck_threads) == (0, 1)
    slow.release()
    await eventually(lambda: queue.stats().late_results == 1 and queue.stats().stuck_threads == 0)
    assert len(rig.delivered) == 1


async def test_what_an_abandoned_thread_still_brings_is_late(rig: Rig, hold: MakeHold) -> None:
    queue, slow = rig.queue(), hold()
    rig.lua(queue, WAIT, slow.data)
    await slow.entered()
    queue.abandon()
    assert queue.stats().stuck_threads == 1
    slow.release()
    await eventually(lambda: queue.stats().late_results == 1)
    assert queue.stats().abandoned == 1
    assert closes(queue.stats())


# ---- a state that can't be trusted


async def test_a_worker_that_fails_fails_only_what_it_held(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    real, built = worker_module.install_worker, []

    def install(*args: Any, exchange: Callable[..., Any], **kwargs: Any) -> Any:
        built.append(1)
        if len(built) > 1:
            return real(*args, exchange=exchange, **kwargs)

        def drain(_hold: float) -> tuple[int, bool]:
            exchange(True)
            raise MemoryError("the state is spent")

        return WorkerFunctions(drain, lambda *_: None)

    monkeypatch.setattr(worker_module, "install_worker", install)
    queue = rig.queue(2)
    tasks = [rig.lua(queue, ECHO, b"x") for _ in range(10)]
    await rig.settled()
    failed = [task for task in tasks if rig.outcome(task).status is Status.FAILED]
    assert len(failed) == 1
    assert rig.outcome(failed[0]).value == b"worker failed: the state is spent"
    assert queue.stats().completed == 9


# ---- chunks


def test_a_chunk_is_run_to_its_end_before_the_state_is_dropped(make: Make) -> None:
    exchange = Exchange([(number, 1, b"") for number in range(5)], [(9, 1, b"")])
    made = make(exchange, {1: SEEN}, max_tasks=2)
    assert made.drain() == 5
    assert 9 not in exchange.results
    assert made.drain() == 1
    assert exchange.results[9][1] == b"1"


def test_those_behind_one_that_took_too_much_memory_fail_alike_but_those_before_do_not(make: Make) -> None:
    exchange = Exchange([(1, 1, b"x"), (2, 2, b""), (3, 1, b"x")])
    make(exchange, {1: CALM, 2: HOG}, memory_bytes=16 * MIB).drain()
    assert [exchange.results[number][0] for number in (1, 2, 3)] == [RESULT, FAILED, FAILED]


def test_data_past_the_limit_fails_the_run(make: Make) -> None:
    """What Python hands in is not refused there: LuaJIT would jump out of it with the GIL held."""
    exchange = Exchange([(1, 1, b"x" * (20 * MIB))])
    made = make(exchange, {1: CALM, 2: "T.loginfo('unload')"}, memory_bytes=16 * MIB, onunload=(2, b""))
    with pytest.raises(EngineError, match=r"^out of memory: the worker's limit is 16 MiB$"):
        made.drain()
    made.reset()
    assert made.logged == [(7, b"unload")]
    assert made.drain([(2, 1, b"x")]) == 1
    assert exchange.results[2][:2] == (RESULT, b"1")
