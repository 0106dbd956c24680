"""A worker of a simulation: a Lua state like those of worker threads, in the thread of the loop."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from engine.offload import Status, Task
from engine.offload.worker import Progress, WorkerSetup
from engine.values.errors import EngineError
from engine.vm import LuaState
from engine.vm.state import LuaError, LuaMemoryError, text
from lua_api import install_worker

_RETRY_SECONDS = 1.0  # after async_onload failed, as in worker threads
_ERROR = 4  # of T.K.loglevel


class Ran(NamedTuple):
    """What came of a task."""

    status: Status
    value: bytes | None
    traceback: bytes


class SimulatedWorker:
    """Runs one task after the other, each with random numbers of its own."""

    def __init__(self, setup: WorkerSetup, functions: Mapping[str, Any], now: Callable[[], float]) -> None:
        """`functions` is what the state gets of the host; `now` is virtual time."""
        self.tasks_run = self.states_built = 0
        self.busy = False
        self._setup = setup
        self._more = functions
        self._now = now
        self._state: LuaState | None = None
        self._functions: Any = None
        self._reseed: Any = None
        self._next: tuple[Any, ...] | None = None
        self._ran: Ran | None = None
        self._stop, self._report = ctypes.c_int32(0), ctypes.c_double(0)
        self._progress = Progress(place=-1)
        self._refusal, self._refused_until = "", 0.0

    @property
    def memory_bytes(self) -> int:
        """What the state used after the last task."""
        return int(self._report.value)

    def run(self, task: Task) -> Ran:
        """Run a task at once."""
        try:
            if self._functions is None:
                self._build()
            self._reseed(str(task.id).encode())
            self._next, self._ran = task.crossing(), None
            count, spent = self._functions.drain(0.001)
        except (EngineError, LuaError, LuaMemoryError) as exc:
            self.reset()
            return Ran(Status.FAILED, f"worker failed: {exc}".encode(), b"")
        self.tasks_run += count
        if spent:
            self.reset()
        return self._ran or Ran(Status.FAILED, b"worker failed: it gave no result", b"")

    def reset(self, *, dies: bool = False) -> None:
        """Drop the state; the next task builds another. One that dies runs no async_onunload."""
        functions, state = self._functions, self._state
        self._functions = self._state = self._reseed = None
        if state is None:
            return
        if functions is not None and self._setup.onunload is not None and not dies:
            self._call_hook(functions, "async_onunload", self._setup.onunload)
        del functions
        state.close()
        self._stop.value = 0

    def _exchange(self, more: bool, *flat: Any) -> tuple[Any, ...] | None:
        """Results in, the task out (worker.lua). What it learned of how long tasks take is of another time."""
        for _, status, value, trace in zip(*[iter(flat)] * 4, strict=True):
            if status in (Status.DONE, Status.RESULT, Status.FAILED):
                self._ran = Ran(Status(status), value if isinstance(value, bytes) else None, trace or b"")
        task, self._next = self._next if more else None, None
        return task

    def _build(self) -> None:
        setup = self._setup
        if self._refusal and self._now() < self._refused_until:
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
            max_tasks=setup.max_tasks,
            memory_bytes=setup.memory_bytes,
            functions=self._more,
        )
        self._reseed = self._state.require("offpath.virtual")[b"reseed"]
        self._refusal = "" if setup.onload is None else self._call_hook(functions, "async_onload", setup.onload)
        if self._refusal:
            self._refused_until = self._now() + _RETRY_SECONDS
            raise EngineError(self._refusal)
        self._functions = functions

    def _call_hook(self, functions: Any, name: str, shipped: tuple[int, bytes]) -> str:
        """Run a hook of the worker and log what it raised; the message of that, or nothing."""
        try:
            wrong = functions.call_hook(*shipped, name == "async_onload")
        except LuaError as exc:
            wrong = str(exc).encode(), b""
        if wrong is None:
            return ""
        message = f"{name}: {text(wrong[0])}"
        self._setup.log(_ERROR, f"{message}\n{text(wrong[1])}".rstrip().encode())
        return message
