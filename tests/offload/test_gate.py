"""Gate: one wake-up at a time, slices, deadlines, and counts that add up at every moment.

It knows nothing of workers but that each has a thread, so most of this is tested with one kind.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.offload import Status
from engine.offload import gate as gate_module
from tests.offload.rig import ECHO, FAIL, NOTHING, WAIT, WORKERS, Hold, Rig, closes, running_rig, turns
from tests.support import WorkerKind, eventually, no_threads_left

MakeHold = Callable[[], Hold]


@pytest.fixture
def worker_kind() -> WorkerKind:
    return "thread"


class CountingLoop:
    """The running loop, with the wake-ups of the gate counted: how many, and how many at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self.armed = self.most = self.total = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any) -> Any:
        with self._lock:
            self.total += 1
            self.armed += 1
            self.most = max(self.most, self.armed)

        def called() -> None:
            with self._lock:
                self.armed -= 1
            callback(*args)

        return self._loop.call_soon_threadsafe(called)


# ---- the way home


async def test_one_wake_up_is_armed_at_a_time(rig: Rig) -> None:
    loop = CountingLoop(rig.gate.loop)
    rig.gate.loop = loop  # type: ignore[assignment]
    queues = [rig.queue(workers) for workers in (1, 1, 4)]
    for _ in range(300):
        for queue in queues:
            rig.lua(queue, ECHO, b"x")
    await rig.settled()
    assert loop.most == 1
    assert loop.armed == 0
    assert 1 <= loop.total <= 900


async def test_a_thousand_calls_share_a_wake_up(rig: Rig) -> None:
    loop = CountingLoop(rig.gate.loop)
    rig.gate.loop = loop  # type: ignore[assignment]
    called: list[int] = []
    thread = threading.Thread(target=lambda: [rig.gate.call_threadsafe(called.append, n) for n in range(1000)])
    thread.start()
    thread.join()  # the loop does not turn meanwhile
    await eventually(lambda: len(called) == 1000)
    assert called == list(range(1000))
    assert loop.total == 1


async def test_outcomes_given_together_wake_the_loop_only_after_a_rest(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "_REST_SECONDS", 3600.0)
    loop = CountingLoop(rig.gate.loop)
    rig.gate.loop = loop  # type: ignore[assignment]
    settled: list[int] = []
    queue: Any = Mock(settle=settled.extend)
    rig.gate.give_together(queue, [1])
    await eventually(lambda: settled == [1])
    for number in (2, 3):
        rig.gate.give_together(queue, [number])
        await turns()
    assert settled == [1]
    assert loop.total == 1
    rig.gate._rested()
    assert settled == [1, 2, 3]
    rig.gate.give_together(queue, [4])
    rig.gate.give(queue, [5])  # does not wait for the end of the rest, and takes along what does
    await eventually(lambda: settled[3:] == [4, 5])
    assert loop.total == 2


async def test_calls_from_many_threads_all_arrive_each_thread_in_order(rig: Rig) -> None:
    called: list[tuple[int, int]] = []

    def call(number: int) -> None:
        for n in range(500):
            rig.gate.call_threadsafe(called.append, (number, n))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    await eventually(lambda: len(called) == 2000)
    for thread in threads:
        thread.join()
    for number in range(4):
        assert [n for each, n in called if each == number] == list(range(500))


async def test_collecting_lets_the_loop_run_in_between(rig: Rig) -> None:
    order: list[str] = []

    def slow(name: str) -> None:
        order.append(name)
        time.sleep(0.006)  # more than a slice

    for name in ("a", "b", "c"):
        rig.gate.call_threadsafe(slow, name)
    await asyncio.sleep(0)
    rig.gate.loop.call_soon(order.append, "loop")
    await eventually(lambda: len(order) == 4)
    assert [name for name in order if name != "loop"] == ["a", "b", "c"]
    assert order.index("loop") < 3


async def test_all_of_it_is_collected_when_asked(rig: Rig) -> None:
    order: list[int] = []
    queue = rig.queue()
    for n in range(3):
        rig.gate.call_in_line(queue, lambda n=n: (order.append(n), time.sleep(0.006)))
        rig.gate.call_in_line(rig.queue(), order.append, -1)
    rig.gate.collect_all(queue)
    assert order == [0, 1, 2]


