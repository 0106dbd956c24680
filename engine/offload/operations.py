"""The file operations of one queue: what is drawn together, how many runs do them, and how they are done.

Several appends to one file are done as one. Several copies of small files are made with one call (copier.py), by the
run that is alone while operations are quick. Another one is started when they turn out to be slow; then it gets what
that call has not begun.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Protocol

from engine.offload.copier import MOST, Copier
from engine.offload.counts import TaskCounts
from engine.offload.files import GIVEN_UP, coalesces, in_thread, operate, operate_run, touched_by_run
from engine.offload.moving import SMALL
from engine.offload.task import Outcome, Phase, Status, Task
from engine.offload.worker import WorkerThread

if TYPE_CHECKING:
    from engine.offload.gate import Gate

# Threads that do small operations hinder each other: each system call lets go of the GIL and has to get it back.
# Measured: four take twice as long as one. So another run is started only when those that there are begin fewer than so
# many operations, each, in so many seconds.
_QUICK_OPERATIONS = 4
_WATCH_SECONDS = 0.002

_RUN_APPENDS = 256  # copybuffers done as one
_RUN_CATS = 32  # likewise; each has a source to look up under the lock
_RUN_BYTES = 8 << 20


class Draw(Protocol):
    """Gives a run its next operations, at most so many that are not done as one; `first` with its first call."""

    def __call__(self, *, first: bool, most: int) -> list[Task]: ...


class Operations:
    """Runs of file operations, which draw from the head of the queue. What is not marked is for the loop thread."""

    def __init__(
        self,
        gate: Gate,
        lock: threading.Lock,
        ready: deque[Task],
        counts: TaskCounts,
        given_up: threading.Event,
        *,
        name: str,
        counts_are_enough: bool,
        give: Callable[[list[Outcome], int], None],
        pump: Callable[[], None],
    ) -> None:
        """`give(outcomes, count)` brings outcomes home, from any thread, under `lock`; `pump()` starts what may start.

        If `counts_are_enough`, those that went well and that nothing waits for are in the count only.
        """
        self._gate = gate
        self._lock = lock
        self._ready = ready
        self._counts = counts
        self._given_up = given_up
        self._name = name
        self._counts_are_enough = counts_are_enough
        self._give = give
        self._pump = pump
        self.are_blocked = False
        """The head waits for a path. Under the lock."""
        self.in_hand: set[Task] = set()
        """Those that were drawn, have not ended and are not given up. Under the lock."""
        self._runs = 0
        self._runs_wanted = 1
        self._begun = 0  # by one call each; the copier counts its own
        self._watching = False
        self._copier: Copier | None = None
        self._copies: list[Task] = []  # that it has in hand, less what was taken away again; under the lock
        self._together = 1  # copies that are drawn together: those before were small and all went well

    # ---- runs

    @property
    def may_start_run(self) -> bool:
        """Whether another run would help."""
        return self._runs < self._runs_wanted

    def begin_run(self) -> None:
        """Count a run in, for which `run` is about to be called."""
        self._runs += 1

    def end_run(self) -> None:
        """Count it out."""
        self._runs -= 1
        self._runs_wanted = max(self._runs, 1)

    async def run(self, draw: Draw) -> None:
        """Do operations until `draw` gives none. The first run has the copier."""
        if self._runs > 1:
            await in_thread(lambda: self._drain(draw, None), self._gate.file_threads)
            return
        if self._copier is None:
            self._copier = Copier(f"offpath-copies-{self._name}")
        copier = self._copier
        await in_thread(lambda: self._drain(draw, copier), copier.executor)

    def watch(self) -> None:
        """See to it that there are more runs when those that there are turn out to be slow."""
        if not self._watching:
            self._watching = True
            self._gate.loop.call_later(_WATCH_SECONDS, self._look_at_runs, self._all_begun())

    def _all_begun(self) -> int:
        return self._begun + (self._copier.begun if self._copier is not None else 0)

    def _look_at_runs(self, begun: int) -> None:
        self._watching = False
        if self._all_begun() - begun < _QUICK_OPERATIONS * self._runs:
            self._runs_wanted = self._runs + 1
            self._take_copies_back()
        self._pump()
        if self.are_unbegun:
            self.watch()

    def _take_copies_back(self) -> None:
        """Take what the copier has not begun for another run, and leave it the one copy that it is at."""
        with self._lock:
            if not self._copies or self._copier is None:
                return
            begun = max(self._copier.stop(), 1)
            self._put_back(begun)
            at_hand = self._copies[-1:]
            self._gate.paths.narrow(self._copies[0], lambda: touched_by_run(at_hand))

    def _put_back(self, begun: int) -> None:
        """Give back the copies behind those that were begun. On any thread, under the lock."""
        rest = self._copies[begun:]
        del self._copies[begun:]
        if self._given_up.is_set():
            return  # so are they: whoever gives all up finds them in hand
        for task in reversed(rest):
            task.phase, task.submitted = Phase.WAITING, 0.0  # its wait is counted
            self._counts.put_back(task)
            self._ready.appendleft(task)
        self.in_hand.difference_update(rest)

    # ---- drawing, on any thread, under the lock

    @property
    def are_unbegun(self) -> bool:
        """Whether a run has drawn operations that it has not begun: nothing behind them may start."""
        return bool(self._copies) and self._copier is not None and self._copier.left > 0

    def draw(self, most: int) -> list[Task]:
        """The operations at the head that are to be done next, or none when their paths are in use."""
        self.are_blocked = True
        run = self._next(1 if self._given_up.is_set() else most)
        if not self._acquire(run) and (len(run) == 1 or not self._acquire(run := run[:1])):
            return []
        self.are_blocked = False
        now = time.monotonic()
        for task in run:
            self._ready.popleft()
            task.phase, task.started = Phase.RUNNING, now
            self._counts.take(task, now)
        self.in_hand.update(run)
        if len(run) > 1 and run[0].method == "copy" and self._copier is not None:
            self._copier.start(len(run))
            self._copies = run
        return run

    def _acquire(self, run: Sequence[Task]) -> bool:
        return self._gate.paths.acquire(run[0], lambda: touched_by_run(run), self._try_again)

    def _next(self, most: int) -> list[Task]:
        head = self._ready[0]
        if head.method == "copy":
            return list(takewhile(lambda task: task.method == "copy", islice(self._ready, most)))
        run = [head]
        if not coalesces(head, head):
            return run
        held = len(head.data)
        limit = _RUN_APPENDS if head.method == "copybuffer" else _RUN_CATS
        for task in islice(self._ready, 1, limit):
            held += len(task.data)
            if held > _RUN_BYTES or not coalesces(head, task):
                break
            run.append(task)
        return run

    def _try_again(self) -> None:
        """A path was released."""
        self._gate.call_threadsafe(self._unblock)

    def _unblock(self) -> None:
        with self._lock:
            self.are_blocked = False
        self._pump()

    # ---- doing, on any thread

    def _drain(self, draw: Draw, copier: Copier | None) -> None:
        first = True
        while run := draw(first=first, most=self._together if copier is not None and copier.is_usable else 1):
            first = False
            if copier is not None and run is self._copies:
                self._copy(run, copier)
            else:
                self.operate(run)
                self._learn(goes_well=run[0].method == "copy" and 0 < run[0].moved <= SMALL)

    def _learn(self, *, goes_well: bool) -> None:
        self._together = min(2 * self._together, MOST) if goes_well else 1

    def operate(self, run: Sequence[Task], holder: Task | None = None) -> None:
        """Do an operation, or several as one. Their paths are held in the name of `holder`, or of the first."""
        self._begun += 1
        wrongs = operate_run(run, self._given_up) if len(run) > 1 else [operate(run[0], self._given_up)]
        self._gate.paths.release(holder or run[0])
        self._end(run, wrongs)

    def _copy(self, run: list[Task], copier: Copier) -> None:
        """Make copies with one call. The one at which it ends early is done as any other operation."""
        holder = run[0]
        moved = copier.copy(tuple(run))
        done = len(moved) - (bool(moved) and moved[-1] < 0)
        with self._lock:
            self._put_back(max(len(moved), 1))
            self._copies = []
            if self._ready and self._ready[0].is_lua:
                self._gate.call_threadsafe(self._pump)
        for task, count in zip(run, moved[:done], strict=False):
            task.moved = count
        left = run[done:]
        if left:
            self._gate.paths.narrow(holder, lambda: touched_by_run(left))
        else:
            self._gate.paths.release(holder)
        if done:
            self._end(run[:done], [None] * done)
        if left:
            left[0].started = time.monotonic()
            self.operate(left, holder)
        self._learn(goes_well=not left)

    def _end(self, run: Sequence[Task], wrongs: Sequence[str | None]) -> None:
        with self._lock:  # a task is in hand, or its outcome is in the line: whoever gives all up finds it
            outcomes = [
                _outcome(task, wrong)
                for task, wrong in zip(run, wrongs, strict=True)
                if wrong is not None or task.lease or not self._counts_are_enough or task not in self.in_hand
            ]
            self.in_hand.difference_update(run)
            self._counts.operated(run, time.monotonic() - run[0].started)
            self._give(outcomes, len(run) - len(outcomes))

    # ---- the end

    def stop(self) -> None:
        """Let no copies begin that were drawn, since all are given up. None is made by the copier from now on."""
        with self._lock:
            if self._copier is not None:
                self._copier.stop()

    def give_up(self) -> list[Task]:
        """What was in hand; how it ends is no longer told in counts. Under the lock."""
        given_up = list(self.in_hand)
        self.in_hand.clear()
        return given_up

    def close(self) -> list[WorkerThread]:
        """Ask the copier to end. Gives its thread, to wait for."""
        return [] if self._copier is None else [self._copier.close()]


def _outcome(task: Task, wrong: str | None) -> Outcome:
    if wrong is None:
        return Outcome(task, Status.DONE)
    if wrong == GIVEN_UP:
        return Outcome(task, Status.ABANDONED)
    return Outcome(task, Status.FAILED, wrong.encode("utf-8", "surrogateescape"))
