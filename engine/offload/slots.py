"""The slots of a queue: which have a run, which wait for more, and which were left to a task that does not end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from engine.offload.counts import TaskCounts
from engine.offload.slot import Slot
from engine.offload.worker import Worker, WorkerThread
from engine.values.stats import WorkerStats

_LINGER_SECONDS = 0.002  # that a run waits for more: to wake it costs a fifth of what a new one does


class Slots:
    """Places for the workers of one queue. On the loop thread, but what is marked."""

    def __init__(self, lock: threading.Lock, counts: TaskCounts) -> None:
        """`lock` is the queue's."""
        self._lock = lock
        self._counts = counts
        self.running: set[Slot] = set()
        """Those with a run, whether it works or waits. Changed on the loop thread."""
        self._idle: list[Slot] = []
        self._lingering: list[Slot] = []  # under the lock
        self._closing: list[Worker] = []

    # ---- runs

    def begin_run(self) -> Slot:
        """A slot for a run that is about to start."""
        slot = self._idle.pop() if self._idle else Slot()
        slot.fresh = True
        self.running.add(slot)
        return slot

    def end_run(self, slot: Slot) -> None:
        """Take back a slot whose run has ended."""
        self.running.discard(slot)
        self._idle.append(slot)

    def someone_lingers(self) -> bool:
        """Whether a run waits for more. Under the lock."""
        return bool(self._lingering)

    def wake_one(self) -> Slot | None:
        """Let a run that waits for more go on, if there is one. Under the lock."""
        if not self._lingering:
            return None
        slot = self._lingering.pop()
        slot.lingers = False
        slot.wake.release()
        return slot

    def begin_to_linger(self, slot: Slot) -> None:
        """Note that a run is about to wait for more. On its thread, under the lock."""
        slot.lingers = True
        self._lingering.append(slot)

    def linger(self, slot: Slot) -> bool:
        """Wait a moment for more. Whether there is. On the thread of the run."""
        if slot.wake.acquire(timeout=_LINGER_SECONDS):
            return True
        with self._lock:
            if slot.lingers:
                slot.lingers = False
                self._lingering.remove(slot)
                return False
        return slot.wake.acquire()  # it was woken just now

    # ---- workers that are left to their task

    @property
    def stuck_at_most(self) -> int:
        """How many workers were asked to end and had not when `stuck` looked last."""
        return len(self._closing)

    def stuck(self) -> list[Worker]:
        """The workers that were asked to end and have not; those that have are forgotten."""
        still = [worker for worker in self._closing if not worker.executor.gone.is_set()]
        for worker in self._closing:
            if worker not in still:
                self._counts.worker_gone(worker.run_times())
        self._closing = still
        return still

    def leave(self, slot: Slot) -> None:
        """Leave a slot's worker to the task it is at; it ends after that. The slot is not used again."""
        self.running.discard(slot)
        assert slot.worker is not None and slot.run is not None
        slot.worker.stop()
        slot.worker.close()
        self.stuck()
        self._closing.append(slot.worker)
        slot.run.cancel()  # the thread goes on, but may come back when the loop is closed

    def close(self) -> list[WorkerThread]:
        """Ask all workers to end. Gives their threads, to wait for."""
        for slot in (*self._idle, *self.running):
            slot.orphaned = True
            if slot.worker is not None:
                slot.worker.close()
                self._closing.append(slot.worker)
        self._idle.clear()
        self.running.clear()
        return [worker.executor for worker in self._closing]

    # ---- what there is

    def workers(self, is_at_rest: Callable[[Slot], bool]) -> Iterator[tuple[Worker, str]]:
        """The workers and what they do. Under the lock, after `stuck`."""
        for slot in (*self._idle, *self.running):
            if slot.worker is not None:
                works = slot in self.running and not slot.lingers and not is_at_rest(slot)
                yield slot.worker, "running" if works else "idle"
        for worker in self._closing:
            yield worker, "stuck"


def worker_stats(worker: Worker, state: str) -> WorkerStats:
    """What there is to say about a worker."""
    return WorkerStats(worker.kind, state, worker.tasks_run, worker.states_built, worker.memory_bytes)
