"""What a run reads from: it opens, gives batch after batch, and ends. Loop thread only."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from engine.capture.batches import Batch
from engine.capture.decoder import Decoder
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

        The memory that its frames lie in stays as it is until the next call, or `close`.
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


async def off_loop(work: Callable[[Callable[[], bool]], Result], discard: Callable[[Result], object]) -> Result:
    """Run blocking work in a thread of its own; it is given a function that says whether it should stop.

    A cancellation is passed on at once: the work is told to stop, and what it may still bring is discarded.
    """
    loop, stop = asyncio.get_running_loop(), threading.Event()
    done: asyncio.Future[None] = loop.create_future()
    results: list[Result] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work(stop.is_set))
        except Exception as exc:
            errors.append(exc)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, done)

    thread = threading.Thread(target=run, name="offpath-open", daemon=True)
    thread.start()
    try:
        await done
    except asyncio.CancelledError:
        stop.set()
        thread.join()  # it looks at the event every few milliseconds
        for result in results:
            discard(result)
        raise
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
