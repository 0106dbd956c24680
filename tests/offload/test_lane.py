"""The host's end of the lane: opening, news, the bell, taking back and closing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from engine.offload.lane import Lane
from engine.offload.task import LANE_CODE, Phase
from tests.lua_api.conftest import Lua
from tests.lua_api.test_lane import Ends
from tests.processes import nothing_left
from tests.support import DEADLINE, eventually


@pytest.fixture
def states() -> Iterator[tuple[Lua, Lua]]:
    pair = Lua(), Lua()
    yield pair
    for each in pair:
        each.state.close()


async def test_closing_it_leaves_nothing_and_may_be_done_twice() -> None:
    with nothing_left():
        lane = Lane(asyncio.get_running_loop(), lambda: None)
        lane.open()
        assert lane.is_open
        lane.close()
        lane.close()
        assert not lane.is_open
        lane.open()
        assert not lane.is_open, "it is closed"
        assert not lane.is_wanted


def test_it_can_be_closed_after_its_loop() -> None:
    with nothing_left():
        loop = asyncio.new_event_loop()
        lane = Lane(loop, lambda: None)
        loop.close()
        lane.close()


async def test_when_it_is_wanted(states: tuple[Lua, Lua]) -> None:
    lane = Lane(asyncio.get_running_loop(), lambda: None)
    assert not (lane.is_open or lane.is_busy or lane.is_wanted)
    ends = Ends(lane, *states)
    assert lane.is_wanted
    ends.poster[b"shut"]()
    assert not lane.is_wanted
    ends.post(1, 2, b"pack")
    assert lane.is_busy
    assert lane.is_wanted
    ends.take()
    assert lane.is_wanted, "it is not done"
    ends.give(b"", 2, True)
    assert not lane.is_wanted
    lane.close()


async def test_news_are_told_once(states: tuple[Lua, Lua]) -> None:
    lane = Lane(asyncio.get_running_loop(), lambda: None)
    ends = Ends(lane, *states)
    assert not lane.has_news
    ends.post(1, 2, b"pack")
    ends.post(3, 3, b"pack")
    assert lane.has_news
    ends.take()
    assert lane.taken == 1
    assert lane.news() == (5, 2)
    assert not lane.has_news
    assert lane.news() == (0, 0)
    ends.give(b"", 2, True)
    assert lane.fetched() == 0
    ends.fetch()
    assert (lane.fetched(), lane.fetched()) == (2, 0)
    ends.take()
    assert lane.news() == (0, 3)
    assert lane.waits().count == 5
    lane.close()


async def test_the_loop_hears_the_bell(states: tuple[Lua, Lua]) -> None:
    heard: list[int] = []
    lane = Lane(asyncio.get_running_loop(), lambda: heard.append(1))
    ends = Ends(lane, *states)
    for number in range(1, 4):
        ends.post(number, 1, b"pack")
        ends.take()
        ends.give(b"outcome", 1, True)
        await eventually(lambda: len(heard) == number)  # noqa: B023
        assert lane.take_outcomes() == (b"outcome", 1)
        assert lane.take_outcomes() == (b"", 0)
        assert lane.emptied == 2 * number
    lane.close()


async def test_outcomes_that_went_another_way_are_settled_when_it_is_taken_back(states: tuple[Lua, Lua]) -> None:
    lane = Lane(asyncio.get_running_loop(), lambda: None)
    ends = Ends(lane, *states)
    ends.post(1, 10, b"pack")
    ends.take()
    ends.give(b"ab", 2, False)
    lane.note_given(3)
    current, rest = lane.take_back()
    assert rest == []
    assert current is not None
    assert (current.settled, current.left, current.submitted, current.phase) == (5, 5, 0.0, Phase.RUNNING)
    assert lane.take_outcomes() == (b"ab", 2)
    assert lane.take_back() == (None, [])
    lane.close()


async def test_each_turn_is_another(states: tuple[Lua, Lua]) -> None:
    lane = Lane(asyncio.get_running_loop(), lambda: None)
    ends = Ends(lane, *states)
    first = lane.serve()
    lane.take_back()
    second = lane.serve()
    assert first[1] == second[1] == LANE_CODE
    assert first[2] != second[2]
    assert first[4] == second[4] == lane.address
    assert ends.take() is None
    lane.close()


@pytest.mark.parametrize("end", [Lane.take_back, Lane.close])
async def test_a_worker_that_waits_is_woken_when_its_turn_is_over(end: Callable[[Lane], object]) -> None:
    lane = Lane(asyncio.get_running_loop(), lambda: None)
    posts, found = Lua(), []

    def serve() -> None:
        lua = Lua()
        found.append(
            lua.run(
                "return require('offpath.lane').server(...).take(require('string.buffer').new())",
                lane.address,
                lane.serve()[2],
            )
        )
        lua.state.close()

    thread = threading.Thread(target=serve)
    thread.start()
    await eventually(lambda: lane._memory.asleep)
    end(lane)
    await asyncio.to_thread(thread.join, DEADLINE)
    assert found == [None]
    lane.close()
    posts.state.close()


# ---- the mutex


async def test_who_holds_the_mutex_may_wait_for_the_gil() -> None:
    """As a finalizer does."""
    lane = Lane(asyncio.get_running_loop(), lambda: None)
    held, left = threading.Event(), threading.Event()

    def hold() -> None:
        with lane._mutex:
            held.set()
            for _ in range(1000):
                left.wait(0)  # lets go of the GIL and takes it back
            left.set()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(DEADLINE)
    assert lane.take_outcomes() == (b"", 0)
    assert left.is_set()
    thread.join(DEADLINE)
    lane.close()
