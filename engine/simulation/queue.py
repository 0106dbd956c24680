"""The task queue of a plugin in a simulation: its workers are modelled, and everything happens in virtual time.

Tasks start in the order of their calls, up to as many at once as the plugin has workers; a file operation at the head
waits for its paths. A Lua task runs in a worker's state at the moment it starts, a file operation is done at the moment
it ends; between these lies the latency that was drawn for it. What chance has to say of a task is drawn when it is
called, so that it does not depend on how many workers there are.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from engine.offload import Gate, Outcome, Status, Task
from engine.offload.counts import TaskCounts
from engine.offload.files import operate, touched_paths
from engine.offload.task import Phase
from engine.offload.worker import WorkerSetup, WorkerThread
from engine.simulation.conditions import Conditions
from engine.simulation.loop import Moment, VirtualLoop
from engine.simulation.worker import Ran, SimulatedWorker
from engine.values.histogram import Histogram
from engine.values.stats import AsyncStats, WorkerStats


@dataclass(slots=True)
class Surroundings:
    """What all queues of a simulation share."""

    loop: VirtualLoop
    conditions: Conditions
    seed: str
    functions: Callable[[str], Mapping[str, Any]]
    """What a worker's state gets of the host, by the name of its queue."""
    spent: float = 0.0
    """Seconds that the task which runs now says that it takes."""
    queues: int = 0


@dataclass(slots=True, eq=False)
class _Chances:
    latency: float
    failing: float
    tie: float


@dataclass(slots=True, eq=False)
class _Run:
    """A task that has started."""

    task: Task
    chances: _Chances
    worker: SimulatedWorker | None
    ran: Ran | None = None
    moments: list[Moment] = field(default_factory=list)


