"""The one door of offloaded work: out through the queues of plugins, back in through `collect`, on the loop thread.

Outcomes from any thread wait in a line per queue, and one `call_soon_threadsafe` at a time is armed to collect them:
waking the loop costs a system call, which a thousand results share. Lines are served in turn, so that the results of a
plugin that has many don't hold up those of another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from engine.offload.door import Queue
from engine.offload.paths import PathLocks
from engine.offload.task import Outcome
from engine.offload.worker import WorkerThread
from engine.values.errors import ConfigError
from engine.values.stats import AsyncStats

_SLICE_SECONDS = 0.004
_MOST_AT_ONCE = 64  # outcomes: what their callbacks schedule leaves together, too
_TURN_SECONDS = 0.001  # of a slice, for one queue
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


class _Line:
    """What a queue was given: outcomes, and calls that must not overtake them."""

    __slots__ = ("_most", "_seconds", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[list[Outcome] | Callable[[], object]] = deque()
        self._most = 1
        self._seconds = _TURN_SECONDS  # that an outcome took lately

    def take(self, seconds: float) -> tuple[list[Outcome], Callable[[], object] | None]:
        """The first outcomes, as many as it takes so long to settle, and at least one; or the first call."""
        first = self.waiting.popleft()
        if callable(first):
            return [], first
        outcomes = first
        limit = min(self._most, seconds / self._seconds)
        while self.waiting and len(outcomes) < limit and isinstance(more := self.waiting[0], list):
            outcomes = outcomes + more
            self.waiting.popleft()
        return outcomes, None

    def learn(self, settled: int, seconds: float) -> None:
        """Note how long it took to settle some."""
        self._most = min(2 * settled, _MOST_AT_ONCE)
        self._seconds = max(seconds / settled, 1e-9)


class Gate:
    """All queues of one engine. Made and used on the loop thread, but `give` and `call_threadsafe`, for any."""

    def __init__(self, start_soon: _StartSoon) -> None:
        """`start_soon(coroutine_function, *args)` starts a task in the engine's task group."""
        self.loop = asyncio.get_running_loop()
        self.start_soon = start_soon
        self.paths = PathLocks()
        self._file_threads: ThreadPoolExecutor | None = None
        self._queues: list[Queue] = []
        self._gone = AsyncStats()
        self._lock = threading.Lock()
        self._calls: deque[Callable[[], object]] = deque()
        self._given: OrderedDict[Queue, _Line] = OrderedDict()  # no line in it is empty
        self._lines: dict[Queue, _Line] = {}
        self._armed = False
        self._rest_wanted = False  # outcomes were given that may wait for others
        self._resting = False  # such came home a moment ago: those that follow wait for the end of it
        self._to_pump: dict[Queue, None] = {}
        self._collecting = False
        self._progress = asyncio.Event()
        self._marks: list[_HighWater] = []

    @property
    def file_threads(self) -> ThreadPoolExecutor:
        """Threads for file operations.

        Made on demand and without a limit, so that no plugin can take them all: each has as many runs as workers.
        """
        if self._file_threads is None:
            self._file_threads = ThreadPoolExecutor(sys.maxsize, thread_name_prefix="offpath-files")
        return self._file_threads

    def add(self, queue: Queue) -> None:
        """Take a plugin's queue in."""
        self._queues.append(queue)

    @property
    def pending(self) -> int:
        """Unsettled tasks of all queues."""
        return sum(queue.pending for queue in self._queues)

    @property
    def half_full(self) -> bool:
        """Whether some queue is."""
        return any(queue.half_full for queue in self._queues)

    def stats(self) -> AsyncStats:
        """The sums over all queues, closed ones included."""
        return sum((queue.stats() for queue in self._queues), start=self._gone)

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

    def give(self, queue: Queue, outcomes: list[Outcome]) -> None:
        """Bring outcomes home."""
        self._put_in_line(queue, outcomes)

    def give_together(self, queue: Queue, outcomes: list[Outcome]) -> None:
        """Bring outcomes home that no callback waits for: with others that come within about a millisecond."""
        self._put_in_line(queue, outcomes, soon=False)

    def call_together(self, queue: Queue, fn: Callable[[], object]) -> None:
        """The same for what is told of them by a call."""
        self._put_in_line(queue, fn, soon=False)

    def call_in_line(self, queue: Queue, fn: Callable[..., Any], *args: Any) -> None:
        """Have something called on the loop thread, in order with the outcomes of a queue."""
        self._put_in_line(queue, lambda: fn(*args))

    def _put_in_line(self, queue: Queue, item: list[Outcome] | Callable[[], object], *, soon: bool = True) -> None:
        with self._lock:
            self._line_of(queue).waiting.append(item)
            self._rest_wanted = self._rest_wanted or not soon
            if self._armed or (self._resting and not soon):
                return
            self._armed = True
        self._wake()

    def bring(self, queue: Queue, fetch: Callable[[], object]) -> None:
        """Bring home what `fetch` finds, behind what waits. On the loop thread, in a turn of its own."""
        with self._lock:
            self._line_of(queue).waiting.append(fetch)
        self.collect()

    def _line_of(self, queue: Queue) -> _Line:
        """The line of a queue, among those to serve. Under the lock."""
        line = self._lines.get(queue)
        if line is None:
            line = self._lines[queue] = _Line()
        return self._given.setdefault(queue, line)

    def call_threadsafe(self, fn: Callable[..., Any], *args: Any) -> None:
        """Have something that takes no time called on the loop thread, before outcomes, in the order of these calls."""
        with self._lock:
            self._calls.append(lambda: fn(*args))
            if self._armed:
                return
            self._armed = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear of it
            self.loop.call_soon_threadsafe(self._collect_armed)

    # ---- loop thread

    def pump_soon(self, queue: Queue) -> None:
        """Pump a queue when what came is collected, or in this turn of the loop; once however many tasks it got."""
        if not self._to_pump and not self._collecting:
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

    def collect(self) -> None:
        """Run what was given, for a slice of time; the rest follows in the next turn of the loop."""
        self._collecting = True
        try:
            out_of_time = self._collect_slice()
        finally:
            self._collecting = False
        self._progress.set()
        self._pump()
        self._rest()
        with self._lock:
            if self._armed or not (self._calls or self._given) or (self._resting and not out_of_time):
                return
            self._armed = True
        self.loop.call_soon(self._collect_armed)

    def _rest(self) -> None:
        """Let outcomes that may wait do so for a moment, if some came."""
        with self._lock:
            if self._resting or not self._rest_wanted:
                return
            self._resting, self._rest_wanted = True, False
        self.loop.call_later(_REST_SECONDS, self._rested)

    def _rested(self) -> None:
        with self._lock:
            self._resting = False
            if self._armed or not self._given:
                return
            self._armed = True
        self._collect_armed()

    def _collect_slice(self) -> bool:
        """Whether there was more than a slice of time is enough for."""
        now = began = time.monotonic()
        while self._calls and now < began + _SLICE_SECONDS / 2:
            self._calls.popleft()()
            now = time.monotonic()
        until = max(began + _SLICE_SECONDS, now + _TURN_SECONDS)
        while self._given and now < until:
            with self._lock:
                queue, line = next(iter(self._given.items()))
                self._given.move_to_end(queue)
            now = self._serve(queue, line, now + _TURN_SECONDS)
        return now >= until

    def collect_all(self, queue: Queue) -> None:
        """Run all that a queue was given."""
        if line := self._given.get(queue):
            self._serve(queue, line, math.inf)
        self._progress.set()
        self.look_at_marks()

    def _serve(self, queue: Queue, line: _Line, until: float) -> float:
        """Run what is in a line, at least one thing, until a moment: what time it is then."""
        now = time.monotonic()
        while True:
            with self._lock:
                outcomes, call = line.take(until - now)
                if not line.waiting:
                    del self._given[queue]
            before = now
            if call is None:
                queue.settle(outcomes)
            else:
                call()
            now = time.monotonic()
            if outcomes:
                line.learn(len(outcomes), now - before)
            if not line.waiting or now >= until:
                return now

    async def settle(self, *, patience: float, queue: Queue | None = None) -> bool:
        """Wait until nothing is pending, of one queue or of all. False when nothing settled for `patience` seconds."""
        queues = self._queues if queue is None else [queue]
        while sum(each.pending for each in queues):
            before = sum(each.settled for each in queues)
            if not await self._progressed(before, queues, patience):
                return False
        return True

    async def _progressed(self, before: int, queues: list[Queue], patience: float) -> bool:
        until = self.loop.time() + patience
        while sum(each.settled for each in queues) == before:
            self._progress.clear()
            try:
                async with asyncio.timeout_at(until):  # wait_for of Python 3.11 may swallow a cancellation
                    await self._progress.wait()
            except TimeoutError:
                return False
        return True

    async def progress(self) -> None:
        """Wait until something was settled."""
        self._progress.clear()
        await self._progress.wait()

    async def drain(self, seconds: float, *, queue: Queue | None = None) -> bool:
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
        self.abandon()  # of all queues, before the end of the first is waited for: nothing starts meanwhile
        for queue in list(self._queues):
            await self.close_queue(queue)
        if self._file_threads is None:
            return
        joiner = WorkerThread("offpath-join")
        joiner.submit(self._file_threads.shutdown)
        joiner.end()
        if not await _wait_for([joiner]):
            _logger.warning("a file operation does not come back and is left behind")

    async def close_queue(self, queue: Queue) -> None:
        """Abandon what a queue has left and end its workers."""
        queue.abandon()
        threads = queue.close()
        all_ended = await _wait_for(threads)
        self.collect_all(queue)
        counts = queue.stats()
        if not all_ended:
            stuck = sum(not thread.gone.is_set() for thread in threads)
            _logger.warning("%s: %d thread(s) still run a task and are left behind", queue.name, stuck)
        self._lines.pop(queue, None)
        if queue in self._queues:
            self._queues.remove(queue)
            self._gone += replace(counts, workers=())


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
