"""What the engine asks of a task queue: that of threads and processes (queue.py), or another that stands in for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.offload.task import Outcome, Task
from engine.offload.worker import WorkerThread
from engine.values.stats import AsyncStats


class Queue(Protocol):
    """The tasks of one plugin, from `submit` to their outcomes. Loop thread only."""

    name: str

    def add_code(self, code: int, bytecode: bytes) -> None:
        """Make the bytecode of a prototype known, before the first task that uses it."""

    def submit(self, task: Task) -> None:
        """Take a task. Its outcome is delivered exactly once, unless `detach` came before."""

    def reject(self, count: int) -> None:
        """Count tasks that the script's side refused because the queue was full."""

    @property
    def pending(self) -> int:
        """Tasks submitted and not settled."""

    @property
    def half_full(self) -> bool:
        """Whether so many tasks are pending that a source had better wait."""

    @property
    def settled(self) -> int:
        """Tasks settled so far, however they ended."""

    def stats(self) -> AsyncStats:
        """Counts at this moment."""

    def pump(self) -> None:
        """Start what may start now."""

    def settle(self, outcomes: list[Outcome]) -> None:
        """Take outcomes; late ones of settled tasks are dropped and counted."""

    def look_at_lane(self) -> None:
        """The outbox of the script's side was taken."""

    def detach(self, settled: Callable[[list[Outcome]], None]) -> None:
        """The plugin is gone: what is queued is still done, results are dropped and counted; `settled` hears of all."""

    def abandon(self) -> None:
        """Give up all that is not settled."""

    def close(self) -> list[WorkerThread]:
        """Ask all workers to end, when all tasks are settled. Gives their threads, to wait for."""
