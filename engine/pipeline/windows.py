"""The window of stream time that is open, what becomes of it at its end, and who waits for it. Loop thread only."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import TypeVar

import anyio

from engine.pipeline.kept import Kept
from engine.pipeline.records import RecordBus
from engine.pipeline.slowpath import SlowPath
from engine.stream.counters import Counters
from engine.stream.keys import KeyValues
from engine.stream.windows import SLICE, bounds, close
from engine.values.config import Config
from engine.values.records import Counter
from engine.values.stats import WindowStats
from engine.values.windows import GroupWindow, Window

Result = TypeVar("Result")
OnWindow = Callable[[Window], object]


class WindowKeeper:
    """Closes windows, one at a time, and has them flushed; what is kept goes to records, sinks and hooks of windows.

    A window is closed in slices, so that the loop runs in between. A source whose time is its own waits until it is
    flushed, so that records come in the same order at every run; nothing that follows the wall's clock waits.
    """

    def __init__(
        self,
        config: Config,
        counters: Counters,
        bus: RecordBus,
        slow: SlowPath,
        gather: Callable[[], Awaitable[None]],
        now: Callable[[], float],
        on_error: Callable[[str], None],
    ) -> None:
        """`gather` brings in what is counted elsewhere. `on_error` hears of what those who hook windows raised."""
        self._seconds = config.window_seconds
        self._slice = config.slice_seconds / 2  # a task whose timer is due gets its turn after two of them
        self._counters = counters
        self._bus = bus
        self._slow = slow
        self._gather = gather
        self._now = now
        self._on_error = on_error
        self._calls: list[OnWindow] = []
        self._open: tuple[float, float] | None = None
        self._began = 0.0  # when windows began to follow the wall clock: what is counted from then on is of that window
        self._lock = anyio.Lock()
        self._closed = self._handled = self._failed = 0
        self._flushing: set[anyio.CancelScope] = set()
        self._start_soon: Callable[..., object] | None = None
        self._by_wall, self._by_source = asyncio.Event(), asyncio.Event()
        self._by_wall.set()
        slow.flusher.hand_on = self._hand_on

    def begin(self, start_soon: Callable[..., object]) -> None:
        """The engine runs; `start_soon` starts a task of its own."""
        self._start_soon = start_soon
        self._began = self._now()
        start_soon(self._keep_time)

    @property
    def wanted(self) -> bool:
        """Whether somebody takes windows."""
        return bool(self._calls) or self._bus.takes_windows

    def on_window(self, call: OnWindow) -> None:
        """Have `call(window)` called with each window that was flushed, and awaited when it can be."""
        self._calls.append(call)

    # ---- closing

    async def turn(self, stream_time: float) -> float:
        """Close the window before the one of a time, if it is another; when the window of that time ends."""
        start, end = bounds(stream_time, self._seconds)
        if self._open != (start, end):
            async with self._lock:
                if self._open is not None:
                    await self._slow.end_window(self._open[1])
                await self._close()
                self._open = start, end
        return end

    async def finish(self) -> None:
        """Close the window that is open, have it flushed, and begin anew: a source ends, or the engine does."""
        async with self._lock:
            await self._close(last=True)
            self._open = None

    async def _close(self, *, last: bool = False) -> None:
        await self._gather()
        while self._counters.work(self._slice):  # noqa: ASYNC110 - work in slices, not a state that is waited for
            await asyncio.sleep(0)
        start, end = self._open or bounds(self._began, self._seconds)
        window = await self._in_slices(close(self._counters, self._closed, start, end))
        if window.groups or self._open is not None or self._slow.pending:
            self._closed += 1
            if last or self._start_soon is None or not self._by_wall.is_set():
                await self._flush(window, last)
            else:
                self._start_soon(self._flush, window, last)
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

    # ---- flushing

    async def flush(self, window: Window) -> None:
        """Run the cycle of a window that was measured elsewhere."""
        await self._flush(window, False)

    async def _flush(self, window: Window, last: bool) -> None:
        with anyio.CancelScope() as scope:
            self._flushing.add(scope)
            try:
                await self._slow.flush(window, last=last)
            except anyio.get_cancelled_exc_class():
                self._failed += 1
                raise
            finally:
                self._flushing.discard(scope)

    def abandon(self) -> None:
        """Flushes that still go on, or wait, are over; their windows are counted as failed."""
        for scope in tuple(self._flushing):
            scope.cancel()

    def release(self) -> None:
        """From now on nobody who hooks windows is called."""
        self._calls.clear()
        self._start_soon = None

    async def _hand_on(self, window: Window) -> None:
        """A window was flushed, or its turn never came: records, sinks, and those who hook windows."""
        if self._bus.wants_counters:
            for group in window.groups:
                if group.by_script:
                    await self._publish(group, window.start)
        self._bus.publish_window(window)
        await self._bus.flush()
        for call in tuple(self._calls):
            await self._tell(call, window)

    async def _tell(self, call: OnWindow, window: Window) -> None:
        try:
            answer = call(window)
            if inspect.isawaitable(answer):
                await answer
        except Exception as exc:
            self._failed += 1
            self._on_error(f"window {window.number}: {type(exc).__name__}: {exc}")
        else:
            self._handled += 1

    async def _publish(self, group: GroupWindow, start: float) -> None:
        guid, until = group.group.guid, time.perf_counter() + self._slice
        for number, (key, meter, value) in enumerate(_counted(group), 1):
            # Whole numbers are written as such: 4, not 4.0.
            self._bus.publish_counter(Counter(guid, key, meter, int(value) if value.is_integer() else value, start))
            if number % SLICE == 0:
                await self._bus.flush()
            if number % 64 == 0 and time.perf_counter() > until:
                await asyncio.sleep(0)
                until = time.perf_counter() + self._slice

    # ---- the wall's clock

    def follow_wall(self, follows: bool) -> None:
        """Whether windows end by the wall clock: not while a source is read that has times of its own."""
        on, off = (self._by_wall, self._by_source) if follows else (self._by_source, self._by_wall)
        on.set()
        off.clear()
        if follows:
            self._began = self._now()

    async def _keep_time(self) -> None:
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
        return WindowStats(self._closed, self._handled, self._failed, len(self._flushing), self._counters.rejected)


def _counted(group: GroupWindow) -> Iterator[tuple[str, int, float]]:
    """Key, meter and value of what was counted and kept, GROUP_TOTALS left out."""
    assert isinstance(group.values, KeyValues | Kept)
    return group.values.counted()
