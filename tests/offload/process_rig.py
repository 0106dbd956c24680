"""What tests of worker processes share: a worker over a list of chunks, and the proof that nothing of it is left."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from engine.offload.process import ProcessWorker
from engine.offload.worker import WorkerSetup
from engine.vm import LuaState
from tests.support import DEADLINE, SETTINGS, eventually_in_thread, no_threads_left

PID = "local ffi = require('ffi') pcall(ffi.cdef, 'int getpid(void);') "
"""Lua that makes ffi.C.getpid known."""

SPIN = PID + "local f = io.open((...), 'w') f:write(ffi.C.getpid()) f:close() while true do end"
"""Writes its process id into a file, and never ends."""


def code_of(source: str) -> bytes:
    """The bytecode of a task."""
    state = LuaState()
    dumped: bytes = state.execute(b"return string.dump(assert(loadstring(..., '@task.lua')))", source.encode())
    state.close()
    return dumped


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def kill(pid: int) -> None:
    """End any process that a test started, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def children() -> set[int]:
    """Children of this process, zombies included."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found.update(map(int, (task / "children").read_text().split()))
    return found


def pid_in(file: Path) -> int:
    """The process id that a task wrote, when it did."""
    eventually_in_thread(lambda: file.exists() and file.read_text())
    return int(file.read_text())


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fail if threads, processes, zombies or descriptors are left that were not there before."""
    before, descriptors = children(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with no_threads_left():
        yield
    eventually_in_thread(lambda: children() <= before, 5.0)
    eventually_in_thread(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, 5.0)  # noqa: PTH208


class Driven:
    """A worker process whose tasks come from `chunks`, one chunk a call, and whose results go into `results`."""

    def __init__(self, codes: dict[int, str], **setup: Any) -> None:
        self.chunks: list[list[tuple[Any, ...]]] = []
        self.results: dict[int, tuple[int, Any, Any]] = {}
        self.rows: list[tuple[Any, ...]] = []
        self.logged: list[tuple[int, bytes]] = []
        self.loaded: list[int] = []
        self.threads: set[str] = set()
        self._codes = {number: code_of(source) for number, source in codes.items()}
        given = {"name": "process", "settings": SETTINGS, "directory": "/nonexistent", "roots": (), **setup}
        self.worker = ProcessWorker(WorkerSetup(**given, log=self._log, load_code=self._load_code), self._exchange)

    def _log(self, level: int, text: bytes) -> None:
        self.threads.add(threading.current_thread().name)
        self.logged.append((level, text))

    def _load_code(self, code: int) -> bytes:
        self.threads.add(threading.current_thread().name)
        self.loaded.append(code)
        return self._codes[code]

    def _exchange(self, more: bool, *flat: Any) -> tuple[Any, ...] | None:
        self.threads.add(threading.current_thread().name)
        rows = [flat[at : at + 4] for at in range(0, len(flat), 4)]
        self.rows += rows
        self.results.update({row[0]: row[1:] for row in rows if row[1] in (0, 1, 2)})
        if not more or not self.chunks:
            return None
        return tuple(chain.from_iterable(self.chunks.pop(0)))

    def start(self, *chunks: list[tuple[Any, ...]]) -> Any:
        """Begin a drain run over chunks of (id, code, data), or of whole rows; its future."""
        for chunk in chunks:
            self.chunks.append([row if len(row) == 5 else (row[0], row[1], b"", row[2], 0.0) for row in chunk])
        return self.worker.executor.submit(self.worker.drain)

    def drain(self, *chunks: list[tuple[Any, ...]]) -> int:
        """A drain run, to its end."""
        return self.start(*chunks).result(DEADLINE)  # type: ignore[no-any-return]

    def run(self, code: int, data: bytes = b"") -> tuple[int, Any]:
        """Status and value of one task."""
        self.drain([(1, code, data)])
        return self.results.pop(1)[:2]


Drive = Callable[..., Driven]


@contextmanager
def driving() -> Iterator[Drive]:
    """Makes workers, closes them, and checks what is left."""
    made: list[Driven] = []

    def make(codes: dict[int, str], **setup: Any) -> Driven:
        made.append(Driven(codes, **setup))
        return made[-1]

    with nothing_left():
        yield make
        for each in made:
            each.worker.close()
        for each in made:
            each.worker.executor.join(DEADLINE)
        made.clear()
