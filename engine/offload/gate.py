"""The one door of offloaded work: out through the queues of plugins, back in through `collect`, on the loop thread.

Outcomes from any thread go into one list, and one `call_soon_threadsafe` at a time is armed to collect it: waking the
loop costs a system call, which a thousand results share.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from engine.offload.paths import PathLocks
from engine.offload.task import Outcome
from engine.offload.worker import WorkerThread
from engine.values.errors import ConfigError
from engine.values.stats import AsyncStats

if TYPE_CHECKING:
    from engine.offload.queue import TaskQueue

_FILE_THREADS = 8
_SLICE_SECONDS = 0.004
_TOGETHER = 512  # outcomes that are settled at once, in less than a slice, and what the last operation adds
_REST_SECONDS = 0.001  # between two times that outcomes of file operations wake the loop
_JOIN_SECONDS = 1.0

_logger = logging.getLogger("offpath.offload")


class _StartSoon(Protocol):
    def __call__(self, fn: Callable[..., Any], /, *args: Any) -> object: ...


@dataclass(slots=True)
class _HighWater:
    limit: int
    call: Callable[[int], None]
    reached: bool = False


class Gate:
    """All queues of one engine. Made and used on the loop thread, but `give` and `call_threadsafe`, for any."""

    def __init__(self, start_soon: _StartSoon) -> None:
        """`start_soon(coroutine_function, *args)` starts a task in the engine's task group."""
        self.loop = asyncio.get_running_loop()
        self.start_soon = start_soon
        self.paths = PathLocks()
        self.file_threads = ThreadPoolExecutor(_FILE_THREADS, thread_name_prefix="offpath-files")
        self._queues: list[TaskQueue] = []
        self._gone = AsyncStats()
        self._lock = threading.Lock()
        self._given: deque[Callable[[], None]] = deque()
        self._armed = False
        self._open: tuple[TaskQueue, list[Outcome]] | None = None  # the last of what was given, when more may join it
        self._resting = False  # outcomes of operations came home a moment ago; the next ones wait for the end of it
        self._to_pump: dict[TaskQueue, None] = {}
        self._progress = asyncio.Event()
        self._marks: list[_HighWater] = []

    def add(self, queue: TaskQueue) -> None:
        """Take a plugin's queue in."""
        self._queues.append(queue)

    @property
    def pending(self) -> int:
        """Unsettled tasks of all queues."""
        return sum(queue.pending for queue in self._queues)

    @property
    def longest(self) -> int:
        """Unsettled tasks of the queue that has most."""
        return max((queue.pending for queue in self._queues), default=0)

    def stats(self) -> AsyncStats:
        """The sums over all queues, closed ones included."""
        return _sum([self._gone, *(queue.stats() for queue in self._queues)])

    def add_high_water(self, limit: int, call: Callable[[int], None]) -> None:
        """Have `call(pending)` called when pending tasks come to a limit; again only after they fell to half of it."""
        if limit < 1:
            raise ConfigError(f"a high-water mark must be at least 1, not {limit!r}")
        self._marks.append(_HighWater(limit, call))

    def look_at_marks(self) -> None:
        """Tell those whose mark was reached. After tasks were submitted or settled."""
        if not self._marks:
            return
        pending = self.pending
        for mark in self._marks:
            if mark.reached and pending <= mark.limit // 2:
                mark.reached = False
            elif not mark.reached and pending >= mark.limit:
                mark.reached = True
                mark.call(pending)

    # ---- from any thread

    def give(self, queue: TaskQueue, outcomes: list[Outcome]) -> None:
        """Bring outcomes home."""
        self.call_threadsafe(queue.settle, outcomes)

    def give_together(self, queue: TaskQueue, outcomes: list[Outcome]) -> None:
        """Bring outcomes home that no callback waits for: with others that come within about a millisecond."""
        with self._lock:
            if self._open is not None and self._open[0] is queue and len(self._open[1]) < _TOGETHER:
                self._open[1].extend(outcomes)
                return
            self._open = queue, outcomes
            self._given.append(lambda: self._settle_together(queue, outcomes))
            if self._armed or self._resting:
                return
            self._armed = True
        self._wake()

    def call_threadsafe(self, fn: Callable[..., Any], *args: Any) -> None:
        """Have something called on the loop thread, in order, together with what else came."""
        with self._lock:
            self._open = None
            self._given.append(lambda: fn(*args))
            if self._armed:
                return
            self._armed = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear of it
            self.loop.call_soon_threadsafe(self._collect_armed)

    # ---- loop thread

    def pump_soon(self, queue: TaskQueue) -> None:
        """Pump a queue at the end of this turn of the loop, once however many tasks it got."""
        if not self._to_pump:
            self.loop.call_soon(self._pump)
        self._to_pump[queue] = None

    def _pump(self) -> None:
        queues = list(self._to_pump)
        self._to_pump.clear()
        for queue in queues:
            queue.pump()
        self.look_at_marks()

    def _collect_armed(self) -> None:
        with self._lock:
            self._armed = False
        self.collect()

    def _settle_together(self, queue: TaskQueue, outcomes: list[Outcome]) -> None:
        with self._lock:
            if self._open is not None and self._open[1] is outcomes:
                self._open = None
            rests, self._resting = self._resting, True
        if not rests:
            self.loop.call_later(_REST_SECONDS, self._rested)
        queue.settle(outcomes)

    def _rested(self) -> None:
        with self._lock:
            self._resting = False
            if self._armed or not self._given:
                return
            self._armed = True
        self._collect_armed()

    def collect(self, *, all_of_it: bool = False) -> None:
        """Run what was given, for a slice of time; the rest follows in the next turn of the loop."""
        until = time.monotonic() + (math.inf if all_of_it else _SLICE_SECONDS)
        while self._given:
            self._given.popleft()()
            if time.monotonic() > until:
                break
        self._progress.set()
        self.look_at_marks()
        if not self._given:
            return
        with self._lock:
            if self._armed:
                return
            self._armed = True
        self.loop.call_soon(self._collect_armed)

    async def settle(self, *, patience: float, queue: TaskQueue | None = None) -> bool:
        """Wait until nothing is pending, of one queue or of all. False when nothing settled for `patience` seconds."""
        queues = self._queues if queue is None else [queue]
        while sum(each.pending for each in queues):
            before = sum(each.settled for each in queues)
            if not await self._progressed(before, queues, patience):
                return False
        return True

    async def _progressed(self, before: int, queues: list[TaskQueue], patience: float) -> bool:
        until = self.loop.time() + patience
        while sum(each.settled for each in queues) == before:
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), max(until - self.loop.time(), 0))
            except TimeoutError:
                return False
        return True

    async def progress(self) -> None:
        """Wait until something was settled."""
        self._progress.clear()
        await self._progress.wait()

    async def drain(self, seconds: float, *, queue: TaskQueue | None = None) -> bool:
        """Wait at most so long for all to be settled, then abandon the rest. True when nothing had to be."""
        queues = self._queues if queue is None else [queue]
        try:
            async with asyncio.timeout(seconds):
                while sum(each.pending for each in queues):
                    await self.progress()
        except TimeoutError:
            for each in list(queues):
                each.abandon()
            return False
        return True

    def abandon(self) -> None:
        """Give up all that is not settled."""
        for queue in self._queues:
            queue.abandon()

    async def close(self) -> None:
        """End all threads. What is still pending is abandoned; threads that won't end are counted and left behind."""
        for queue in list(self._queues):
            await self.close_queue(queue)
        joiner = WorkerThread("offpath-join")
        joiner.submit(self.file_threads.shutdown)
        joiner.end()
        if not await _wait_for([joiner]):
            _logger.warning("a file operation does not come back and is left behind")

    async def close_queue(self, queue: TaskQueue) -> None:
        """Abandon what a queue has left and end its workers."""
        queue.abandon()
        all_ended = await _wait_for(queue.close())
        self.collect(all_of_it=True)
        counts = queue.stats()
        if not all_ended:
            _logger.warning(
                "%s: %d worker thread(s) still run a task and are left behind", queue.name, counts.stuck_threads
            )
        if queue in self._queues:
            self._queues.remove(queue)
            self._gone = _sum([self._gone, counts])


async def _wait_for(threads: list[WorkerThread]) -> bool:
    """Wait a moment for threads to end. False when some did not."""
    if not threads:
        return True
    _, running = await asyncio.wait([asyncio.wrap_future(each.ended) for each in threads], timeout=_JOIN_SECONDS)
    for future in running:
        future.cancel()
    for thread in threads:
        if thread.gone.is_set():
            thread.join(_JOIN_SECONDS)  # it has nothing left to do but to end
    return not running


def _sum(counts: list[AsyncStats]) -> AsyncStats:
    return AsyncStats(
        **{
            name: sum(getattr(each, name) for each in counts)
            for name in AsyncStats.__dataclass_fields__  # every field is a count
        }
    )
