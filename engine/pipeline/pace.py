"""Keeps the pace of a capture that is replayed: waits by the loop's clock until the time of its packets has come."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Pace:
    """Stream time against the loop's clock, from the first time that is waited for."""

    def __init__(self, speed: float) -> None:
        """`speed` is how many seconds of stream time go by in a second."""
        self._speed = speed
        self._ended = asyncio.Event()
        self._began: tuple[float, float] | None = None  # loop's time, stream time

    async def wait(self, stream_time: float) -> None:
        """Until it is that time, or `end`."""
        loop = asyncio.get_running_loop()
        if self._began is None:
            self._began = (loop.time(), stream_time)
        due = self._began[0] + (stream_time - self._began[1]) / self._speed
        if due > loop.time() and not self._ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._ended.wait()

    def end(self) -> None:
        """Wait no more."""
        self._ended.set()