class SimulatedQueue:
    """Stands in for `TaskQueue`."""

    def __init__(
        self,
        surroundings: Surroundings,
        gate: Gate,
        *,
        name: str,
        workers: int,
        setup: Callable[[Callable[[int, bytes], None], Callable[[int], bytes]], WorkerSetup],
        deliver: Callable[[list[Outcome]], None],
        log: Callable[[int, bytes], None],
        stuck_limit: int = 16,
        limit: int = sys.maxsize,
        **_threads: object,
    ) -> None:
        """As for `TaskQueue`; what only threads have is left out."""
        self.name = name
        self.workers = workers
        self._world = surroundings
        self._loop = surroundings.loop
        surroundings.queues += 1
        # For people who draw numbers, not for secrets; a text as seed gives the same numbers on all machines.
        self._random = random.Random(f"{surroundings.seed}/{surroundings.queues}/{name}")
        self._gate = gate
        self._deliver = deliver
        self._limit = limit
        self._stuck_limit = stuck_limit
        self._codes: dict[int, bytes] = {}
        self._setup = setup(log, self._codes.__getitem__)
        self._functions = surroundings.functions(name)
        self._ready: deque[tuple[Task, _Chances]] = deque()
        self._running: dict[Task, _Run] = {}
        self._idle: list[SimulatedWorker] = []
        self._stuck: list[SimulatedWorker] = []
        self._counts = TaskCounts()
        self._home: list[Outcome] = []
        self._given_up = threading.Event()
        self._blocked = False  # the head waits for a path

    # ---- the way in

    def add_code(self, code: int, bytecode: bytes) -> None:
        """As in `Queue`."""
        self._codes[code] = bytecode

    def submit(self, task: Task) -> None:
        """As in `Queue`."""
        task.submitted = self._loop.time()
        draw = self._random.random
        self._counts.enter(task.size)
        self._ready.append((task, _Chances(draw(), draw(), draw())))
        self._gate.pump_soon(self)

    def reject(self, count: int) -> None:
        """As in `Queue`."""
        self._counts.reject(count)

    @property
    def pending(self) -> int:
        """As in `Queue`."""
        return self._counts.pending

    @property
    def half_full(self) -> bool:
        """As in `Queue`."""
        return self._counts.pending > self._limit // 2

    @property
    def settled(self) -> int:
        """As in `Queue`."""
        return self._counts.settled

    def stats(self) -> AsyncStats:
        """As in `Queue`; times are virtual."""
        at_work = [(each.worker, "running") for each in self._running.values() if each.worker is not None]
        workers = (*((each, "idle") for each in self._idle), *at_work, *((each, "stuck") for each in self._stuck))
        told = tuple(
            WorkerStats("simulated", state, each.tasks_run, each.states_built, each.memory_bytes)
            for each, state in workers
        )
        return self._counts.stats(len(self._stuck), told, [Histogram()])

    def look_at_lane(self) -> None:
        """There is none."""

    # ---- starting

    def pump(self) -> None:
        """Start what may start now."""
        while self._ready and len(self._running) < self.workers and not self._blocked:
            task, chances = self._ready[0]
            if task.is_lua and len(self._stuck) >= self._stuck_limit:
                self._ready.popleft()
                message = f"no worker is left: {self._stuck_limit} threads are stuck in tasks past their timeout"
                self._counts.drop([task])
                self._bring(Outcome(task, Status.FAILED, message.encode(), tasks=task.left))
                continue
            if not task.is_lua and not self._gate.paths.acquire(task, partial(touched_paths, task), self._unblock):
                self._blocked = True
                return
            self._ready.popleft()
            task.phase, task.started = Phase.RUNNING, self._loop.time()
            self._counts.take(task, task.started)
            self._start(_Run(task, chances, self._take_worker() if task.is_lua else None))

    def _unblock(self) -> None:
        self._blocked = False
        self._gate.pump_soon(self)

    def _take_worker(self) -> SimulatedWorker:
        return self._idle.pop() if self._idle else SimulatedWorker(self._setup, self._functions, self._loop.time)

    def _start(self, run: _Run) -> None:
        task, chances = run.task, run.chances
        self._running[task] = run
        performer = self._world.conditions.workers if task.is_lua else self._world.conditions.disk
        seconds, ends = performer.seconds(chances.latency), self._end_operation
        if run.worker is not None:
            ends = self._end_lua
            self._world.spent = 0.0
            if chances.failing < performer.failing:
                run.worker.reset(dies=True)
                run.ran = Ran(Status.FAILED, b"worker failed: it died", b"")
            else:
                run.ran = run.worker.run(task)
            seconds += self._world.spent * performer.slow
        if task.timeout and seconds > task.timeout:
            run.moments.append(self._at(task.timeout, run, self._time_out))
        run.moments.append(self._at(seconds, run, ends))

    def _at(self, seconds: float, run: _Run, call: Callable[[_Run], None]) -> Moment:
        return self._loop.at(self._loop.time() + seconds, lambda: call(run), tie=run.chances.tie)

    # ---- ending

    def _end_lua(self, run: _Run) -> None:
        assert run.worker is not None and run.ran is not None
        task = run.task
        self._counts.ran(self._loop.time() - task.started)
        if self._running.pop(task, None) is None:  # it was given up, and its worker left to it
            self._stuck.remove(run.worker)
            run.worker.reset(dies=True)
            if run.ran.status is Status.RESULT:
                self._counts.late += task.size
            return
        self._idle.append(run.worker)
        self._bring(Outcome(task, run.ran.status, run.ran.value, run.ran.traceback, tasks=task.size))
        self.pump()

    def _end_operation(self, run: _Run) -> None:
        task = run.task
        del self._running[task]
        if run.chances.failing < self._world.conditions.disk.failing:
            wrong: str | None = f"T.async:{task.method}: {task.target}: Input/output error"
        else:
            wrong = operate(task, self._given_up)
        self._counts.operated([task], self._loop.time() - task.started)
        self._gate.paths.release(task)
        self._bring(Outcome(task, Status.DONE) if wrong is None else Outcome(task, Status.FAILED, wrong.encode()))
        self.pump()

    def _time_out(self, run: _Run) -> None:
        """The task is over its time: another worker takes the place of the one that is stuck in it."""
        del self._running[run.task]
        assert run.worker is not None
        self._stuck.append(run.worker)
        self._bring(Outcome(run.task, Status.FAILED, b"timeout", timed_out=True))
        self.pump()

    # ---- the way back

    def _bring(self, outcome: Outcome) -> None:
        """Bring an outcome home when the loop has time for it."""
        if not self._home:
            self._loop.call_soon(self._collect)
        self._home.append(outcome)

    def _collect(self) -> None:
        outcomes, self._home = self._home, []
        self.settle(outcomes)
        self._gate.collect()

    def settle(self, outcomes: list[Outcome]) -> None:
        """As in `Queue`."""
        fresh = [outcome for outcome in outcomes if outcome.task.phase is not Phase.SETTLED]
        self._counts.late += sum(each.tasks for each in outcomes) - sum(each.tasks for each in fresh)
        for outcome in fresh:
            outcome.task.settled += outcome.tasks
            outcome.task.phase = Phase.SETTLED
            self._counts.settle(outcome)
        if fresh:
            self._deliver(fresh)

    # ---- the end

    def detach(self, settled: Callable[[list[Outcome]], None]) -> None:
        """As in `Queue`."""

        def drop(outcomes: list[Outcome]) -> None:
            self._counts.late += sum(each.status is Status.RESULT for each in outcomes)
            settled(outcomes)

        self._deliver = drop

    def abandon(self) -> None:
        """As in `Queue`."""
        self._given_up.set()
        while self._ready or self._running or self._home:  # callbacks of what comes home may submit more
            waiting = [task for task, _ in self._ready]
            self._counts.drop(waiting)
            self._ready.clear()
            running, self._running = list(self._running.values()), {}
            for run in running:
                self._leave(run)
            home, self._home = self._home, []
            self.settle(home)
            self.settle([Outcome(task, Status.ABANDONED, tasks=task.left) for task in waiting])
            self.settle([Outcome(run.task, Status.ABANDONED, tasks=run.task.left) for run in running])

    def _leave(self, run: _Run) -> None:
        for moment in run.moments:
            moment.cancel()
        if run.worker is not None:
            run.worker.reset(dies=True)
        else:
            self._gate.paths.release(run.task)

    def close(self) -> list[WorkerThread]:
        """As in `Queue`; there are no threads."""
        for worker in (*self._idle, *self._stuck):
            worker.reset(dies=worker in self._stuck)
        self._idle.clear()
        return []
