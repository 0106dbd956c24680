"""What a task queue counts: how many tasks there were and how they ended, how long they waited and ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.offload.task import Outcome, Status, Task
from engine.values.histogram import Histogram, Recorder
from engine.values.stats import AsyncStats, WorkerStats


class TaskCounts:
    """The counts of one queue. On the loop thread, but where it says "under the lock": that is the queue's."""

    def __init__(self) -> None:
        self.pending = 0
        """Tasks submitted and not settled."""
        self.late = 0
        self._entered = self._taken = 0
        self._completed = self._failed = self._timed_out = self._rejected = self._abandoned = 0
        self._waits = Recorder()
        self._operations = Recorder()
        self._bytes_copied = 0
        self._gone_runs = Histogram()

    @property
    def settled(self) -> int:
        """Tasks settled so far, however they ended."""
        return self._completed + self._failed + self._abandoned

    def enter(self, size: int) -> None:
        """Tasks were submitted."""
        self._entered += size
        self.pending += size

    def reject(self, size: int) -> None:
        """Tasks were refused because the queue was full."""
        self._rejected += size

    def take(self, task: Task, now: float) -> None:
        """A run took a task. Under the lock."""
        self._taken += task.size
        if task.submitted:  # not what is left of a pack, which was taken before
            self._waits.add(now - task.submitted, task.size)

    def take_many(self, size: int) -> None:
        """A run took tasks whose waits are counted elsewhere. Under the lock."""
        self._taken += size

    def put_back(self, task: Task) -> None:
        """A run gave a task back. Under the lock."""
        self._taken -= task.size

    def drop(self, tasks: Iterable[Task]) -> None:
        """Tasks that no run took were given up. Under the lock."""
        self._taken += sum(task.size for task in tasks)

    def operated(self, run: Sequence[Task], seconds: float) -> None:
        """File operations were done, as one. Under the lock."""
        self._operations.add(seconds / len(run), len(run))
        self._bytes_copied += sum(task.moved for task in run)

    def ran(self, seconds: float) -> None:
        """A task was run that no worker counted."""
        self._operations.add(seconds)

    def worker_gone(self, runs: Histogram) -> None:
        """A worker ended; how long the tasks took that it ran."""
        self._gone_runs += runs

    def settle(self, outcome: Outcome) -> None:
        """A task ended, or some tasks of a pack."""
        count = outcome.tasks
        self.pending -= count
        if outcome.status is Status.ABANDONED:
            self._abandoned += count
        elif outcome.status is Status.FAILED:
            self._failed += count
            self._timed_out += outcome.timed_out
        else:
            self._failed += len(outcome.failures)
            self._completed += count - len(outcome.failures)

    def complete(self, count: int) -> None:
        """Tasks ended well whose outcomes are where they belong."""
        self.pending -= count
        self._completed += count

    def stats(self, stuck_threads: int, workers: tuple[WorkerStats, ...], runs: Iterable[Histogram]) -> AsyncStats:
        """All of it at this moment. `runs` are those of the workers that there are. Under the lock."""
        queued = self._entered - self._taken
        return AsyncStats(
            submitted=self._entered + self._rejected,
            completed=self._completed,
            failed=self._failed,
            timed_out=self._timed_out,
            rejected=self._rejected,
            abandoned=self._abandoned,
            pending=self.pending,
            queued=queued,
            running=self.pending - queued,
            late_results=self.late,
            stuck_threads=stuck_threads,
            bytes_copied=self._bytes_copied,
            waits=self._waits.snapshot(),
            runs=sum(runs, start=self._gone_runs + self._operations.snapshot()),
            workers=workers,
        )