def test_after_the_loop_is_closed_nothing_is_raised() -> None:
    async def closed() -> Rig:
        rig = Rig()
        await rig.gate.close()
        return rig

    called: list[int] = []
    with no_threads_left():
        asyncio.run(closed()).gate.call_threadsafe(called.append, 1)
    assert called == []


async def test_a_queue_is_pumped_once_a_turn(rig: Rig) -> None:
    pumped: list[int] = []

    class Queue:
        def __init__(self, number: int) -> None:
            self.number = number

        def pump(self) -> None:
            pumped.append(self.number)

    first, second = Queue(1), Queue(2)
    for _ in range(5):
        rig.gate.pump_soon(first)  # type: ignore[arg-type]
        rig.gate.pump_soon(second)  # type: ignore[arg-type]
    await eventually(lambda: pumped)
    assert pumped == [1, 2]
    rig.gate.pump_soon(first)  # type: ignore[arg-type]
    await eventually(lambda: len(pumped) == 3)


# ---- waiting and the end


async def test_drain_waits_for_everything(rig: Rig) -> None:
    one, two = rig.queue(), rig.queue(2)
    for queue in (one, two) * 50:
        rig.lua(queue, ECHO, b"x")
    assert rig.gate.pending == 100
    assert await rig.gate.drain(20) is True
    assert rig.gate.pending == 0
    assert rig.gate.stats().completed == 100


async def test_a_queue_is_half_full_when_more_than_half_of_its_own_limit_is_pending(rig: Rig) -> None:
    roomy, small = rig.queue(), rig.queue(limit=4)
    for _ in range(100):
        rig.lua(roomy, ECHO, b"x")
    for _ in range(2):
        rig.lua(small, ECHO, b"x")
    assert not rig.gate.half_full
    rig.lua(small, ECHO, b"x")
    assert rig.gate.half_full
    await rig.settled()
    assert not rig.gate.half_full


async def test_drain_abandons_at_its_deadline(rig: Rig, hold: MakeHold) -> None:
    queue, slow = rig.queue(), hold()
    done = rig.lua(queue, ECHO, b"x", timeout=60)
    rig.lua(queue, WAIT, slow.data)
    rig.lua(queue, ECHO, b"behind")
    await slow.entered()
    assert await rig.gate.drain(0.05) is False
    assert rig.outcome(done).status is Status.RESULT
    counts = rig.gate.stats()
    assert (counts.completed, counts.abandoned, counts.pending) == (1, 2, 0)
    slow.release()
    await eventually(lambda: queue.stats().stuck_threads == 0)


async def test_drain_of_one_queue_leaves_the_others(rig: Rig, hold: MakeHold) -> None:
    queue, other, slow = rig.queue(), rig.queue(), hold()
    rig.lua(other, WAIT, slow.data)
    rig.lua(queue, ECHO, b"x")
    assert await rig.gate.drain(20, queue=queue) is True
    assert other.pending == 1
    await slow.entered()
    slow.release()
    await rig.settled()


async def test_settle_gives_up_when_nothing_moves(rig: Rig, hold: MakeHold) -> None:
    queue, slow = rig.queue(), hold()
    rig.lua(queue, WAIT, slow.data)
    await slow.entered()
    assert await rig.gate.settle(patience=0.05) is False
    assert queue.pending == 1
    slow.release()
    assert await rig.gate.settle(patience=20) is True
    assert queue.pending == 0


async def test_closing_keeps_the_counts_of_queues_that_are_gone(rig: Rig) -> None:
    queue = rig.queue()
    for _ in range(5):
        rig.lua(queue, ECHO, b"x")
    queue.reject(2)
    await rig.settled()
    await rig.gate.close_queue(queue)
    counts = rig.gate.stats()
    assert (counts.submitted, counts.completed, counts.rejected) == (7, 5, 2)
    assert counts == queue.stats()
    assert (counts.runs.count, counts.waits.count, counts.workers) == (5, 5, ())


