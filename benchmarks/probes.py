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

from benchmarks.harness import BenchmarkError
from engine import Engine
from engine.pipeline.events import Event
from engine.plugins.plugin import Plugin
from engine.values.records import Log

_TICK_SECONDS = 0.001


class HookTimes:
    """The wall time of every call of one hook, in the order of the calls."""

    def __init__(self, hook: str) -> None:
        self.hook = hook
        self.seconds: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Listen to all plugins that are loaded now. Their warnings about slow hooks are off from here on."""
        for plugin in engine.plugins:
            plugin.slow_seconds = -1.0
            plugin.on_slow = self._take

    def _take(self, _plugin: Plugin, hook: str, seconds: float) -> None:
        if hook == self.hook:
            self.seconds.append(seconds)


class LoopLag:
    """Sleeps a millisecond, over and over, while its block runs, and keeps by how much each wake-up was late.

    Timers of uvloop are whole milliseconds: a lag of up to one means nothing. `own_seconds` is the processor time that
    the loop's thread took meanwhile: without what other threads and other programs held it up for.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.own_seconds: list[float] = []
        self._task: asyncio.Task[None] | None = None
        self._measured = asyncio.Event()

    @property
    def worst(self) -> float:
        """The latest wake-up so far, in seconds."""
        return max(self.seconds, default=0.0)

    def take(self) -> list[float]:
        """What was measured since the last call."""
        taken, self.seconds, self.own_seconds = self.seconds, [], []
        return taken

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            await self._measured.wait()  # what it watches may be over within the first millisecond
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _tick(self) -> None:
        while True:
            due, used = time.perf_counter() + _TICK_SECONDS, time.thread_time()
            await asyncio.sleep(_TICK_SECONDS)
            self.seconds.append(max(time.perf_counter() - due, 0.0))
            self.own_seconds.append(time.thread_time() - used)
            self._measured.set()


async def settled(engine: Engine, *, look_seconds: float) -> None:
    """Wait until no async task is pending, by looking again and again: file operations have no callback.

    A look costs about 0.1 ms of the loop's thread, and what is timed with this is up to one interval too long.
    """
    while engine.stats.tasks.pending:  # noqa: ASYNC110 - the engine tells nobody
        await asyncio.sleep(look_seconds)


async def told_by_script(engine: Engine, topic: str, event: Event) -> str:
    """Emit an event, and wait for the line that its script logs. Raises `BenchmarkError` for a warning."""
    for error in engine.load_errors:
        raise BenchmarkError(str(error))
    async with engine.subscribe("log") as log:
        await engine.emit(topic, event)
        record = await anext(log)
    if not isinstance(record, Log) or record.level != "INFO":
        raise BenchmarkError(str(record))
    return record.text
