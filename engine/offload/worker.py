"""A worker: one thread, and the Lua state that lives and dies on it."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

from engine.values.errors import EngineError
from engine.values.histogram import BUCKETS, Histogram
from engine.vm import LuaState
from engine.vm.state import LuaError, LuaMemoryError, text
from lua_api import install_worker
from lua_api.install import WorkerFunctions

HOLD_SECONDS = 0.001
"""How long results of a chunk may wait for the tasks behind them."""

STRICT_GRACE_SECONDS = 0.5
"""How much longer than its timeout a task may take in a worker that ends it by itself, until it counts as stuck."""

_RETRY_SECONDS = 1.0
"""How long after async_onload failed it is not tried again; tasks fail with its message until then."""

_ERROR = 4  # of T.K.loglevel


class WorkerThread(Executor):
    """An executor of one daemon thread, so that a task that never ends can't keep the process from ending.

    `submit` may be called from any thread; jobs run in order.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self.ended: Future[None] = Future()
        self.gone = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call."""
        assert not kwargs
        future: Future[Any] = Future()
        self._jobs.put((future, fn, args))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """End the thread after the jobs that are queued."""
        self.end()
        if wait:
            self._thread.join()

    def end(self) -> Future[None]:
        """End the thread after the jobs that are queued. The future is done when it has nothing left to do."""
        self._jobs.put(None)
        return self.ended

    def join(self, seconds: float) -> None:
        """Wait for the thread to be gone."""
        self._thread.join(seconds)

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, fn, args = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args))
                except BaseException as exc:
                    exc.__traceback__ = exc.__context__ = exc.__cause__ = None  # frames may hold Lua objects
                    future.set_exception(exc)
            del job, future, fn, args  # nothing of a job may live on while the thread waits for the next
        self.gone.set()
        if self.ended.set_running_or_notify_cancel():  # whoever waited for it may have lost patience
            self.ended.set_result(None)


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker's state is built from; the callables may be called on the worker's thread."""

    name: str
    settings: Mapping[str, Any]
    directory: str
    roots: Sequence[str]
    log: Callable[[int, bytes], None]
    load_code: Callable[[int], bytes]
    onload: tuple[int, bytes] | None = None
    """Code id and upvalues of the function that prepares a state, or None."""
    onunload: tuple[int, bytes] | None = None
    """The same of the function that runs before a state is dropped."""
    strict_timeout: bool = False
    """The state has no compiler, and a Lua task past its timeout is ended by the worker itself."""
    max_tasks: int | None = None
    """A state is dropped when it has run so many tasks, a few more when they cross together; None for never."""
    memory_bytes: int | None = None
    """What scripts may add to a fresh state; a task past it fails and the state is dropped. None for no limit."""


class Worker(Protocol):
    """What a task queue asks of a worker, be it a thread or a process. Made on the loop thread.

    `drain` is an executor job: it draws tasks through `exchange` until there are none.
    """

    executor: WorkerThread
    kind: str
    """What it is to people: ``"thread"`` or ``"process"``."""
    ends_at_once: bool
    """Whether `stop` ends what runs: of a process, not of a thread."""

    @property
    def tasks_run(self) -> int:
        """Tasks that were run. From any thread."""

    @property
    def states_built(self) -> int:
        """How many states there were. From any thread."""

    @property
    def memory_bytes(self) -> int:
        """What the state used at the end of the last drain run, 0 before there was one. From any thread."""

    def place(self) -> int:
        """Place in the pack of the task that was begun last, -1 before the first. From any thread."""

    def outcomes(self) -> tuple[int, bytes]:
        """How many tasks of the pack have ended whose outcomes were not given yet, and these. From any thread."""

    def run_times(self) -> Histogram:
        """How long the tasks took that were run. From any thread."""

    def end_pack_after(self, count: int) -> None:
        """Let the worker leave a pack when it has run so many tasks of it, at least one. From any thread."""

    def end_pack(self) -> None:
        """The pack is over: the next one is run to its end. On the worker's thread."""

    def drain(self) -> int:
        """Run tasks until `exchange` gives none; how many were run. On the worker's thread."""

    def reset(self) -> None:
        """Drop the state; the next drain run builds another. On the worker's thread."""

    def stop(self) -> None:
        """Let the drain run end after the task that it is at, or at once when that can be done. From any thread."""

    def close(self) -> WorkerThread:
        """Ask the thread to drop its state and end. Gives the thread, to wait for. Loop thread."""


