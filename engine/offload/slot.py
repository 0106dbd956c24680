"""A place for a worker in a task queue, and what the worker in it has in hand."""

from __future__ import annotations

import asyncio
import threading

from engine.offload.task import Task
from engine.offload.worker import Worker


class Slot:
    """A worker and what it has in hand. Shared with the worker's thread, under the queue's lock."""

    __slots__ = ("fresh", "holding", "lingers", "orphaned", "run", "seen", "taken", "wake", "worker")

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.holding: dict[int, Task] = {}
        self.orphaned = False
        self.fresh = False  # its run has drawn nothing yet, since it began or was woken
        self.lingers = False  # its run waits for more
        self.wake = threading.Lock()  # released to wake it
        self.wake.acquire()
        self.run: asyncio.Future[int] | None = None
        self.seen: tuple[int, int] | None = None  # task and place in it at the last look
        self.taken = (0, 0)  # of the part that the worker gives next: tasks and bytes that were taken before
