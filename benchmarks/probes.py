"""Looking at a running engine from the outside: how long hooks take, how late the loop is. Loop thread only.

Nothing of the engine is wrapped or replaced. It times every hook call itself and tells `Plugin.on_slow` about those
past `Plugin.slow_seconds`; with a limit below zero it tells of all. The callback runs after the clock was read, so what
it costs is not in the numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Self

from engine import Engine
from engine.plugins.plugin import Plugin

_TICK_SECONDS = 0.001


class HookTimes:
    """The wall time of every call of one hook, in the order of the calls."""

    def __init__(self, hook: str) -> None:
        self.hook = hook
        self.seconds: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Listen to all plugins that are loaded now. Their warnings about slow hooks are off from here on."""
        for plugin in engine._plugins:  # there is no public way to them
            plugin.slow_seconds = -1.0
            plugin.on_slow = self._take

    def _take(self, _plugin: Plugin, hook: str, seconds: float) -> None:
        if hook == self.hook:
            self.seconds.append(seconds)


class LoopLag:
    """Sleeps a millisecond, over and over, while its block runs, and keeps by how much a wake-up was late at worst.

    Timers of uvloop are whole milliseconds: a lag of up to one means nothing.
    """

    def __init__(self) -> None:
        self.worst = 0.0
        self.ticks = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _tick(self) -> None:
        while True:
            due = time.perf_counter() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            self.worst = max(self.worst, time.perf_counter() - due)
            self.ticks += 1