class Progress(ctypes.Structure):
    """offpath_progress_t in worker.lua."""

    _fields_ = [
        ("place", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("bytes", ctypes.c_int32),
        ("gives", ctypes.c_int32),
        ("outcomes", ctypes.c_uint8 * 65536),
        ("run_seconds", ctypes.c_double),
        ("run_counts", ctypes.c_double * BUCKETS),
    ]

    def shown(self) -> tuple[int, int, bytes]:
        """How often outcomes were given, of how many tasks there are some since, and these.

        The worker goes on meanwhile: of how many may be 0 when it is not, and there may be bytes of more.
        """
        gives, count = int(self.gives), int(self.count)
        outcomes = bytes(memoryview(self.outcomes)[: self.bytes])
        return (gives, count, outcomes) if gives == self.gives else (gives, 0, b"")

    def run_times(self) -> Histogram:
        """How long tasks took."""
        return Histogram(tuple(map(int, self.run_counts)), self.run_seconds)


class LuaWorker:
    """One worker of a plugin. Made on the loop thread; `drain` and the closing run on its own."""

    kind = "thread"
    ends_at_once = False

    def __init__(self, setup: WorkerSetup, exchange: Callable[..., Any]) -> None:
        """`exchange(more, *results)` is called on the worker's thread: results go in, the next tasks come out."""
        self.executor = WorkerThread(setup.name)
        self.tasks_run = 0
        """Tasks that were run, as of the end of the last drain run. Written on the worker's thread."""
        self.states_built = 0
        """How many states there were. Written on the worker's thread."""
        self._setup = setup
        self._exchange = exchange
        self._state: LuaState | None = None
        self._functions: WorkerFunctions | None = None
        self._progress = Progress(place=-1)
        self._stop = ctypes.c_int32(0)  # Lua looks at it between two tasks: a crossing would cost more than most tasks
        self._stopped = False
        self._report = ctypes.c_double(0)
        self._refusal = ""  # why async_onload failed
        self._refused_until = 0.0

    @property
    def memory_bytes(self) -> int:
        """What the state used at the end of the last drain run, 0 before there was one. From any thread."""
        return int(self._report.value)

    def run_times(self) -> Histogram:
        """How long the tasks took that were run. From any thread."""
        return self._progress.run_times()

    def drain(self) -> int:
        """Run tasks until `exchange` gives none, or until the state is spent; how many were run. An executor job.

        Raises `EngineError` when async_onload failed, or when the state ran out of memory outside of a task.
        """
        if self._functions is None:
            self._build()
        assert self._functions is not None
        try:
            tasks, spent = self._functions.drain(HOLD_SECONDS)
        except LuaMemoryError as exc:
            raise EngineError(self._no_memory() or str(exc)) from None
        self.tasks_run += tasks
        if spent:
            self.reset()
        return tasks

    def reset(self) -> None:
        """Run async_onunload and drop the state; the next drain run builds another. On the worker's thread."""
        functions, state = self._functions, self._state
        self._functions = self._state = None
        if state is None:
            return
        if functions is not None and self._setup.onunload is not None and not self._stopped:
            self._call_hook(functions, "async_onunload", self._setup.onunload)
        del functions
        state.close()
        self._stop.value = 0  # what was left in it for a pack of that state
        if self._stopped:
            self._stop.value = 1

    def stop(self) -> None:
        """Let the drain run end after the task that it is at; the state is dropped as it is. From any thread."""
        self._stopped = True
        self._stop.value = 1

    def place(self) -> int:
        """Place in the pack of the task that was begun last, -1 before the first. From any thread."""
        return int(self._progress.place)

    def outcomes(self) -> tuple[int, bytes]:
        """How many tasks of the pack have ended whose outcomes were not given yet, and these. From any thread.

        They can only be trusted while the worker is inside the task that it began last.
        """
        return self._progress.shown()[1:]

    def end_pack_after(self, count: int) -> None:
        """Let the worker leave a pack when it has run so many tasks of it. From any thread."""
        self._stop.value = count + 1

    def end_pack(self) -> None:
        """The pack is over: the next one is run to its end. On the worker's thread."""
        self._stop.value = 0
        self._progress.place = -1

    def close(self) -> WorkerThread:
        """Ask the thread to drop its state and end. Gives the thread, to wait for."""
        self.executor.submit(self.reset)
        self.executor.end()
        return self.executor

    def _build(self) -> None:
        setup = self._setup
        if self._refusal and time.monotonic() < self._refused_until:
            raise EngineError(self._refusal)
        self._state = LuaState(memory_limit=None if setup.memory_bytes is None else 0)
        self.states_built += 1
        functions = install_worker(
            self._state,
            setup.settings,
            setup.log,
            load_code=setup.load_code,
            exchange=self._exchange,
            stop_flag=ctypes.addressof(self._stop),
            progress=ctypes.addressof(self._progress),
            report=ctypes.addressof(self._report),
            directory=setup.directory,
            roots=setup.roots,
            strict_timeout=setup.strict_timeout,
            max_tasks=setup.max_tasks,
            memory_bytes=setup.memory_bytes,
        )
        self._refusal = "" if setup.onload is None else self._call_hook(functions, "async_onload", setup.onload)
        if self._refusal:
            del functions
            self._refused_until = time.monotonic() + _RETRY_SECONDS
            self.reset()
            raise EngineError(self._refusal)
        self._functions = functions

    def _call_hook(self, functions: WorkerFunctions, name: str, shipped: tuple[int, bytes]) -> str:
        """Run a hook of the worker and log what it raised; the message of that, or nothing."""
        try:
            wrong = functions.call_hook(*shipped, name == "async_onload")
        except LuaError as exc:  # past the script's own error boundary
            wrong = (self._no_memory() or str(exc)).encode(), b""
        if wrong is None:
            return ""
        message = f"{name}: {text(wrong[0])}"
        self._setup.log(_ERROR, f"{message}\n{text(wrong[1])}".rstrip().encode())
        return message

    def _no_memory(self) -> str:
        limit = self._setup.memory_bytes
        return "" if limit is None else f"out of memory: the worker's limit is {-(-limit >> 20)} MiB"
