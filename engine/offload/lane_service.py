"""The lane of one queue in service: when it is open, which run serves it, and what becomes of what is on it.

It is open while all that was called before has begun. A run that finds nothing else to do serves it, until it is needed
elsewhere. What is on the lane is taken back, as ordinary tasks, as soon as anything else waits in the queue, and when a
task on it turns out to be slow.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from engine.offload.counts import TaskCounts
from engine.offload.lane import Lane, LaneUser
from engine.offload.slot import Slot
from engine.offload.task import Outcome, Phase, Status, Task
from engine.values.histogram import Histogram


class LaneService:
    """Sees to the lane of a queue. Under the queue's lock, but where a thread is named."""

    def __init__(
        self,
        lock: threading.Lock,
        ready: deque[Task],
        counts: TaskCounts,
        user: LaneUser | None,
        *,
        make: Callable[[Callable[[], None]], Lane],
        bring: Callable[[Callable[[], None]], None],
        give: Callable[[list[Outcome]], None],
        settle: Callable[[list[Outcome]], None],
    ) -> None:
        """`user` is the script's state, None when there is to be no lane; `make(on_bell)` makes the lane.

        `bring(fetch)` has that called when it is the queue's turn, on the loop thread; `give` puts outcomes into the
        same line. `settle` takes outcomes, on the loop thread and not under the lock.
        """
        self._lock = lock
        self._ready = ready
        self._counts = counts
        self._user = user
        self._make = make
        self._bring = bring
        self._give = give
        self._settle = settle
        self._lane: Lane | None = None
        self.slot: Slot | None = None
        """The one whose run serves the lane."""
        self._is_called = False  # a run was started or woken for it, and is not there yet
        self._seen = (0.0, 0)  # packs taken and place in the last one at the last look

    # ---- loop thread, without the lock

    def start(self) -> None:
        """Make the lane, when there are quick tasks for the first time."""
        if self._lane is None and self._user is not None:
            self._lane = self._make(self._hear)
            self._user.use(self._lane.address)

    def forget_user(self) -> None:
        """The script's state is gone: outcomes come home as those of other tasks do."""
        self._user = None

    @property
    def is_open(self) -> bool:
        """Whether the lane is open, or there is none to open."""
        return self._lane is None or self._lane.is_open

    def _hear(self) -> None:
        assert self._lane is not None
        with self._lock:  # what a worker takes out of it just now is in the line then
            emptied = self._lane.emptied
        self._bring(lambda: self._fetch(emptied))

    def _fetch(self, emptied: int) -> None:
        """Have outcomes fetched, unless they went into the line since the bell was heard: there may be later ones."""
        assert self._lane is not None
        if self._user is not None:
            self._lane.expect(emptied)
            self._user.fetch()
            with self._lock:
                self.count()
            return
        with self._lock:
            outcomes = self.outcomes()
        self._settle(outcomes)

    # ---- what there is

    @property
    def has_news(self) -> bool:
        """Whether there is something to see to since the last `count`. Loop thread."""
        return self._lane is not None and (self._lane.has_news or self._lane.is_busy)

    @property
    def is_busy(self) -> bool:
        """Whether there are packs that are not done."""
        return self._lane is not None and self._lane.is_busy

    def is_idle_server(self, slot: Slot | None) -> bool:
        """Whether a slot serves the lane and has nothing to do."""
        return slot is not None and slot is self.slot and not self.is_busy

    def waits(self) -> Histogram:
        """How long tasks waited for the server."""
        return Histogram() if self._lane is None else self._lane.waits()

    def count(self) -> None:
        """Count what was posted, what the server took and what was fetched. Loop thread."""
        if self._lane is not None:
            posted, taken = self._lane.news()
            self._counts.enter(posted)
            self._counts.take_many(taken)
            self._counts.complete(self._lane.fetched())

    def open(self) -> None:
        """Open the lane, as all that was called has begun. Loop thread, while the outbox of the script is empty."""
        if self._lane is not None:
            self._lane.open()

    # ---- the server

    @property
    def needs_server(self) -> bool:
        """Whether there are packs, and nobody is there or on the way to serve."""
        return self.is_busy and self.slot is None and not self._is_called

    def call_server(self) -> None:
        """Note that a run is on the way."""
        self._is_called = True

    def uncall_server(self) -> None:
        """Note that a run has ended, which may have been the one on the way."""
        self._is_called = False

    def serve(self, slot: Slot) -> tuple[Any, ...] | None:
        """What a slot with nothing else to do gets to serve the lane; None when it is not wanted."""
        if self._lane is None or self.slot is not None or not self._lane.is_wanted:
            return None
        self.slot, self._is_called = slot, False
        return self._lane.serve()

    def look_at_server(self) -> tuple[bool, bool]:
        """Whether there is a server at work, and whether it is held up: at the same task as at the last look."""
        if self._lane is None or self.slot is None or not self._lane.is_busy:
            return False, False
        assert self.slot.worker is not None
        seen = self._lane.taken, self.slot.worker.place()
        is_held_up = seen == self._seen
        self._seen = seen
        return True, is_held_up

    # ---- what comes back

    def outcomes(self) -> list[Outcome]:
        """What the server gave and nobody has fetched."""
        if self._lane is None:
            return []
        outcomes, tasks = self._lane.take_outcomes()
        return self._outcome_of(tasks, outcomes, ())

    def take_part(self, tasks: int, outcomes: bytes, failures: tuple[tuple[bytes, bytes], ...]) -> list[Outcome]:
        """What the server gave past the lane: there was no room, or there were failures."""
        assert self._lane is not None
        self._lane.note_given(tasks)
        return self._outcome_of(tasks, outcomes, failures)

    def _outcome_of(self, tasks: int, outcomes: bytes, failures: tuple[tuple[bytes, bytes], ...]) -> list[Outcome]:
        if not tasks:
            return []
        task = Task(0, 0, "pack", size=tasks, phase=Phase.RUNNING)
        return [Outcome(task, Status.PART, outcomes, failures=failures, tasks=tasks)]

    def take_back(self) -> Task | None:
        """Make ordinary tasks of what is on the lane, at the head of the queue: the one that the server is at.

        Outcomes that nobody has fetched go into the line, before any that come later.
        """
        if self._lane is None:
            return None
        self.count()
        slot, self.slot, self._is_called = self.slot, None, False
        current, rest = self._lane.take_back()
        if outcomes := self.outcomes():
            self._give(outcomes)
        self._ready.extendleft(reversed(rest))
        if current is not None:
            assert slot is not None and slot.worker is not None
            slot.holding[current.id] = current
            slot.taken, slot.seen = (0, 0), (current.id, slot.worker.place())
        return current

    def close(self) -> None:
        """End the lane; there must be nothing on it. Loop thread."""
        if self._lane is not None:
            self._lane.close()
            self.slot = None
