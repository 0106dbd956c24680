"""What a plugin with much to do takes from another: nothing but its turn, be it on threads or on the way home."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.offload import Status
from engine.offload import gate as gate_module
from tests.offload.rig import ECHO, NOTHING, WAIT, HeldOperations, Hold, Rig, turns
from tests.support import eventually, no_threads_left

MakeHold = Callable[[], Hold]


class Clock:
    """The gate's clock, which stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(gate_module, "time", clock)
    return clock


# ---- threads


@pytest.mark.parametrize("workers", [1, 8, 64])
async def test_held_file_operations_of_some_queues_hold_up_no_other(
    rig: Rig, operations: HeldOperations, tmp_path: Path, workers: int
) -> None:
    flooding = [rig.queue(workers), rig.queue(workers)]
    held = [
        rig.operation(queue, "copy", "/from", tmp_path / f"{number}-{at}")
        for number, queue in enumerate(flooding)
        for at in range(200)
    ]
    await eventually(lambda: len(operations.entered) == 2 * workers)
    other = rig.queue(2)
    for number in range(20):
        mine = [rig.operation(other, "copy", "/from", tmp_path / f"other-{number}"), rig.lua(other, ECHO, b"x")]
        operations.let_go(mine[0])
        await eventually(lambda: not other.pending)
        assert [rig.outcome(task).status for task in mine] == [Status.DONE, Status.RESULT]
    assert len(operations.entered) == 2 * workers + 20, "a queue has as many runs as workers, and no more"
    operations.let_go(*held)
    await rig.settled()


@pytest.mark.parametrize("workers", [1, 8])
async def test_a_flood_whose_workers_are_all_held_holds_up_no_other(
    rig: Rig, operations: HeldOperations, hold: MakeHold, tmp_path: Path, workers: int
) -> None:
    lua, files = rig.queue(workers), rig.queue(workers)
    holds = [hold() for _ in range(workers)]
    for each in holds:
        rig.lua(lua, WAIT, each.data)
    held = [rig.operation(files, "copy", "/from", tmp_path / str(at)) for at in range(workers)]
    for _ in range(5_000):
        rig.lua(lua, ECHO, b"flood")
        rig.lua(files, ECHO, b"flood")
    for each in holds:
        await each.entered()
    await eventually(lambda: len(operations.entered) == workers)
    other = rig.queue()
    mine = [rig.lua(other, NOTHING) for _ in range(500)]
    file = rig.operation(other, "rm", target=tmp_path / "other")
    operations.let_go(file)
    await eventually(lambda: not other.pending)
    assert {rig.outcome(task).status for task in (*mine, file)} == {Status.DONE}
    assert (lua.settled, files.settled) == (0, 0)
    for each in holds:
        each.release()
    operations.let_go(*held)
    await rig.settled()


async def test_file_threads_end_with_the_gate_however_many_there_were(
    operations: HeldOperations, tmp_path: Path
) -> None:
    with no_threads_left():
        rig = Rig()
        held = [rig.operation(rig.queue(10), "copy", "/from", tmp_path / str(at)) for at in range(40)]
        await eventually(lambda: len(operations.entered) == 40)
        operations.let_go(*held)
        await rig.settled()
        await rig.gate.close()


# ---- the way home


class Line:
    """Stands for a queue whose outcomes take time on the loop, by the gate's clock."""

    def __init__(self, name: str, order: list[str], clock: Clock, seconds: float) -> None:
        self.name = name
        self._order = order
        self._clock = clock
        self._seconds = seconds
        self.given: list[int] = []

    def settle(self, outcomes: list[Any]) -> None:
        self._order += [self.name] * len(outcomes)
        self.given += outcomes
        self._clock.now += self._seconds * len(outcomes)


@pytest.fixture
def order() -> list[str]:
    return []


@pytest.fixture
def line(order: list[str], clock: Clock) -> Iterator[Callable[..., Any]]:
    return lambda name, seconds=0.0002: Line(name, order, clock, seconds)


async def test_outcomes_of_one_queue_do_not_wait_for_all_those_of_another(
    rig: Rig, order: list[str], line: Callable[..., Any]
) -> None:
    flood, other = line("flood"), line("other")
    for number in range(10_000):
        rig.gate.give(flood, [number])
    rig.gate.give(other, [0])
    await turns(1)
    assert 0 < order.index("other") <= 6, "a turn is a millisecond, of calls of 0.2"
    await eventually(lambda: len(order) == 10_001)
    assert flood.given == list(range(10_000))


@pytest.mark.parametrize("heavy", [0.0002, 0.01])
async def test_queues_share_the_loop_by_time_and_each_keeps_its_order(
    rig: Rig, clock: Clock, order: list[str], line: Callable[..., Any], heavy: float
) -> None:
    lines = [line("heavy", heavy), line("light", 0.00005), line("other", 0.00005)]
    for number in range(200):
        for each in lines:
            rig.gate.give(each, [number])
    await eventually(lambda: len(order) == 600)
    lights = len(order) - order[::-1].index("light")
    turns_of_light = round(200 * 0.00005 / 0.001)
    calls_in_a_turn = max(round(0.001 / heavy), 1)
    assert order[:lights].count("heavy") <= (turns_of_light + 1) * (calls_in_a_turn + 1)
    for each in lines:
        assert each.given == list(range(200))


async def test_a_queue_that_is_given_more_and_more_does_not_keep_the_others_waiting(
    rig: Rig, order: list[str], line: Callable[..., Any]
) -> None:
    flood, other = line("flood"), line("other")
    settle = flood.settle

    def again(outcomes: list[int]) -> None:
        settle(outcomes)
        if order.count("other") < 3:
            for each in outcomes:
                rig.gate.give(flood, [each + 1])

    flood.settle = again
    rig.gate.give(flood, [0])
    for _ in range(3):
        rig.gate.give(other, [0])
    await eventually(lambda: order.count("other") == 3)


async def test_a_slice_ends_and_the_loop_turns_before_the_next(
    rig: Rig, order: list[str], line: Callable[..., Any]
) -> None:
    lines = [line(name) for name in "abc"]
    for _ in range(100):
        for each in lines:
            rig.gate.give(each, [0])
    rig.gate.collect()
    assert 20 <= len(order) <= 25, "4 ms of calls that take 0.2"
    await eventually(lambda: len(order) == 300)


async def test_calls_go_before_outcomes_but_outcomes_have_their_turn(
    rig: Rig, clock: Clock, order: list[str], line: Callable[..., Any]
) -> None:
    queue = line("outcome")

    def endless() -> None:
        order.append("call")
        clock.now += 0.0002
        if order.count("outcome") < 20:
            rig.gate.call_threadsafe(endless)

    for _ in range(20):
        rig.gate.give(queue, [0])
    rig.gate.call_threadsafe(endless)
    await eventually(lambda: order.count("outcome") == 20)
    assert order[0] == "call"


async def test_all_of_one_queue_leaves_the_others_for_their_turn(
    rig: Rig, order: list[str], line: Callable[..., Any]
) -> None:
    mine, other = line("mine"), line("other")
    for number in range(1000):
        rig.gate.give(mine, [number])
        rig.gate.give(other, [number])
    rig.gate.collect_all(mine)
    assert order == ["mine"] * 1000
    await eventually(lambda: len(order) == 2000)
    assert mine.given == other.given == list(range(1000))
