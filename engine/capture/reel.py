"""What a run reads from: it opens, gives batch after batch, and ends. Loop thread only."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from engine.capture.decoder import Batch, Decoder
from engine.values.errors import CaptureError
from engine.values.stats import SourceStats

Result = TypeVar("Result")
Warn = Callable[[str, str], None]
"""Takes what a warning is about, and its text."""


class Reel(ABC):
    """A source that is being read, into one decoder. Nothing is opened before the first batch is asked for."""

    wall_time = False
    """Whether stream time is the wall's and not the packets'."""
    failure: CaptureError | None = None
    """What ended the source too early. What had come until then counts."""

    @abstractmethod
    async def next(self, decoder: Decoder, packets: int) -> Batch | None:
        """The next batch of at most that many packets, or None at the end.

        Raises `CaptureError` when the source can't be opened.
        """

    @abstractmethod
    def stop(self) -> None:
        """Give no more batches: a `next` that waits returns None."""

    @abstractmethod
    def stats(self) -> SourceStats:
        """Counts so far; after `close`, the final ones."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything. The decoder must not read any more. Idempotent."""


async def off_loop(work: Callable[[Callable[[], bool]], Result], discard: Callable[[Result], None]) -> Result:
    """Run blocking work in a thread; it is given a function that says whether it should stop.

    A cancellation is passed on at once: the work is told to stop, and what it may still bring is discarded.
    """
    stop = threading.Event()
    job = asyncio.get_running_loop().run_in_executor(None, work, stop.is_set)
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        stop.set()
        job.add_done_callback(lambda done: None if done.cancelled() or done.exception() else discard(done.result()))
        raise
