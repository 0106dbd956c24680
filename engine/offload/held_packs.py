"""Packs that a slow task holds up: what is done comes home, and what has not begun goes to workers that are idle.

A worker runs the tasks of a pack one after the other and gives their outcomes together. So it is looked at from time to
time: one that is at the same task as the last time is held up by it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable

from engine.offload.slot import Slot
from engine.offload.task import Outcome, Status, Task
from engine.offload.worker import Worker

_LOOK_SECONDS = 0.002  # between two looks at workers that are at a pack
_IDLE_LOOK_SECONDS = 0.020  # the same while there is none, but may be
_SEEN_SECONDS = 0.001  # in which a worker surely sees what was asked of it, if it comes to look


class HeldPacks:
    """Looks after the packs that the workers of one queue are at. Loop thread only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lock: threading.Lock,
        slots: Iterable[Slot],
        *,
        before_look: Callable[[], bool],
        someone_is_idle: Callable[[], bool],
        more_may_come: Callable[[], bool],
        give: Callable[[list[Outcome]], None],
        put_back: Callable[[Task], None],
        all_begun: Callable[[Task], None],
    ) -> None:
        """`slots` is the live set of those with a run. All but `more_may_come` are called under `lock`, the queue's.

        `before_look()` may put packs into the hands of a slot; whether it wants to be called again.
        `put_back(task)` takes the part of a pack that has not begun; `all_begun(task)` hears that there is none left.
        """
        self._loop = loop
        self._lock = lock
        self._slots = slots
        self._before_look = before_look
        self._someone_is_idle = someone_is_idle
        self._more_may_come = more_may_come
        self._give = give
        self._put_back = put_back
        self._all_begun = all_begun
        self._looking = False

    def look_later(self, seconds: float = _LOOK_SECONDS) -> None:
        """Look in a moment, and from then on as long as there is something to look at."""
        if not self._looking:
            self._looking = True
            self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._looking = False
        with self._lock:
            again = self._before_look()
            idle = self._someone_is_idle()
            held = [(slot, task) for slot in self._slots for task in slot.holding.values() if task.is_pack]
            for slot, task in held:
                if slot.worker is not None and not slot.orphaned:
                    self._look_at(slot, slot.worker, task, idle=idle)
        if held or again:
            self.look_later()
        elif self._more_may_come():
            self.look_later(_IDLE_LOOK_SECONDS)

    def _look_at(self, slot: Slot, worker: Worker, task: Task, *, idle: bool) -> None:
        place = worker.place()
        held_up = slot.seen == (task.id, place)
        slot.seen = (task.id, place)
        if not held_up:
            return
        self._take_outcomes(slot, worker, task, place)
        if place == task.size - 1:
            self._all_begun(task)
        elif idle and place >= 0:
            worker.end_pack_after(place + 1)
            # The worker looks at this before the next task it begins. A moment later it has left the pack, or is still
            # at the task where the place stands: what is behind that is free.
            self._loop.call_later(_SEEN_SECONDS, self._take_rest, slot, worker, task, place)

    def _take_outcomes(self, slot: Slot, worker: Worker, task: Task, place: int) -> None:
        """Bring home what a worker shows of the tasks before the slow one. It will give that again, later."""
        count, outcomes = worker.outcomes()
        if worker.place() != place or count <= slot.taken[0]:
            return  # it went on
        taken_count, taken_bytes = slot.taken
        slot.taken = (count, len(outcomes))
        self._give([Outcome(task, Status.PART, outcomes[taken_bytes:], tasks=count - taken_count)])

    def _take_rest(self, slot: Slot, worker: Worker, task: Task, seen: int) -> None:
        """Take what a worker that was seen at a place, and told to end there, has not begun."""
        with self._lock:
            if slot.holding.get(task.id) is not task or slot.orphaned:
                return
            place = worker.place()
            if place < seen:
                return  # it has left the pack, and is about to say what it has done
            begun = place + 1
            worker.end_pack_after(begun)
            if begun < task.size:
                self._put_back(task.split(begun))
            self._all_begun(task)
