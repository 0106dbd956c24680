"""A gate with queues in a running loop, tasks of Lua source, and what keeps a task running until a test lets go."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from engine.offload import Gate, Outcome, Task, TaskQueue
from engine.offload.process import ProcessWorker
from engine.offload.task import WANTS_ERROR, WANTS_RESULT
from engine.offload.worker import LuaWorker, WorkerSetup
from engine.values.stats import AsyncStats
from engine.vm import LuaState
from tests.support import DEADLINE, SETTINGS, WorkerKind, eventually

WORKERS: dict[WorkerKind, type[LuaWorker] | type[ProcessWorker]] = {"thread": LuaWorker, "process": ProcessWorker}

CODES = {
    1: "return (...)",
    2: "error((...), 0)",
    3: "return nil",
    4: "local f = io.open((...)) f:read('*a') f:close() return 'let go'",  # waits for a Hold
    5: "local path, text = (...):match('(.-)|(.*)') local f = io.open(path, 'ab') f:write(text) f:close()",
    6: "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(100) .. i end",
    7: "while true do end",
    8: "T.loginfo((...)) return {}",
    9: "return select(2, pcall(function() return T.async:copy('a', 'b') end))",
}
ECHO, FAIL, NOTHING, WAIT, APPEND, HOG, SPIN, ODD, INNER = CODES


def bytecodes() -> dict[int, bytes]:
    """CODES as queues know them."""
    state = LuaState()
    dump = state.execute(b"return function(source) return string.dump(assert(loadstring(source, '@task.lua'))) end")
    dumped = {code: dump(source.encode()) for code, source in CODES.items()}
    del dump
    state.close()
    return dumped


BYTECODES = bytecodes()


def worker_setup(name: str, **fields: Any) -> Callable[[Any, Callable[[int], bytes]], WorkerSetup]:
    given: dict[str, Any] = {"name": name, "settings": SETTINGS, "directory": "/nonexistent", "roots": (), **fields}
    return lambda log, load_code: WorkerSetup(**given, log=log, load_code=load_code)


class Hold:
    """A FIFO that a task opens and reads to its end: it runs until the test lets it go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._writer: int | None = None

    @property
    def data(self) -> bytes:
        return bytes(self.path)

    def _enter(self) -> bool:
        if self._writer is None:
            with suppress(OSError):  # nobody reads yet
                self._writer = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        return self._writer is not None

    def runs(self) -> bool:
        """Whether its task runs now."""
        return self._enter()

    async def entered(self) -> None:
        """Wait until the task runs."""
        await eventually(self._enter)

    def release(self) -> None:
        assert self._writer is not None
        os.close(self._writer)
        self._writer = None


class HeldOperations:
    """In place of file operations: each enters, and stays until it is let go."""

    def __init__(self) -> None:
        self.entered: list[Task] = []
        self.left: list[Task] = []
        self._gates: dict[int, threading.Event] = {}
        self._open = False
        self._lock = threading.Lock()

    def _gate(self, task: Task) -> threading.Event:
        with self._lock:
            gate = self._gates.setdefault(task.id, threading.Event())
            if self._open:
                gate.set()
            return gate

    def __call__(self, task: Task, _given_up: threading.Event) -> str | None:
        self.entered.append(task)
        assert self._gate(task).wait(DEADLINE)
        self.left.append(task)
        return None

    def let_go_all(self) -> None:
        """Those to come, too."""
        with self._lock:
            self._open = True
            for gate in self._gates.values():
                gate.set()

    def let_go(self, *tasks: Task) -> None:
        for task in tasks:
            self._gate(task).set()


class LoopWithLooks:
    """The running loop, whose timers are given to a function instead."""

    def __init__(self, loop: Any, call_later: Callable[..., Any]) -> None:
        self._loop = loop
        self._call_later = call_later

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_later(self, seconds: float, fn: Callable[..., Any], *args: Any) -> None:
        if fn.__name__ == "_look_at_runs":
            self._call_later(fn, *args)
        else:
            self._loop.call_later(seconds, fn, *args)


async def turns(count: int = 20) -> None:
    """Let the loop turn: what could start by itself would have been asked to by now."""
    for _ in range(count):
        await asyncio.sleep(0)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Rig:
    """A gate, its queues, and what was delivered by each of them."""

    def __init__(self, kind: WorkerKind = "thread") -> None:
        self.kind = kind
        self.tasks: set[asyncio.Task[Any]] = set()
        self.gate = Gate(self._start_soon)
        self.delivered: list[Outcome] = []
        self.logged: list[tuple[int, bytes]] = []
        self._last_id = 0

    def _start_soon(self, fn: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        task = asyncio.ensure_future(fn(*args))
        self.tasks.add(task)

    def queue(
        self,
        workers: int = 1,
        name: str = "queue",
        limit: int = 100_000,
        deliver: Callable[[list[Outcome]], None] | None = None,
        deliver_count: Callable[[int], None] | None = None,
        **fields: Any,
    ) -> TaskQueue:
        """A queue that knows CODES; `fields` are those of `WorkerSetup`."""
        queue = TaskQueue(
            self.gate,
            name=name,
            workers=workers,
            setup=worker_setup(name, **fields),
            deliver=deliver or self.delivered.extend,
            deliver_count=deliver_count,
            log=lambda *line: self.logged.append(line),
            limit=limit,
            make_worker=WORKERS[self.kind],
        )
        for code, bytecode in BYTECODES.items():
            queue.add_code(code, bytecode)
        self.gate.add(queue)
        return queue

    def lua(self, queue: TaskQueue, code: int, data: bytes = b"", timeout: float = 0.0) -> Task:
        self._last_id += 1
        wants = WANTS_RESULT | WANTS_ERROR
        task = Task(self._last_id, 0, "schedule", wants=wants, code=code, data=data, timeout=timeout)
        queue.submit(task)
        return task

    def operation(
        self, queue: TaskQueue, method: str, source: Any = "", target: Any = "", lease: int = 0, **fields: Any
    ) -> Task:
        self._last_id += 1
        task = Task(self._last_id, lease, method, source=str(source), target=str(target), **fields)
        queue.submit(task)
        return task

    def ids(self) -> list[int]:
        """Ids of the tasks that were delivered, in that order."""
        return [outcome.task.id for outcome in self.delivered]

    def outcome(self, task: Task) -> Outcome:
        """The one outcome of a task."""
        [outcome] = [each for each in self.delivered if each.task is task]
        return outcome

    async def settled(self) -> None:
        await eventually(lambda: not self.gate.pending)


def closes(counts: AsyncStats) -> bool:
    """Whether nothing was lost: what came in is what ended, and what still waits."""
    ended = counts.completed + counts.failed + counts.rejected + counts.abandoned
    return counts.submitted == ended + counts.pending and counts.pending >= 0


@asynccontextmanager
async def running_rig(kind: WorkerKind = "thread") -> AsyncIterator[Rig]:
    """A rig whose gate is closed at the end. No count may be lost, no path kept, no coroutine of it may fail."""
    rig = Rig(kind)
    yield rig
    await rig.gate.close()
    counts = rig.gate.stats()
    assert counts.pending == 0
    assert closes(counts)
    await asyncio.gather(*rig.tasks)
    assert rig.gate.paths.held == 0
