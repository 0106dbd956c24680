"""The slow path of an engine: seconds and windows of stream time, and what waits for their end. Loop thread only."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

from engine.pipeline.flush import Flusher
from engine.pipeline.flush_slices import Slices
from engine.pipeline.held import HeldItems
from engine.pipeline.records import RecordBus
from engine.pipeline.sessions import Sessions
from engine.pipeline.updates import Updates
from engine.plugins.plugin import Plugin
from engine.stream.counters import Run
from engine.values.config import Config
from engine.values.records import Flow
from engine.values.stats import FlushStats
from engine.values.windows import Window

_TICK_SECONDS = 1
_MOST_TICKS = 600
"""Seconds that are made up for when stream time leaps; the others count, but nobody is called."""


async def _nothing() -> None:
    """Nothing is counted."""


class SlowPath:
    """Calls the metronome each second, and flushes windows with what was published in them."""

    def __init__(
        self,
        config: Config,
        plugins: Sequence[Plugin],
        bus: RecordBus,
        slices: Slices,
        warn: Callable[[Plugin, str], None],
        flows: Callable[[], Iterable[Iterable[Flow]]],
        monotonic: Callable[[], float],
    ) -> None:
        """`plugins` is the live list of the engine; `flows()` are those of the source that is read."""
        self._plugins = plugins
        self._slices = slices
        self._flows = flows
        self.held = HeldItems(plugins, config.message_limit, config.limits.flows)
        self.flusher = Flusher(plugins, bus.publish, warn, slices, config.windows_waiting, monotonic)
        self.sessions = Sessions(plugins, self.held, slices)
        self.updates = Updates(plugins, slices)
        self._update_groups: frozenset[str] = frozenset()
        self._gather: Callable[[], Awaitable[None]] | None = None
        self.measure: Callable[[], Awaitable[None]] = _nothing
        """Awaited when a second is over of which monitors want updates: what the platform counts is to come in."""
        self._second: int | None = None
        self._ticks = 0

    # ---- stream time

    def begin(self) -> None:
        """Another source, or none: time has another origin."""
        self._second = None
        self.sessions.begin()

    def is_due(self, now: float) -> bool:
        """Whether `follow` has something to do."""
        return self._second is None or now >= self._second + _TICK_SECONDS

    def wanted_at(self) -> float:
        """From when on batches are to end with each second, as `follow` has more to do there than to count."""
        return -math.inf if self._second is None or self._tells_seconds() else math.inf

    def _tells_seconds(self) -> bool:
        """Whether some hook may hear of a second."""
        return any(plugin.block.side == "backend" and plugin.hooks for plugin in self._plugins)

    async def follow(self, now: float) -> None:
        """Stream time has come to `now`: make up for all seconds that are over."""
        if self._second is None:
            self._second = math.floor(now)
        self._slices.begin()
        while self.is_due(now):
            left = math.floor(now) - self._second
            step = max(left - _MOST_TICKS, 0) + _TICK_SECONDS
            tells = self._tells_seconds()
            if not tells:
                step = left
            self._second += step
            self._ticks += step
            if tells:
                await self._tick(float(self._second))

    async def _tick(self, now: float) -> None:
        if self.sessions.watches:
            await self.sessions.look(self._flows(), now)
        await self._tell_updates(now)
        backend = [plugin for plugin in self._plugins if plugin.block.side == "backend"]
        await self._slices.tell(backend, "onmetronome", now, self._ticks, _TICK_SECONDS)

    async def _tell_updates(self, now: float) -> None:
        if self._update_groups and self._gather is not None:
            await self._gather()
            await self.measure()
            await self.updates.tell(now)

    # ---- windows

    @property
    def pending(self) -> bool:
        """Whether something waits for a flush."""
        return bool(self.held) or self.updates.pending

    async def end_window(self, end: float) -> None:
        """The window that ends here gets its last second, and flows that have gone on for long."""
        await self.follow(end)
        await self.sessions.snapshots(self._flows(), end)

    async def flush(self, window: Window, *, last: bool = False) -> None:
        """Run the cycle of a window. `last`: no other follows for now."""
        if last:
            await self._tell_updates(window.end)
        await self.flusher.flush(window, self.held, last=last)

    # ---- what is published

    def counted(self, run: Run) -> None:
        """Some script counted this."""
        if run.group in self._update_groups:
            self.updates.add(run)

    def plugins_changed(self) -> None:
        """The list of plugins is another one."""
        self._update_groups = self.updates.groups()

    def gather_from(self, gather: Callable[[], Awaitable[None]]) -> None:
        """`gather()` is awaited, and brings in what plugins counted, for `counted` to hear of it."""
        self._gather = gather

    def stats(self) -> FlushStats:
        """Counts at this moment."""
        return replace(self.flusher.stats(self.held), updates_dropped=self.updates.dropped)
