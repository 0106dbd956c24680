"""Events and messages that wait, and what hooks leave in their outboxes: handled in turns. Loop thread only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from engine.pipeline.deliveries import Deliveries
from engine.pipeline.effects import Effects
from engine.pipeline.events import EventDoor
from engine.pipeline.logs import ScriptLog
from engine.plugins.plugin import Plugin

_AT_ONCE = 1_000  # events and deliveries between two batches of a source, or in one turn


class Work:
    """One event or message after the other: by a source that is read, between its batches, or in turns of the loop."""

    def __init__(
        self,
        effects: Effects,
        deliveries: Deliveries,
        door: EventDoor,
        log: ScriptLog,
        now: Callable[[], float],
        slice_seconds: float,
        is_reading: Callable[[], bool],
        monotonic: Callable[[], float],
    ) -> None:
        """`is_reading()`: a source is being read, which sees to all that waits; `monotonic` measures slices."""
        self._effects = effects
        self._deliveries = deliveries
        self._door = door
        self._log = log
        self._now = now
        self._slice = slice_seconds
        self._is_reading = is_reading
        self._monotonic = monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_scheduled = False

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on what waits is handled."""
        self._loop = loop

    def stop(self) -> None:
        """What waits now, and what comes, is left."""
        self._loop = None

    @property
    def pending(self) -> bool:
        """Whether something waits."""
        return bool(self._door.pending or self._deliveries.pending)

    def take(self, plugins: Iterable[Plugin]) -> None:
        """Empty the outboxes of plugins; messages that were in them are delivered soon."""
        for plugin in tuple(plugins):
            self._effects.take(plugin)
        if self._deliveries.pending:
            self.wake()

    def wake(self) -> None:
        """Have what waits handled soon: by the source that is read, or in the loop's next turn."""
        if self._is_scheduled or self._loop is None or self._is_reading():
            return
        self._is_scheduled = True
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        if self._loop is None or self._is_reading():
            return
        until = self._monotonic() + self._slice
        for _ in range(_AT_ONCE):
            if not self.pending or self._monotonic() > until:
                break
            self._do_one()
        if self.pending:
            self.wake()

    async def do_some(self) -> None:
        """Handle what waits, up to a number, letting the loop run in between; more may wait then."""
        until = self._monotonic() + self._slice
        for _ in range(_AT_ONCE):
            if not self.pending or self._loop is None:
                return
            self._do_one()
            if self._monotonic() > until:
                await asyncio.sleep(0)
                until = self._monotonic() + self._slice
        await asyncio.sleep(0)

    def _do_one(self) -> None:
        if self._deliveries.pending:
            self._effects.take(self._deliveries.deliver_one(self._now()))
            return
        try:
            self.take(self._door.handle_first())
        except (TypeError, ValueError) as exc:
            self._log.write("emit", "ERROR", str(exc))