async def test_a_thread_that_will_not_end_is_said_and_left_behind(
    hold: MakeHold, caplog: pytest.LogCaptureFixture
) -> None:
    slow = hold()
    with no_threads_left():
        async with running_rig() as rig:
            rig.lua(rig.queue(name="script.lua"), WAIT, slow.data)
            await slow.entered()
            with caplog.at_level(logging.WARNING, logger="offpath.offload"):
                await rig.gate.close()
            assert rig.gate.stats().stuck_threads == 1
        assert [record.getMessage() for record in caplog.records] == [
            "script.lua: 1 thread(s) still run a task and are left behind"
        ]
        slow.release()


async def test_while_the_first_queue_is_closed_nothing_of_another_starts(rig: Rig, hold: MakeHold) -> None:
    first, second, slow = rig.queue(), rig.queue(), hold()
    rig.lua(first, WAIT, slow.data)
    await slow.entered()
    late = rig.lua(second, ECHO, b"x")
    await rig.gate.close()  # waits a while for the first
    assert rig.outcome(late).status is Status.ABANDONED
    slow.release()


async def test_a_cancellation_is_heard_even_when_something_settles_at_that_moment(rig: Rig, hold: MakeHold) -> None:
    queue, slow = rig.queue(), hold()
    rig.lua(queue, WAIT, slow.data)
    await slow.entered()
    waiting = asyncio.ensure_future(rig.gate.settle(patience=60))
    await turns()
    rig.gate.collect()
    waiting.cancel()
    await asyncio.wait([waiting], timeout=1)
    assert waiting.cancelled()
    slow.release()
    await rig.settled()


@pytest.mark.parametrize("kind", WORKERS)
@pytest.mark.parametrize("workers", [1, 2])
async def test_ten_thousand_tasks_and_an_immediate_end(kind: WorkerKind, workers: int) -> None:
    with no_threads_left():
        async with running_rig(kind) as rig:
            queue = rig.queue(workers)
            for n in range(10_000):
                rig.lua(queue, FAIL if n % 10 == 0 else ECHO, b"x")
            queue.reject(17)
            await eventually(lambda: queue.settled > 0)
        counts = rig.gate.stats()
        assert counts.submitted == 10_017
        assert counts.completed + counts.failed + counts.abandoned == 10_000
        assert len(rig.delivered) == 10_000
        assert len({id(outcome.task) for outcome in rig.delivered}) == 10_000


# ---- counts at any moment

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("lua"), st.integers(0, 1), st.sampled_from([ECHO, FAIL, NOTHING]), st.integers(1, 40)),
        st.tuples(st.just("file"), st.integers(0, 1), st.integers(0, 2), st.integers(1, 10)),
        st.tuples(st.just("reject"), st.integers(0, 1), st.integers(0, 5)),
        st.tuples(st.just("turn"), st.integers(1, 30)),
        st.tuples(st.just("collect")),
        st.tuples(st.just("wait")),
        st.tuples(st.just("abandon"), st.integers(0, 1)),
    ),
    max_size=14,
)


@pytest.mark.parametrize("kind", WORKERS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS, workers=st.integers(1, 3))
def test_counts_add_up_whatever_happens(tmp_path: Any, kind: WorkerKind, steps: list[Any], workers: int) -> None:
    async def scenario() -> None:
        async with running_rig(kind) as rig:
            queues = [rig.queue(workers), rig.queue(1)]
            tasks = []
            for step, *details in steps:
                if step == "lua":
                    at, code, count = details
                    tasks += [rig.lua(queues[at], code, b"x") for _ in range(count)]
                elif step == "file":
                    at, name, count = details
                    tasks += [rig.operation(queues[at], "rm", target=tmp_path / str(name)) for _ in range(count)]
                elif step == "reject":
                    queues[details[0]].reject(details[1])
                elif step == "turn":
                    for _ in range(details[0]):
                        await asyncio.sleep(0)
                elif step == "collect":
                    rig.gate.collect()
                elif step == "wait":
                    await rig.settled()
                else:
                    queues[details[0]].abandon()
                for queue in queues:
                    assert closes(queue.stats())
                assert rig.gate.pending == len(tasks) - len(rig.delivered)
        assert sorted(rig.ids()) == [task.id for task in tasks]

    asyncio.run(scenario())
