"""The window of stream time that is open, what becomes of it at its end, and who waits for it. Loop thread only."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar

import anyio

from engine.pipeline.records import RecordBus
from engine.stream.counters import Counters
from engine.stream.keys import KeyValues
from engine.stream.windows import SLICE, bounds, close
from engine.values.config import Config
from engine.values.records import Counter
from engine.values.stats import WindowStats
from engine.values.windows import GroupWindow, Window

Result = TypeVar("Result")
OnWindow = Callable[[Window], Awaitable[None]]


class WindowKeeper:
    """Closes windows, one at a time, and hands them on: records, sinks, then whoever hooks windows.

    A window is closed in slices, so that the loop runs in between, and whoever closes it waits until that is done.
    """

    def __init__(
        self,
        config: Config,
        counters: Counters,
        bus: RecordBus,
        gather: Callable[[], Awaitable[None]],
        now: Callable[[], float],
        on_error: Callable[[str], None],
    ) -> None:
        """`gather` brings in what is counted elsewhere. `on_error` hears of what `on_window` raised."""
        self._seconds = config.window_seconds
        self._slice = config.slice_seconds
        self._limit = config.windows_waiting
        self._counters = counters
        self._bus = bus
        self._gather = gather
        self._now = now
        self._on_error = on_error
        self.on_window: OnWindow | None = None
        self._open: tuple[float, float] | None = None
        self._lock = anyio.Lock()
        self._closed = self._handled = self._failed = 0
        self._waiting: deque[Window] = deque()  # the first one is being handled
        self._changed = asyncio.Condition()
        self._by_wall, self._by_source = asyncio.Event(), asyncio.Event()
        self._by_wall.set()

    # ---- closing

    async def turn(self, stream_time: float) -> float:
        """Close the window before the one of a time, if it is another; when the window of that time ends."""
        start, end = bounds(stream_time, self._seconds)
        if self._open != (start, end):
            async with self._lock:
                await self._close()
                self._open = start, end
        return end

    async def finish(self) -> None:
        """Close the window that is open, and begin anew: a source ends, or the engine does."""
        async with self._lock:
            await self._close()
            self._open = None

    async def _close(self) -> None:
        await self._gather()
        while self._counters.work(self._slice):  # noqa: ASYNC110 - work in slices, not a state that is waited for
            await asyncio.sleep(0)
        start, end = self._open or bounds(self._now(), self._seconds)
        window, by_script = await self._in_slices(close(self._counters, self._closed, start, end))
        if window.groups:
            self._closed += 1
            if self._bus.wants("counter"):
                for group in window.groups:
                    if group.group.guid in by_script:
                        await self._publish(group, start)
            self._bus.publish_window(window)
            await self._bus.flush()
            await self._hand_over(window)
        del window
        while self._counters.trash.empty_some():  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0)

    async def _in_slices(self, work: Generator[None, None, Result]) -> Result:
        until = time.perf_counter() + self._slice
        while True:
            try:
                next(work)
            except StopIteration as done:
                result: Result = done.value
                return result
            if time.perf_counter() > until:
                await asyncio.sleep(0)
                until = time.perf_counter() + self._slice

    async def _publish(self, group: GroupWindow, start: float) -> None:
        guid, until = group.group.guid, time.perf_counter() + self._slice
        assert isinstance(group.values, KeyValues)
        for number, (key, meter, value) in enumerate(group.values.counted(), 1):
            # Whole numbers are written as such: 4, not 4.0.
            self._bus.publish(Counter(guid, key, meter, int(value) if value.is_integer() else value, start))
            if number % SLICE == 0:
                await self._bus.flush()
            if number % 64 == 0 and time.perf_counter() > until:
                await asyncio.sleep(0)
                until = time.perf_counter() + self._slice

    # ---- handing over

    async def _hand_over(self, window: Window) -> None:
        if self.on_window is None:
            return
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._waiting) < self._limit)
            self._waiting.append(window)
            self._changed.notify_all()

    async def handle(self) -> None:
        """Give windows to `on_window`, one after the other, until cancelled."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._waiting)
            window = self._waiting[0]
            try:
                if self.on_window is not None:
                    await self.on_window(window)
                self._handled += 1
            except Exception as exc:
                self._failed += 1
                self._on_error(f"window {window.number}: {type(exc).__name__}: {exc}")
            del window
            async with self._changed:
                if self._waiting:
                    self._waiting.popleft()
                self._changed.notify_all()

    async def handled(self) -> None:
        """Wait until `on_window` has had every window that was closed."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._waiting)

    async def abandon(self) -> None:
        """Windows that still wait are handled no more."""
        async with self._changed:
            self._failed += len(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()

    def follow_wall(self, follows: bool) -> None:
        """Whether windows end by the wall clock: not while a source is read that has times of its own."""
        on, off = (self._by_wall, self._by_source) if follows else (self._by_source, self._by_wall)
        on.set()
        off.clear()

    async def keep_time(self) -> None:
        """Close windows by the wall clock, as long as they follow it; until cancelled."""
        while True:
            await self._by_wall.wait()
            now = self._now()
            with anyio.move_on_after(bounds(now, self._seconds)[1] - now):
                await self._by_source.wait()
            if self._by_wall.is_set():
                await self.turn(self._now())

    def stats(self) -> WindowStats:
        """Counts at this moment."""
        return WindowStats(self._closed, self._handled, self._failed, len(self._waiting), self._counters.rejected)
