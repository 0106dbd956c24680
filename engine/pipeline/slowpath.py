"""The slow path of an engine: seconds and windows of stream time, and what waits for their end. Loop thread only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from engine.pipeline.flush import Flusher
from engine.pipeline.flush_slices import Slices
from engine.pipeline.held import HeldItems
from engine.pipeline.records import RecordBus
from engine.pipeline.sessions import Sessions
from engine.pipeline.updates import Updates
from engine.plugins.plugin import Plugin
from engine.values.config import Config
from engine.values.records import Flow
from engine.values.stats import FlushStats
from engine.values.windows import Window

_TICK_SECONDS = 1
_MOST_TICKS = 600
"""Seconds that are made up for when stream time leaps; the others count, but nobody is called."""
_WAITING_WINDOWS = 8


class SlowPath:
    """Calls the metronome each second, and has what was published flushed when a window ends."""

    def __init__(
        self,
        config: Config,
        plugins: Sequence[Plugin],
        bus: RecordBus,
        slices: Slices,
        warn: Callable[[Plugin, str], None],
        flows: Callable[[], Iterable[Iterable[Flow]]],
    ) -> None:
        """`plugins` is the live list of the engine; `flows()` are those of the source that is read."""
        self._plugins = plugins
        self._bus = bus
        self._slices = slices
        self._flows = flows
        self._seconds = config.window_seconds
        self.held = HeldItems(plugins, config.message_limit, config.limits.flows)
        self.flusher = Flusher(plugins, bus.publish, warn, slices, _WAITING_WINDOWS)
        self.sessions = Sessions(plugins, self.held, slices)
        self.updates = Updates(plugins, slices)
        self._update_groups: frozenset[str] = frozenset()
        self._second: int | None = None
        self._window_start = 0.0
        self._number = self._ticks = 0
        self._open = False

    # ---- stream time

    def begin(self) -> None:
        """Another source, or none: time has another origin."""
        self._second = None
        self._open = False
        self.sessions.begin()

    def is_due(self, now: float) -> bool:
        """Whether `follow` has something to do."""
        return self._second is None or now >= self._second + _TICK_SECONDS

    def wanted_at(self) -> float:
        """The next second at which `follow` has more to do than to count; there a batch is to end."""
        return -math.inf if self._second is None or self._tells_seconds() else self._window_start + self._seconds

    def _tells_seconds(self) -> bool:
        """Whether some hook may hear of a second in which no window ends."""
        return any(plugin.block.side == "backend" and plugin.hooks for plugin in self._plugins)

    async def follow(self, now: float) -> None:
        """Stream time has come to `now`: make up for all seconds, and windows, that are over."""
        if self._second is None:
            self._second = math.floor(now)
            self._window_start = now - now % self._seconds
        self._open = True
        self._slices.begin()
        while self.is_due(now):
            left = math.floor(now) - self._second
            step = max(left - _MOST_TICKS, 0) + _TICK_SECONDS
            tells = self._tells_seconds()
            if not tells:  # straight to the end of the window
                step = max(step, min(left, math.ceil(self._window_start + self._seconds) - self._second))
            self._second += step
            self._ticks += step
            if tells:
                await self._tick(float(self._second))
            if self._second >= self._window_start + self._seconds:
                await self._end_window()

    async def _tick(self, now: float) -> None:
        if self.sessions.watches:
            await self.sessions.look(self._flows(), now)
        await self.updates.tell(now)
        backend = [plugin for plugin in self._plugins if plugin.block.side == "backend"]
        await self._slices.tell(backend, "onmetronome", now, self._ticks, _TICK_SECONDS)

    async def _end_window(self) -> None:
        """The window is over at the last second that its length divides."""
        assert self._second is not None
        end = self._second - self._second % self._seconds
        await self.sessions.snapshots(self._flows(), end)
        await self.flush(Window(self._number, self._window_start, max(end, self._window_start + self._seconds), ()))
        self._window_start = end

    async def finish(self, now: float) -> None:
        """No more comes for now: flush what there is, if anything came since the last flush."""
        if not (self._open or self.held or self.updates.pending):
            return
        await self.updates.tell(now)
        start = self._window_start if self._open else now
        await self.flush(Window(self._number, start, max(now, start), ()), last=True)
        self._window_start, self._open = now, False

    async def flush(self, window: Window, *, last: bool = False) -> None:
        """Run the cycle of a window: the place where whoever measures windows hands them over."""
        self._number = window.number + 1
        await self.flusher.flush(window, self.held, last=last)

    # ---- what is published

    def counted(self, group: str, key: str, meter: int, value: float) -> None:
        """A counter was updated."""
        if group in self._update_groups:
            self.updates.add(group, key, meter, value)

    def plugins_changed(self) -> None:
        """The list of plugins is another one."""
        self._update_groups = self.updates.groups()

    def release(self) -> None:
        """Publish what is held still: no flush follows."""
        for record in self.held.take_records():
            self._bus.publish(record)

    def stats(self) -> FlushStats:
        """Counts at this moment."""
        return replace(self.flusher.stats(self.held), updates_dropped=self.updates.dropped)
