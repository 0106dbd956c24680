"""The lane between two Lua states: packs go there, outcomes come back, and the host may take all back at any moment."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.offload.lane import _BACK_BYTES, _PACK_BYTES, _PACKS, Lane, _Memory, _Pack
from engine.offload.task import Task
from tests.lua_api.conftest import Lua

BACK_TASKS = 512

POSTER = """
local buffer = require("string.buffer")
local poster, stream, input = require("offpath.lane").poster(...), buffer.new(), buffer.new()
local ends = { is_open = poster.is_open, is_drained = poster.is_drained, shut = poster.shut }
function ends.post(first, count, bytes) return poster.post(first, count, stream:set(bytes)) end
function ends.fetch()
  local tasks = poster.fetch(input)
  return tasks, input:get()
end
return ends
"""

SERVER = """
local buffer = require("string.buffer")
local server, input, outcomes = require("offpath.lane").server(...), buffer.new(), buffer.new()
local ends = { is_awaited = server.is_awaited }
function ends.take()
  local first, count = server.take(input)
  if not first then return nil end
  return first, count, input:get()
end
function ends.give(bytes, tasks, ends) return server.give(outcomes:reset():put(bytes), tasks, ends) end
return ends
"""


class Ends:
    """A lane, the state that posts, and the one that serves, all on one thread."""

    def __init__(self, lane: Lane, posts: Lua, serves: Lua) -> None:
        self.lane = lane
        self.poster = posts.run(POSTER, lane.address)
        self._serves = serves
        self.server: Any = None
        self.serve()
        lane.open()

    def serve(self) -> None:
        """A worker has the next turn."""
        _, _, turn, _, address = self.lane.serve()
        self.server = self._serves.run(SERVER, address, turn)

    def post(self, first: int, count: int, data: bytes) -> bool:
        posted: bool = self.poster[b"post"](first, count, data)
        return posted

    def take(self) -> tuple[int, int, bytes] | None:
        taken: tuple[int, int, bytes] | None = self.server[b"take"]()
        return taken

    def give(self, outcomes: bytes, tasks: int, ends: bool) -> bool:
        given: bool = self.server[b"give"](outcomes, tasks, ends)
        return given

    def fetch(self) -> tuple[int, bytes]:
        self.lane.expect(self.lane.emptied)
        fetched: tuple[int, bytes] = self.poster[b"fetch"]()
        return fetched

    def is_rung(self) -> bool:
        """Whether the bell was rung and not heard."""
        try:
            os.read(self.lane._hears, 16)
        except BlockingIOError:
            return False
        return True


@contextmanager
def joined(posts: Lua, serves: Lua) -> Iterator[Ends]:
    loop = asyncio.new_event_loop()
    lane = Lane(loop, lambda: None)
    try:
        yield Ends(lane, posts, serves)
    finally:
        lane.close()
        loop.close()


@pytest.fixture(scope="module")
def states() -> Iterator[tuple[Lua, Lua]]:
    pair = Lua(), Lua()
    yield pair
    for each in pair:
        each.state.close()


@pytest.fixture
def ends(states: tuple[Lua, Lua]) -> Iterator[Ends]:
    with joined(*states) as ends:
        yield ends


@pytest.mark.parametrize(("lua_type", "structure"), [("offpath_lane_t", _Memory), ("offpath_pack_t", _Pack)])
def test_both_sides_mean_the_same_memory(
    states: tuple[Lua, Lua], lua_type: str, structure: type[ctypes.Structure]
) -> None:
    lua = states[0]
    lua.run("require('offpath.lane')")
    assert lua.run("return require('ffi').sizeof(...)", lua_type.encode()) == ctypes.sizeof(structure)
    for name, *_ in structure._fields_:
        offset = lua.run("return require('ffi').offsetof(...)", lua_type.encode(), name.encode())
        assert offset == getattr(structure, name).offset, name


def test_a_pack_goes_there_and_its_outcomes_come_back(ends: Ends) -> None:
    assert ends.post(2**40, 3, b"three tasks")
    assert ends.take() == (2**40, 3, b"three tasks")
    assert ends.give(b"two", 2, False)
    assert ends.lane.is_busy
    assert ends.give(b" and one", 1, True)
    assert not ends.lane.is_busy
    assert ends.fetch() == (3, b"two and one")
    assert ends.fetch() == (0, b"")
    assert (ends.lane.news(), ends.lane.fetched()) == ((3, 3), 3)


def test_the_bell_is_rung_once_for_all_outcomes_until_they_are_fetched(ends: Ends) -> None:
    ends.post(1, 3, b"pack")
    ends.take()
    assert ends.server[b"is_awaited"]()
    assert not ends.is_rung()
    ends.give(b"a", 1, False)
    assert not ends.server[b"is_awaited"]()
    assert ends.is_rung()
    ends.give(b"b", 1, False)
    assert not ends.is_rung()
    ends.fetch()
    assert ends.server[b"is_awaited"]()
    ends.give(b"c", 1, True)
    assert ends.is_rung()


def test_an_end_without_outcomes_rings_no_bell(ends: Ends) -> None:
    ends.post(1, 1, b"pack")
    ends.take()
    assert ends.give(b"", 0, True)
    assert not ends.is_rung()
    assert not ends.lane.is_busy


def test_whether_it_is_drained_and_open(ends: Ends) -> None:
    assert ends.poster[b"is_drained"]()
    ends.post(1, 1, b"pack")
    assert not ends.poster[b"is_drained"]()
    ends.take()
    assert ends.poster[b"is_drained"]()
    ends.poster[b"shut"]()
    assert not ends.poster[b"is_open"]()
    assert not ends.lane.is_open
    ends.lane.open()
    assert ends.poster[b"is_open"]()


def test_what_the_host_took_since_the_bell_was_heard_is_not_overtaken(ends: Ends) -> None:
    ends.post(1, 2, b"pack")
    ends.take()
    ends.give(b"a", 1, False)
    assert ends.is_rung()
    ends.lane.expect(ends.lane.emptied)
    assert ends.lane.take_outcomes() == (b"a", 1)
    ends.give(b"b", 1, True)
    assert ends.poster[b"fetch"]() == (0, b"")
    assert ends.is_rung()
    assert ends.fetch() == (1, b"b")


def test_so_many_packs_and_so_large_ones(ends: Ends) -> None:
    assert not ends.post(1, 1, b"x" * (_PACK_BYTES + 1))
    for number in range(_PACKS):
        assert ends.post(number, 1, b"x" * _PACK_BYTES)
    assert not ends.post(99, 1, b"")
    assert ends.take() == (0, 1, b"x" * _PACK_BYTES)
    assert not ends.post(99, 1, b""), "it is not done"
    assert ends.give(b"", 1, True)
    assert ends.post(99, 1, b"")


def test_so_many_bytes_of_outcomes(ends: Ends) -> None:
    ends.post(1, 3, b"pack")
    ends.take()
    assert not ends.give(b"x" * (_BACK_BYTES + 1), 1, False)
    assert ends.give(b"x" * _BACK_BYTES, 1, False)
    assert not ends.give(b"y", 1, False)
    assert ends.give(b"", 1, False)
    assert ends.fetch() == (2, b"x" * _BACK_BYTES)
    assert ends.give(b"y", 1, True)


def test_so_many_outcomes(ends: Ends) -> None:
    ends.post(1, 2 * BACK_TASKS, b"pack")
    ends.take()
    assert ends.give(b"a", BACK_TASKS, False)
    assert not ends.give(b"b", 1, False)
    assert ends.give(b"", 0, False), "none are no more"
    ends.fetch()
    assert ends.give(b"b", BACK_TASKS, True)


def test_waits_are_counted_by_task(ends: Ends) -> None:
    for count in (3, 4):
        ends.post(1, count, b"pack")
        ends.take()
        ends.give(b"", count, True)
    waits = ends.lane.waits()
    assert waits.count == 7
    assert 0 < waits.seconds < 60


@pytest.mark.parametrize("taken", [False, True])
def test_what_was_taken_back_is_no_longer_the_workers(ends: Ends, taken: bool) -> None:
    ends.post(1, 5, b"first")
    ends.post(6, 2, b"second")
    if taken:
        ends.take()
        ends.give(b"a", 2, False)
    current, rest = ends.lane.take_back()
    assert not ends.lane.is_open
    assert not ends.lane.is_busy
    assert [(task.id, task.size, task.data) for task in rest][-1] == (6, 2, b"second")
    if taken:
        assert current is not None
        assert (current.id, current.size, current.settled, current.data) == (1, 5, 2, b"first")
    else:
        assert current is None
    assert not ends.give(b"b", 3, True)
    assert ends.take() is None
    assert ends.fetch() == (2 * taken, b"a" * taken)
    ends.serve()
    ends.post(9, 1, b"third")
    assert ends.take() == (9, 1, b"third")


# ---- nothing that the script left may run while the mutex is held: finalizers may wait, or need the GIL

GARBAGE = """
local ffi = require("ffi")
ffi.cdef('int offpath_trylock(void *) __asm__("pthread_mutex_trylock");')
local mutex, finalized, held, on = ffi.cast("void *", ...), 0, 0, true
local function litter()
  if not on then return end
  local proxy = newproxy(true)
  getmetatable(proxy).__gc = function()
    finalized = finalized + 1
    if ffi.C.offpath_trylock(mutex) == 0 then ffi.C.offpath_unlock(mutex) else held = held + 1 end
    litter()
  end
