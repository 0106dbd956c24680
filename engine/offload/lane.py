"""The lane: memory through which packs of quick tasks go to one worker, and outcomes come back, without Python between.

Both ends are Lua (lane.lua). Here is what the host does with it: it opens the lane, lets a worker have a turn at it,
hears the bell when there are outcomes, and takes everything back when something is not as usual: then packs become
tasks like any others.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from engine.offload.mutex import Lock, Mutex, libc
from engine.offload.task import LANE_CODE, Phase, Task
from engine.values.histogram import BUCKETS, Histogram

_PACKS = 8
_PACK_BYTES = 32768
_BACK_BYTES = 65536


class LaneUser(NamedTuple):
    """The script's state, as far as the lane goes. Called on the loop thread."""

    use: Callable[[int], None]
    """Hears of the address of the lane."""
    fetch: Callable[[], None]
    """Fetches the outcomes and runs what waits for them."""


class _Pack(ctypes.Structure):
    """offpath_pack_t in lane.lua."""

    _fields_ = [
        ("first", ctypes.c_double),
        ("posted_at", ctypes.c_double),
        ("count", ctypes.c_int32),
        ("bytes", ctypes.c_int32),
        ("data", ctypes.c_uint8 * _PACK_BYTES),
    ]

    def task(self) -> Task:
        """The same as a task of a queue."""
        data = ctypes.string_at(ctypes.addressof(self) + _Pack.data.offset, self.bytes)
        return Task(int(self.first), 0, "pack", code=int(self.first), data=data, size=self.count)


class _Memory(ctypes.Structure):
    """offpath_lane_t in lane.lua."""

    _fields_ = [
        ("mutex", Mutex),
        ("condition", Mutex),
        ("posted", ctypes.c_double),
        ("taken", ctypes.c_double),
        ("done", ctypes.c_double),
        ("posted_tasks", ctypes.c_double),
        ("taken_tasks", ctypes.c_double),
        ("given_tasks", ctypes.c_double),
        ("fetched_tasks", ctypes.c_double),
        ("wait_seconds", ctypes.c_double),
        ("wait_counts", ctypes.c_double * BUCKETS),
        ("open", ctypes.c_int32),
        ("turn", ctypes.c_int32),
        ("asleep", ctypes.c_int32),
        ("rung", ctypes.c_int32),
        ("back_tasks", ctypes.c_int32),
        ("back_bytes", ctypes.c_int32),
        ("bell", ctypes.c_int32),
        ("emptied", ctypes.c_int32),
        ("expected", ctypes.c_int32),
        ("back", ctypes.c_uint8 * _BACK_BYTES),
        ("packs", _Pack * _PACKS),
    ]


class Lane:
    """The lane of one queue. Under the queue's lock, but where a thread is named."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_bell: Callable[[], None]) -> None:
        """`on_bell` is called on the loop thread when there are outcomes. Loop thread."""
        self._loop = loop
        self._memory = _Memory()
        self._mutex = Lock(ctypes.addressof(self._memory.mutex))
        self._condition = ctypes.c_void_p(ctypes.addressof(self._memory.condition))
        libc.pthread_cond_init(self._condition, None)
        self._on_bell = on_bell
        self._hears, self._memory.bell = os.pipe()
        os.set_blocking(self._hears, False)
        os.set_blocking(self._memory.bell, False)
        loop.add_reader(self._hears, self._heard)
        self._closed = False
        self._posted_tasks = self._taken_tasks = self._fetched_tasks = 0

    @property
    def address(self) -> int:
        """Where the memory lies; it stays as long as this object."""
        return ctypes.addressof(self._memory)

    @property
    def is_open(self) -> bool:
        """Whether the script's state may post. Loop thread."""
        return bool(self._memory.open)

    @property
    def is_busy(self) -> bool:
        """Whether there are packs that are not done. From any thread."""
        memory = self._memory
        return bool(memory.posted != memory.done)

    @property
    def is_wanted(self) -> bool:
        """Whether a worker may have a turn: there are packs, or there may be some. From any thread."""
        return self.is_open or self.is_busy

    @property
    def has_news(self) -> bool:
        """Whether tasks were posted that `news` has not told of. Loop thread."""
        return bool(self._memory.posted_tasks != self._posted_tasks)

    @property
    def taken(self) -> float:
        """How many packs a worker took so far. From any thread."""
        return float(self._memory.taken)

    @property
    def emptied(self) -> int:
        """How often `take_outcomes` was called: what is given afterwards rings the bell again. From any thread."""
        return int(self._memory.emptied)

    def expect(self, emptied: int) -> None:
        """Let the script's state fetch outcomes only if `emptied` is still that. Loop thread."""
        self._memory.expected = emptied

    def open(self) -> None:
        """Let the script's state post, until it puts something else into its outbox. Loop thread."""
        self._memory.open = not self._closed

    def serve(self) -> tuple[int, int, int, bytes, int]:
        """What the worker gets whose turn it is now, in the form of a task (task.py)."""
        return 0, LANE_CODE, self._memory.turn, b"", self.address

    def news(self) -> tuple[int, int]:
        """How many tasks were posted, and how many a worker took, since the last call."""
        posted, taken = int(self._memory.posted_tasks), int(self._memory.taken_tasks)
        news = posted - self._posted_tasks, taken - self._taken_tasks
        self._posted_tasks, self._taken_tasks = posted, taken
        return news

    def fetched(self) -> int:
        """How many tasks' outcomes the script's state fetched since the last call. Loop thread."""
        fetched = int(self._memory.fetched_tasks)
        since, self._fetched_tasks = fetched - self._fetched_tasks, fetched
        return since

    def waits(self) -> Histogram:
        """How long tasks waited for the worker. From any thread."""
        return Histogram(tuple(map(int, self._memory.wait_counts)), self._memory.wait_seconds)

    def note_given(self, tasks: int) -> None:
        """Hear of tasks whose outcomes the worker gave another way, since there was no room here."""
        with self._mutex:
            self._memory.given_tasks += tasks

    def take_outcomes(self) -> tuple[bytes, int]:
        """The outcomes that the worker gave, and of how many tasks."""
        memory = self._memory
        with self._mutex:
            outcomes, tasks = ctypes.string_at(ctypes.addressof(memory.back), memory.back_bytes), memory.back_tasks
            memory.back_bytes = memory.back_tasks = memory.rung = 0
            memory.emptied += 1
        return outcomes, tasks

    def take_back(self) -> tuple[Task | None, list[Task]]:
        """End the turn of the worker and shut the lane: the pack that the worker is at, and those behind it."""
        memory = self._memory
        with self._mutex:
            memory.open = 0
            memory.turn += 1
            tasks = [self._pack(place) for place in range(int(memory.done), int(memory.posted))]
            has_begun = memory.taken > memory.done
            given = int(memory.given_tasks)
            memory.done = memory.taken = memory.posted
            libc.pthread_cond_signal(self._condition)
        if not has_begun:
            return None, tasks
        current = tasks.pop(0)
        current.submitted, current.started = 0.0, time.monotonic()
        current.settled, current.phase = given, Phase.RUNNING
        return current, tasks

    def _pack(self, place: int) -> Task:
        pack = self._memory.packs[place % _PACKS]
        task: Task = pack.task()
        task.submitted = pack.posted_at
        return task

    def close(self) -> None:
        """End the turn of the worker for good; there must be no packs. Loop thread."""
        if self._closed:
            return
        self._closed = True
        self.take_back()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.remove_reader(self._hears)
        os.close(self._hears)
        os.close(self._memory.bell)

    def _heard(self) -> None:
        os.read(self._hears, 16)
        self._on_bell()
