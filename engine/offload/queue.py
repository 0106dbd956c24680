"""The task queue of one plugin: order, concurrency, limits, counts. It decides what starts when.

Tasks start in the order in which they were called, up to `workers` at once: *runs* draw them from the head of `ready`,
under the lock. A worker's run draws Lua tasks and does the file operations between them; where a file operation is at
the head, a run without a Lua state does it and those behind it. A head whose paths are in use waits for them, and all
behind it wait, too.

Everything runs on the loop thread but what is marked: that runs on the thread of a run.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.offload.counts import TaskCounts
from engine.offload.held_packs import HeldPacks
from engine.offload.lane import Lane, LaneUser
from engine.offload.lane_service import LaneService
from engine.offload.operations import Operations
from engine.offload.slot import Slot
from engine.offload.slots import Slots, worker_stats
from engine.offload.task import WANTS_RESULT, Outcome, Phase, Status, Task
from engine.offload.worker import STRICT_GRACE_SECONDS, LuaWorker, Worker, WorkerSetup, WorkerThread
from engine.values.stats import AsyncStats

if TYPE_CHECKING:
    from engine.offload.gate import Gate

_CHUNK = 256  # tasks per crossing; with one worker only, since a chunk is one worker's and others could not help it


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
        deliver_count: Callable[[int], None] | None = None,
        log: Callable[[int, bytes], None],
        make_worker: Callable[[WorkerSetup, Callable[..., Any]], Worker] = LuaWorker,
        on_quick: Callable[[int, bool], None] = lambda _code, _is_quick: None,
        lane_user: LaneUser | None = None,
        stuck_limit: int = 16,
        limit: int = sys.maxsize,
    ) -> None:
        """`setup(log, load_code)` says how a worker's state is built; `log` gets what workers logged, on the loop.

        `deliver_count` gets a number of file operations that went well; with None they come as outcomes, too.
        `lane_user` is the script's state, if quick tasks may go by a lane.
        `limit` is how many unfinished tasks the script's side allows: beyond half of it the queue is `half_full`.
        """
        self.name = name
        self.workers = workers
        self._limit = limit
        self._gate = gate
        self._deliver = deliver
        self._deliver_count = deliver_count
        self._make_worker = make_worker
        self._on_quick = on_quick
        self._stuck_limit = stuck_limit
        self._log = log
        self._codes: dict[int, bytes] = {}
        self._setup = setup(self._log_from_worker, self._codes.__getitem__)
        self._lock = threading.Lock()
        self._ready: deque[Task] = deque()
        self._starting = 0  # runs that have drawn nothing yet
        self._pack: Task | None = None  # of which a worker has not begun all: nothing behind it may start before
        self._counts = TaskCounts()
        self._slots = Slots(self._lock, self._counts)
        self._held_packs = HeldPacks(
            gate.loop,
            self._lock,
            self._slots.running,
            before_look=self._look_at_server,
            someone_is_idle=self._someone_is_idle,
            more_may_come=lambda: bool(self._ready),
            give=lambda outcomes: gate.give(self, outcomes),
            put_back=self._put_back,
            all_begun=self._all_begun,
        )
        self._running = 0
        self._given_up = threading.Event()
        self._lane = LaneService(
            self._lock,
            self._ready,
            self._counts,
            lane_user,
            make=lambda on_bell: Lane(gate.loop, on_bell),
            bring=lambda fetch: gate.bring(self, fetch),
            give=lambda outcomes: gate.give(self, outcomes),
            settle=self.settle,
        )
        self._unsettled_count = 0
        self._operations = Operations(
            gate,
            self._lock,
            self._ready,
            self._counts,
            self._given_up,
            name=name,
            counts_are_enough=deliver_count is not None,
            give=self._give_of_operations,
            pump=self.pump,
        )

    # ---- the way in

    def add_code(self, code: int, bytecode: bytes) -> None:
        """Make the bytecode of a prototype known, before the first task that uses it."""
        self._codes[code] = bytecode

    def submit(self, task: Task) -> None:
        """Take a task. Its outcome is delivered exactly once, unless `detach` came before."""
        task.submitted = time.monotonic()
        self._counts.enter(task.size)
        self._ready.append(task)
        self._gate.pump_soon(self)

    def reject(self, count: int) -> None:
        """Count tasks that the script's side refused because the queue was full."""
        self._counts.reject(count)

    @property
    def pending(self) -> int:
        """Tasks submitted and not settled."""
        return self._counts.pending

    @property
    def half_full(self) -> bool:
        """Whether so many tasks are pending that a source had better wait."""
        return self._counts.pending > self._limit // 2

    @property
    def settled(self) -> int:
        """Tasks settled so far, however they ended."""
        return self._counts.settled

    def stats(self) -> AsyncStats:
        """Counts at this moment."""
        stuck = self._slots.stuck()
        with self._lock:
            self._lane.count()
            workers = list(self._slots.workers(self._lane.is_idle_server))
            runs = [worker.run_times() for worker, _ in workers]
            stats = self._counts.stats(len(stuck), tuple(worker_stats(*each) for each in workers), runs)
        return replace(stats, waits=stats.waits + self._lane.waits())

    # ---- starting runs

    def pump(self) -> None:
        """Start runs for what may start now."""
        while True:
            self._refuse_beyond_stuck()
            with self._lock:
                if self._ready and self._lane.is_busy:
                    self._take_lane_back()
                if self._lane.needs_server:
                    self._call_server()
                if self._operations.are_unbegun:
                    self._operations.watch()
                    return
                if self._operations.are_blocked or self._pack is not None or len(self._ready) <= self._starting:
                    return
                head = self._ready[0]
                if head.is_lua:
                    self._held_packs.look_later()
                elif not self._operations.may_start_run:
                    self._operations.watch()
                    return
                if (head.is_lua or self._running >= self.workers) and self._wake_one():
                    continue
                if self._running >= self.workers:
                    return
                self._starting += 1
            self._running += 1
            if head.is_lua:
                self._start_worker()
            else:
                self._operations.begin_run()
                self._gate.start_soon(self._run_operations)

    def _wake_one(self) -> bool:
        """Let a run that waits for more go on. Under the lock."""
        slot = self._slots.wake_one()
        if slot is None:
            slot = self._lane.slot
            if slot is None or not self._lane.is_idle_server(slot):
                return False
            self._take_lane_back()
        slot.fresh = True
        self._starting += 1
        return True

    def _someone_is_idle(self) -> bool:
        if self._running < self.workers or self._slots.someone_lingers():
            return True
        return self._lane.is_idle_server(self._lane.slot)

    # ---- the lane

    def look_at_lane(self) -> None:
        """See to what the script's side posted, after its outbox was taken."""
        if self._lane.has_news:
            with self._lock:
                self._lane.count()
            if self._lane.slot is None:
                self._gate.pump_soon(self)
            self._held_packs.look_later()
            self._gate.look_at_marks()
        self._open_lane()

    def _count_posted(self) -> None:
        """Count what was posted in a hook whose outbox is not taken any more."""
        with self._lock:
            self._lane.count()

    def _open_lane(self) -> None:
        """Open the lane if all that was called has begun. While the outbox of the script's side is empty."""
        if self._ready or self._lane.is_open:
            return
        operations = self._operations
        with self._lock:  # a run may be about to draw a pack, or to put the rest of one back
            if not (self._ready or self._pack is not None or operations.are_blocked or operations.are_unbegun):
                self._lane.open()

    def _call_server(self) -> None:
        """Have a run come for the lane. If all are at work, the first that has done takes it. Under the lock."""
        if self._wake_one():
            self._lane.call_server()
        elif self._running < self.workers:
            self._lane.call_server()
            self._starting += 1
            self._running += 1
            self._start_worker()

    def _take_lane_back(self) -> None:
        """Make ordinary tasks of what is on the lane. Under the lock."""
        current = self._lane.take_back()
        if current is not None and self.workers > 1:
            self._pack = current

    def _look_at_server(self) -> bool:
        """Whether the server of the lane is at work. If a task holds it up, the lane is taken back. Under the lock."""
        is_at_work, is_held_up = self._lane.look_at_server()
        if is_held_up:
            self._take_lane_back()
            self._gate.pump_soon(self)
        return is_at_work

    def _refuse_beyond_stuck(self) -> None:
        """With too many threads stuck in tasks past their timeout, no other takes their place: Lua tasks fail."""
        limit, slots = self._stuck_limit, self._slots
        if slots.stuck_at_most < limit or len(slots.stuck()) < limit:
            return
        with self._lock:
            self._take_lane_back()
            refused = self._draw_lua_tasks()
        if refused:
            message = f"no worker is left: {self._stuck_limit} threads are stuck in tasks past their timeout".encode()
            self._settle([Outcome(task, Status.FAILED, message, tasks=task.left) for task in refused])
            self._gate.pump_soon(self)

    def _start_worker(self) -> None:
        slot = self._slots.begin_run()
        if slot.worker is None:
            slot.worker = self._make_worker(self._setup, lambda more, *flat: self._exchange(slot, more, flat))
        slot.run = self._gate.loop.run_in_executor(slot.worker.executor, slot.worker.drain)
        slot.run.add_done_callback(lambda done: self._run_ended(slot, done))

    def _run_ended(self, slot: Slot, done: asyncio.Future[int]) -> None:
        failure = None if done.cancelled() else done.exception()
        if slot.orphaned:
            return
        self._running -= 1
        self._lane.uncall_server()
        if slot.fresh:
            slot.fresh = False
            self._starting -= 1
        if failure is not None:
            self._fail_held(slot, failure)
        self._slots.end_run(slot)
        self._gate.collect()
        self.pump()

    def _fail_held(self, slot: Slot, failure: BaseException) -> None:
        """A drain run that raised took its tasks with it and leaves a state that can't be trusted."""
        assert slot.worker is not None
        slot.worker.executor.submit(slot.worker.reset)
        with self._lock:  # a state that can't be built fails what it would have drawn, or it were tried for ever
            self._take_lane_back()
            held = list(slot.holding.values()) or self._draw_lua_tasks()
            slot.holding.clear()
            slot.seen, slot.taken = None, (0, 0)
            for task in held:
                self._all_begun(task)
        self._gate.collect_all(self)  # parts of packs that were given before
        message = f"worker failed: {failure}".encode()
        self._settle([Outcome(task, Status.FAILED, message, tasks=task.left) for task in held if task.left])

    async def _run_operations(self) -> None:
        if self._ready:
            await self._operations.run(self._draw_operations)
        else:  # done by another run or abandoned, before this one began; the threads may be gone, too
            self._draw_operations(first=True, most=1)
        self._operations.end_run()
        self._running -= 1
        self.pump()

    # ---- runs, each on a thread of its own

    def _draw_operations(self, *, first: bool, most: int) -> list[Task]:
        with self._lock:
            self._starting -= first
            return self._draw(lua=False, most=most)

    def _exchange(self, slot: Slot, more: bool, flat: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Results in, tasks out. On a worker's thread."""
        if flat:
            self._take_results(slot, flat)
        while more and not slot.orphaned:
            with self._lock:
                self._starting -= slot.fresh
                slot.fresh = False
                chunk = self._draw(lua=True)
                if not chunk and (turn := self._lane.serve(slot)):
                    return turn
                if chunk and chunk[0].is_lua:
                    slot.holding.update((task.id, task) for task in chunk)
                if not chunk:
                    self._slots.begin_to_linger(slot)
            if not chunk:
                if self._slots.linger(slot):
                    continue
                return None
            if chunk[0].is_lua:
                if chunk[0].timeout:
                    self._gate.call_threadsafe(self._watch, slot, chunk[0])
                return tuple(value for task in chunk for value in task.crossing())
            self._operations.operate(chunk)
        return None

    def _draw(self, *, lua: bool, most: int = 1) -> list[Task]:
        """What a run does next: some Lua tasks, some file operations, or nothing. On any thread, under the lock."""
        if not self._ready or self._pack is not None or self._operations.are_unbegun:
            return []
        if self._lane.is_busy:
            return []  # what is on the lane was called before: `pump` takes it back
        if self._ready[0].is_lua:
            return self._draw_lua_tasks() if lua else []
        return self._operations.draw(most)

    def _draw_lua_tasks(self) -> list[Task]:
        """Lua tasks for one worker. A task with a timeout goes alone, so that its time is its own."""
        limited = self._setup.memory_bytes is not None or self._setup.max_tasks is not None
        room = _CHUNK if self.workers == 1 and not limited else 1
        chunk: list[Task] = []
        now = time.monotonic()
        while self._ready and self._ready[0].is_lua and room > 0:
            if self._ready[0].timeout and chunk:
                break
            task = self._ready.popleft()
            task.phase, task.started = Phase.RUNNING, now
            self._counts.take(task, now)
            chunk.append(task)
            room -= task.size
            if task.is_pack and self.workers > 1:
                self._pack = task
            if task.timeout:
                break
        return chunk

    def _take_results(self, slot: Slot, flat: tuple[Any, ...]) -> None:
        """What a worker gave, four by four: task id, status, value, traceback (worker.lua)."""
        failures: list[tuple[bytes, bytes]] = []
        with self._lock:
            outcomes = self._lane.outcomes() if slot is self._lane.slot else []
            for task_id, status, value, trace in zip(*[iter(flat)] * 4, strict=True):
                if status == Status.QUICK_CODE:
                    self._gate.call_threadsafe(self._learn_quick, task_id, value)
                elif status == Status.FAILED_IN_PACK:
                    failures.append((value, trace or b""))
                elif status == Status.PART:
                    outcomes += self._part(slot, task_id, value, trace, tuple(failures))
                    failures.clear()
                elif status == Status.PACK_END:
                    self._end_pack(slot, task_id, value)
                elif (task := slot.holding.pop(task_id, None)) is not None:
                    found = value if isinstance(value, bytes) else None
                    timed_out = status == Status.FAILED and self._is_over_its_time(task)
                    outcomes.append(Outcome(task, Status(status), found, trace or b"", timed_out=timed_out))
            if outcomes:
                self._gate.give(self, outcomes)

    def _learn_quick(self, code: int, is_quick: bool) -> None:
        self._on_quick(code, is_quick)
        if is_quick and not self._given_up.is_set():
            self._lane.start()

    def _is_over_its_time(self, task: Task) -> bool:
        """Whether a worker with strict timeouts has ended a task, or it failed as late as that."""
        over = task.timeout and time.monotonic() - task.started >= task.timeout
        return bool(over and self._setup.strict_timeout)

    def _part(
        self, slot: Slot, task_id: int, value: bytes, count: int, failures: tuple[tuple[bytes, bytes], ...]
    ) -> list[Outcome]:
        """A part of a pack, less what was taken of it already."""
        if slot is self._lane.slot:
            return self._lane.take_part(count, value, failures)
        taken_count, taken_bytes = slot.taken
        slot.taken = (0, 0)
        if task_id not in slot.holding or not (count > taken_count or failures):
            return []
        task = slot.holding[task_id]
        return [Outcome(task, Status.PART, value[taken_bytes:], failures=failures, tasks=count - taken_count)]

    def _end_pack(self, slot: Slot, task_id: int, done: int) -> None:
        """A worker has done with a pack; what it did not run goes back to the head. On its thread, under the lock."""
        task = slot.holding.pop(task_id, None)
        self._all_begun(task)
        if task is None or slot.orphaned:
            return
        assert slot.worker is not None
        slot.worker.end_pack()
        if done < task.size:
            self._put_back(task.split(done))

    def _all_begun(self, task: Task | None) -> None:
        """What is behind a pack may start. On any thread, under the lock."""
        if task is not None and task is self._pack:
            self._pack = None
            if self._ready:
                self._gate.call_threadsafe(self.pump)

    def _put_back(self, rest: Task) -> None:
        """The rest of a pack, for another worker. On any thread, under the lock."""
        self._ready.appendleft(rest)
        self._counts.put_back(rest)
        self._gate.call_threadsafe(self.pump)

    def _log_from_worker(self, level: int, text: bytes) -> None:
        self._gate.call_in_line(self, self._log, level, text)

    # ---- timeouts

    def _watch(self, slot: Slot, task: Task) -> None:
        assert slot.worker is not None
        # A worker that ends such tasks by itself gets a moment to do so.
        grace = STRICT_GRACE_SECONDS if self._setup.strict_timeout and not slot.worker.ends_at_once else 0.0
        left = task.started + task.timeout + grace - time.monotonic()
        self._gate.loop.call_later(max(left, 0.0), self._time_out, slot, task)

    def _time_out(self, slot: Slot, task: Task) -> None:
        """The task is over its time: say so, leave its worker to it, and let another take the slot."""
        self._gate.collect()
        with self._lock:
            still_held = task.id in slot.holding
        if not still_held or task.phase is not Phase.RUNNING or slot.orphaned:
            return
        self._orphan(slot)
        self._settle([Outcome(task, Status.FAILED, b"timeout", timed_out=True)])
        self.pump()

    def _orphan(self, slot: Slot) -> None:
        with self._lock:
            if slot is self._lane.slot:
                self._take_lane_back()
            slot.orphaned = True
            for task in slot.holding.values():
                self._all_begun(task)
            if slot.worker is not None and slot.worker.ends_at_once:
                slot.holding.clear()  # nothing of them will come any more that could be late
        self._running -= 1
        self._slots.leave(slot)

    # ---- the way back

    def _give_of_operations(self, outcomes: list[Outcome], count: int) -> None:
        """Outcomes of file operations; a count of the others is enough. On any thread, under the lock."""
        if outcomes:
            self._gate.give_together(self, outcomes)
        if count:
            if not self._unsettled_count:
                self._gate.call_together(self, self._settle_count)
            self._unsettled_count += count

    def _settle_count(self) -> None:
        with self._lock:
            count, self._unsettled_count = self._unsettled_count, 0
        self._counts.complete(count)
        if self._deliver_count is not None:
            self._deliver_count(count)

    def settle(self, outcomes: list[Outcome]) -> None:
        """Take outcomes that workers and operations gave; late ones of settled tasks are dropped and counted."""
        self._open_lane()
        fresh = [outcome for outcome in outcomes if outcome.task.phase is not Phase.SETTLED]
        if len(fresh) != len(outcomes):
            self._counts.late += sum(each.tasks for each in outcomes if each.task.phase is Phase.SETTLED)
        self._settle(fresh)

    def _settle(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            task = outcome.task
            task.settled += outcome.tasks
            if task.settled >= task.size and not (task.is_pack and outcome.status is Status.PART):
                task.phase = Phase.SETTLED
            self._counts.settle(outcome)
        if outcomes:
            self._deliver(outcomes)

    # ---- the end

    def detach(self, settled: Callable[[list[Outcome]], None]) -> None:
        """The plugin is gone: what is queued is still done, results are dropped and counted; `settled` hears of all."""

        def drop(outcomes: list[Outcome]) -> None:
            self._counts.late += sum(map(_late_results, outcomes))
            settled(outcomes)

        self._deliver = drop
        self._deliver_count = None
        self._count_posted()
        self._lane.forget_user()

    def abandon(self) -> None:
        """Give up all that is not settled: queued tasks never start, results of running ones are dropped."""
        self._given_up.set()
        self._operations.stop()
        self._count_posted()
        settled = -1
        while self.pending and self.settled > settled:  # callbacks of what comes home may submit more
            settled = self.settled
            self._gate.collect_all(self)
            self._abandon()
            self._gate.collect_all(self)  # what was given in between

    def _abandon(self) -> None:
        with self._lock:
            self._take_lane_back()
            lost: list[Task] = [*self._ready, *self._operations.give_up()]
            self._counts.drop(self._ready)
            self._ready.clear()
            busy = [slot for slot in self._slots.running if slot.holding]
            for slot in busy:
                lost.extend(slot.holding.values())
        for slot in busy:
            self._orphan(slot)
        self._settle(
            [
                Outcome(task, Status.ABANDONED, tasks=task.left)
                for task in lost
                if task.left and task.phase is not Phase.SETTLED
            ]
        )

    def close(self) -> list[WorkerThread]:
        """Ask all workers to end, when all tasks are settled. Gives their threads, to wait for."""
        with self._lock:
            self._lane.close()
        return [*self._operations.close(), *self._slots.close()]


def _late_results(outcome: Outcome) -> int:
    """How many results for a script an outcome carries; of a part, which is not unpacked, all that did not fail."""
    if outcome.status is Status.PART:
        return outcome.tasks - len(outcome.failures)
    return int(outcome.status is Status.RESULT and bool(outcome.task.wants & WANTS_RESULT))