end
collectgarbage("setpause", 0)
collectgarbage("setstepmul", 1e6)
for _ = 1, 20 do litter() end
return function()
  on = false
  return finalized, held
end
"""


@pytest.mark.parametrize("compiled", [False, True])
def test_no_finalizer_runs_while_the_mutex_is_held(compiled: bool) -> None:
    posts, serves = Lua(), Lua()
    if not compiled:
        for each in (posts, serves):
            each.run("jit.off()")
    with joined(posts, serves) as ends:
        asked = [each.run(GARBAGE, ends.lane.address) for each in (posts, serves)]
        for number in range(500):
            assert ends.post(number, 1, b"x" * (number % 7 * 4000))
            assert ends.take() is not None
            assert ends.give(b"y" * (number % 5 * 1000), 1, True)
            assert ends.fetch()[0] == 1
        found = [each() for each in asked]
    del asked
    for each in (posts, serves):
        each.state.close()
    assert all(finalized > 100 for finalized, _ in found)
    assert [held for _, held in found] == [0, 0]


# ---- any sequence of steps

STEPS = st.one_of(
    st.tuples(st.just("post"), st.integers(1, 300)),
    st.tuples(st.just("give"), st.integers(1, 300)),
    st.sampled_from([("take", 0), ("give all", 0), ("fetch", 0), ("empty", 0), ("take back", 0), ("another way", 5)]),
)


@dataclass
class Model:
    """Tasks are numbers from 0, and each outcome is its number in four bytes and some more."""

    ends: Ends
    width: int
    posted: int = 0
    waiting: list[tuple[int, int]] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    """The tasks of the pack that the worker is at, whose outcomes it has not given."""
    is_at_one: bool = False
    came: list[int] = field(default_factory=list)
    given: int = 0
    """Tasks of that pack whose outcomes were given."""

    def post(self, count: int) -> None:
        numbers = range(self.posted, self.posted + count)
        room = len(self.waiting) + self.is_at_one < _PACKS
        if not self.ends.poster[b"is_open"]():
            self.ends.lane.open()
            self.ends.serve()
        assert self.ends.post(numbers[0], count, _numbers(numbers)) == room
        if room:
            self.waiting.append((numbers[0], count))
            self.posted += count

    def take(self) -> None:
        if self.waiting and not self.is_at_one:  # or it would wait
            first, count = self.waiting.pop(0)
            self.at, self.is_at_one, self.given = list(range(first, first + count)), True, 0
            assert self.ends.take() == (first, count, _numbers(self.at))

    def give(self, count: int) -> None:
        if not self.is_at_one:
            return
        some = self.at[:count]
        outcomes = b"".join(_numbers([number]) + b"-" * self.width for number in some)
        if self.ends.give(outcomes, len(some), len(some) == len(self.at)):
            self._was_given(len(some))

    def give_all(self) -> None:
        self.give(300)

    def another_way(self, count: int) -> None:
        """Through the host, as a large result goes: it takes what lies in the lane before."""
        if len(self.at) > count:
            self.empty()
            self.ends.lane.note_given(count)
            self.came += self.at[:count]
            self._was_given(count)

    def _was_given(self, count: int) -> None:
        del self.at[:count]
        self.given += count
        self.is_at_one = bool(self.at)

    def fetch(self) -> None:
        self._came(*self.ends.fetch())

    def empty(self) -> None:
        outcomes, tasks = self.ends.lane.take_outcomes()
        self._came(tasks, outcomes)

    def _came(self, tasks: int, outcomes: bytes) -> None:
        step = 4 + self.width
        numbers = [int.from_bytes(outcomes[at : at + 4], "big") for at in range(0, len(outcomes), step)]
        assert len(numbers) == tasks
        self.came += numbers

    def take_back(self) -> None:
        current, rest = self.ends.lane.take_back()
        assert [(task.first, task.size) for task in rest] == self.waiting
        self.empty()
        if self.is_at_one:
            assert current is not None
            assert current.settled == self.given
            self.came += _of(current)[current.settled :]
        else:
            assert current is None
        assert not self.ends.give(b"", 0, True)
        for task in rest:
            self.came += _of(task)
        self.waiting, self.at, self.is_at_one = [], [], False


def _numbers(numbers: Any) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)


def _of(task: Task) -> list[int]:
    numbers = list(range(task.first, task.first + task.size))
    assert task.data == _numbers(numbers)
    return numbers


@settings(deadline=None, max_examples=200)
@given(steps=st.lists(STEPS, max_size=60), width=st.sampled_from([0, 100, 400]))
def test_every_task_comes_back_once_and_in_order(
    states: tuple[Lua, Lua], steps: list[tuple[str, int]], width: int
) -> None:
    with joined(*states) as ends:
        model = Model(ends, width)
        acts: dict[str, Callable[..., None]] = {
            "post": model.post,
            "give": model.give,
            "another way": model.another_way,
            "take": model.take,
            "give all": model.give_all,
            "fetch": model.fetch,
            "empty": model.empty,
            "take back": model.take_back,
        }
        taken = 0
        for name, count in steps:
            acts[name](*(count,) * bool(count))
            assert ends.lane.is_busy == bool(model.waiting or model.is_at_one)
            assert model.came == list(range(len(model.came)))
        model.take_back()
        news, taken = ends.lane.news()
        assert model.came == list(range(model.posted))
        assert (news, taken <= news) == (model.posted, True)
