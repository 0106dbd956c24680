"""The task queue of one plugin: order, concurrency, limits, counts. It decides what starts when.

Tasks start in the order in which they were called, up to `workers` at once: *runs* draw them from the head of `ready`,
under the lock. A worker's run draws Lua tasks and does the file operations between them; where a file operation is at
the head, a run without a Lua state does it and those behind it. A head whose paths are in use waits for them, and all
behind it wait, too.

Everything runs on the loop thread but what is marked: that runs on the thread of a run.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.offload.files import in_thread, operate, touched_paths
from engine.offload.task import WANTS_RESULT, Outcome, Phase, Status, Task
from engine.offload.worker import LuaWorker, WorkerSetup, WorkerThread
from engine.values.stats import AsyncStats

if TYPE_CHECKING:
    from engine.offload.gate import Gate

_CHUNK = 256  # tasks per crossing; with one worker only, since a chunk is one worker's and others could not help it

_OPERATIONS_SECONDS = 0.1  # after which a run of file operations lets those of other plugins have the thread


class _Slot:
    """A worker and what it has in hand. Shared with the worker's thread, under the queue's lock."""

    __slots__ = ("fresh", "holding", "orphaned", "run", "worker")

    def __init__(self) -> None:
        self.worker: LuaWorker | None = None
        self.holding: dict[int, Task] = {}
        self.orphaned = False
        self.fresh = False  # its run has drawn nothing yet
        self.run: asyncio.Future[int] | None = None


class TaskQueue:
    """The tasks of one plugin, from `submit` to the outcomes that `deliver` gets, on the loop thread."""

    def __init__(
        self,
        gate: Gate,
        *,
        name: str,
        workers: int,
        setup: Callable[[Callable[[int, bytes], None], Callable[[int], bytes]], WorkerSetup],
        deliver: Callable[[list[Outcome]], None],
        log: Callable[[int, bytes], None],
    ) -> None:
        """`setup(log, load_code)` says how a worker's state is built; `log` gets what workers logged, on the loop."""
        self.name = name
        self.workers = workers
        self._gate = gate
        self._deliver = deliver
        self._log = log
        self._codes: dict[int, bytes] = {}
        self._setup = setup(self._log_from_worker, self._codes.__getitem__)
        self._lock = threading.Lock()
        self._ready: deque[Task] = deque()
        self._starting = 0  # runs that have drawn nothing yet
        self._blocked = False  # the head waits for a path
        self._operations: set[Task] = set()
        self._idle_slots: list[_Slot] = []
        self._slots: set[_Slot] = set()
        self._running = 0
        self._given_up = threading.Event()
        self._closing: list[WorkerThread] = []
        self._submitted = self._completed = self._failed = self._timed_out = 0
        self._rejected = self._abandoned = self._late = 0
        self._pending = 0

    # ---- the way in

    def add_code(self, code: int, bytecode: bytes) -> None:
        """Make the bytecode of a prototype known, before the first task that uses it."""
        self._codes[code] = bytecode

    def submit(self, task: Task) -> None:
        """Take a task. Its outcome is delivered exactly once, unless `detach` came before."""
        self._submitted += 1
        self._pending += 1
        self._ready.append(task)
        self._gate.pump_soon(self)

    def reject(self, count: int) -> None:
        """Count tasks that the script's side refused because the queue was full."""
        self._submitted += count
        self._rejected += count

    @property
    def pending(self) -> int:
        """Tasks submitted and not settled."""
        return self._pending

    @property
    def settled(self) -> int:
        """Tasks settled so far, however they ended."""
        return self._completed + self._failed + self._abandoned

    def stats(self) -> AsyncStats:
        """Counts at this moment."""
        return AsyncStats(
            submitted=self._submitted,
            completed=self._completed,
            failed=self._failed,
            timed_out=self._timed_out,
            rejected=self._rejected,
            abandoned=self._abandoned,
            pending=self._pending,
            late_results=self._late,
            stuck_threads=sum(not thread.gone.is_set() for thread in self._closing),
        )

    # ---- starting runs

    def pump(self) -> None:
        """Start runs for what may start now."""
        while self._running < self.workers:
            with self._lock:
                if self._blocked or len(self._ready) <= self._starting:
                    return
                head = self._ready[0]
                self._starting += 1
            self._running += 1
            if head.is_lua:
                self._start_worker()
            else:
                self._gate.start_soon(self._run_operations)

    def _start_worker(self) -> None:
        slot = self._idle_slots.pop() if self._idle_slots else _Slot()
        if slot.worker is None:
            slot.worker = LuaWorker(self._setup, lambda more, *flat: self._exchange(slot, more, flat))
        slot.fresh = True
        self._slots.add(slot)
        slot.run = self._gate.loop.run_in_executor(slot.worker.executor, slot.worker.drain)
        slot.run.add_done_callback(lambda done: self._run_ended(slot, done))

    def _run_ended(self, slot: _Slot, done: asyncio.Future[int]) -> None:
        failure = None if done.cancelled() else done.exception()
        if slot.orphaned:
            return
        self._slots.discard(slot)
        self._running -= 1
        if slot.fresh:
            slot.fresh = False
            self._starting -= 1
        if failure is not None:
            self._fail_held(slot, failure)
        self._idle_slots.append(slot)
        self._gate.collect()
        self.pump()

    def _fail_held(self, slot: _Slot, failure: BaseException) -> None:
        """A drain run that raised took its tasks with it and leaves a state that can't be trusted."""
        assert slot.worker is not None
        slot.worker.executor.submit(slot.worker.reset)
        with self._lock:  # a state that can't be built fails what it would have drawn, or it were tried for ever
            held = list(slot.holding.values()) or self._draw_lua_tasks()
            slot.holding.clear()
        self._settle([Outcome(task, Status.FAILED, f"worker failed: {failure}".encode()) for task in held])

    async def _run_operations(self) -> None:
        await in_thread(self._drain_operations, self._gate.file_threads)
        self._running -= 1
        self.pump()

    def _unblock(self) -> None:
        with self._lock:
            self._blocked = False
        self.pump()

    # ---- runs, each on a thread of its own

    def _exchange(self, slot: _Slot, more: bool, flat: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Results in, tasks out. On a worker's thread."""
        if flat:
            self._take_results(slot, flat)
        while more and not slot.orphaned:
            with self._lock:
                self._starting -= slot.fresh
                slot.fresh = False
                chunk = self._draw(lua=True)
                if chunk and chunk[0].is_lua:
                    slot.holding.update((task.id, task) for task in chunk)
            if not chunk:
                return None
            if chunk[0].is_lua:
                if chunk[0].timeout:
                    self._gate.call_threadsafe(self._watch, slot, chunk[0])
                return tuple(value for task in chunk for value in (task.id, task.code, task.upvalues, task.data))
            self._operate(chunk[0])
        return None

    def _drain_operations(self) -> None:
        """Do the file operations at the head, for a while. On a file thread."""
        until = time.monotonic() + _OPERATIONS_SECONDS
        first = True
        while True:
            with self._lock:
                self._starting -= first
                first = False
                drawn = self._draw(lua=False)
            if not drawn:
                return
            self._operate(drawn[0])
            if time.monotonic() > until:
                return

    def _draw(self, *, lua: bool) -> list[Task]:
        """What a run does next: some Lua tasks, or one file operation, or nothing. On any thread, under the lock."""
        if not self._ready:
            return []
        head = self._ready[0]
        if head.is_lua:
            return self._draw_lua_tasks() if lua else []
        self._blocked = True
        if not self._gate.paths.acquire(*touched_paths(head), lambda: self._gate.call_threadsafe(self._unblock)):
            return []
        self._blocked = False
        self._ready.popleft()
        head.phase = Phase.RUNNING
        self._operations.add(head)
        return [head]

    def _draw_lua_tasks(self) -> list[Task]:
        """Lua tasks for one worker. A task with a timeout goes alone, so that its time is its own."""
        limit = _CHUNK if self.workers == 1 else 1
        chunk: list[Task] = []
        now = time.monotonic()
        while self._ready and self._ready[0].is_lua and len(chunk) < limit:
            if self._ready[0].timeout and chunk:
                break
            task = self._ready.popleft()
            task.phase, task.started = Phase.RUNNING, now
            chunk.append(task)
            if task.timeout:
                break
        return chunk

    def _operate(self, task: Task) -> None:
        """Do a file operation. On any thread."""
        wrong = operate(task, self._given_up)
        self._gate.paths.release(*touched_paths(task))
        with self._lock:
            self._operations.discard(task)
        if wrong is None:
            self._gate.give(self, [Outcome(task, Status.DONE)])
        else:
            self._gate.give(self, [Outcome(task, Status.FAILED, wrong.encode("utf-8", "surrogateescape"))])

    def _take_results(self, slot: _Slot, flat: tuple[Any, ...]) -> None:
        with self._lock:
            outcomes = [
                Outcome(task, Status(status), value if isinstance(value, bytes) else None, trace or b"")
                for task_id, status, value, trace in zip(*[iter(flat)] * 4, strict=True)
                if (task := slot.holding.pop(task_id, None)) is not None
            ]
        if outcomes:
            self._gate.give(self, outcomes)

    def _log_from_worker(self, level: int, text: bytes) -> None:
        self._gate.call_threadsafe(self._log, level, text)

    # ---- timeouts

    def _watch(self, slot: _Slot, task: Task) -> None:
        left = task.started + task.timeout - time.monotonic()
        self._gate.loop.call_later(max(left, 0.0), self._time_out, slot, task)

    def _time_out(self, slot: _Slot, task: Task) -> None:
        """The task is over its time: say so, leave its worker to it, and let another take the slot."""
        self._gate.collect()
        with self._lock:
            still_held = task.id in slot.holding
        if not still_held or task.phase is not Phase.RUNNING or slot.orphaned:
            return
        self._orphan(slot)
        self._settle([Outcome(task, Status.FAILED, b"timeout", timed_out=True)])
        self.pump()

    def _orphan(self, slot: _Slot) -> None:
        with self._lock:
            slot.orphaned = True
        self._slots.discard(slot)
        self._running -= 1
        assert slot.worker is not None and slot.run is not None
        slot.worker.stop()
        self._closing.append(slot.worker.close())
        slot.run.cancel()  # the thread goes on, but may come back when the loop is closed

    # ---- the way back

    def settle(self, outcomes: list[Outcome]) -> None:
        """Take outcomes that workers and operations gave; late ones of settled tasks are dropped and counted."""
        fresh = [outcome for outcome in outcomes if outcome.task.phase is not Phase.SETTLED]
        self._late += len(outcomes) - len(fresh)
        self._settle(fresh)

    def _settle(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            outcome.task.phase = Phase.SETTLED
            self._pending -= 1
            if outcome.status is Status.ABANDONED:
                self._abandoned += 1
            elif outcome.status is Status.FAILED:
                self._failed += 1
                self._timed_out += outcome.timed_out
            else:
                self._completed += 1
        if outcomes:
            self._deliver(outcomes)

    # ---- the end

    def detach(self, settled: Callable[[list[Outcome]], None]) -> None:
        """The plugin is gone: what is queued is still done, results are dropped and counted; `settled` hears of all."""

        def drop(outcomes: list[Outcome]) -> None:
            self._late += sum(
                outcome.status is Status.RESULT and bool(outcome.task.wants & WANTS_RESULT) for outcome in outcomes
            )
            settled(outcomes)

        self._deliver = drop

    def abandon(self) -> None:
        """Give up all that is not settled: queued tasks never start, results of running ones are dropped."""
        self._given_up.set()
        self._gate.collect(all_of_it=True)
        with self._lock:
            lost: list[Task] = [*self._ready, *self._operations]
            self._ready.clear()
            busy = [slot for slot in self._slots if slot.holding]
            for slot in busy:
                lost.extend(slot.holding.values())
        for slot in busy:
            self._orphan(slot)
        self._settle([Outcome(task, Status.ABANDONED) for task in lost if task.phase is not Phase.SETTLED])

    def close(self) -> list[WorkerThread]:
        """Ask all workers to end, when all tasks are settled. Gives their threads, to wait for."""
        for slot in (*self._idle_slots, *self._slots):
            if slot.worker is not None:
                self._closing.append(slot.worker.close())
        self._idle_slots.clear()
        return self._closing
