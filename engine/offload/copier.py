"""Copies many small files with one call into Lua, where no system call waits for the GIL (copier.lua)."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.offload.moving import SMALL
from engine.offload.mutex import Lock, Mutex
from engine.offload.task import Task
from engine.offload.worker import WorkerThread
from engine.vm import LuaState
from engine.vm.state import LuaError

MOST = 16
"""Copies with one call. More save little, and wait for each other."""

_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK


class _Copies(ctypes.Structure):
    """offpath_copies_t in copier.lua."""

    _fields_ = [
        ("mutex", Mutex),
        ("begun", ctypes.c_double),
        ("next", ctypes.c_int32),
        ("limit", ctypes.c_int32),
        ("moved", ctypes.c_int32 * MOST),
    ]


class Copier:
    """A thread with a Lua state that copies files. Made on the loop thread; the state lives on its own."""

    def __init__(self, name: str) -> None:
        self.executor = WorkerThread(name)
        self.is_usable = True
        """Whether it is worth to ask for copies. From any thread."""
        self._copies = _Copies()
        self._lock = Lock(ctypes.addressof(self._copies.mutex))
        self._state: LuaState | None = None
        self._copy_all: Any = None

    @property
    def begun(self) -> int:
        """How many copies were begun so far. From any thread."""
        return int(self._copies.begun)

    @property
    def left(self) -> int:
        """How many may still begin. From any thread."""
        return int(self._copies.limit - self._copies.next)

    def start(self, count: int) -> None:
        """Allow so many copies, at most MOST, to `copy`, which follows. From any thread."""
        with self._lock:
            self._copies.next, self._copies.limit = 0, count

    def stop(self) -> int:
        """Let no other copy begin; how many were begun of those that `start` allowed. From any thread."""
        with self._lock:
            self._copies.limit = begun = self._copies.next
        return int(begun)

    def copy(self, tasks: Sequence[Task]) -> list[int]:
        """Make copies in their order, on its own thread: the bytes of each that was begun.

        The last may be -1: it was not done, for a reason that `operate` will find or for none that is an error.
        """
        paths = [os.fsencode(path) for task in tasks for path in (task.source, task.target)]
        try:
            if self._copy_all is None:
                self._build()
            self._copy_all(*paths)
        except LuaError:  # a C library without a function that is needed, or out of memory
            self.is_usable = False
        # None is made again but the last: its source may be the target of one behind it.
        return list(self._copies.moved[: self._copies.next])

    def close(self) -> WorkerThread:
        """Ask the thread to drop its state and end. Gives the thread, to wait for. Loop thread."""
        self.executor.submit(self._drop)
        self.executor.end()
        return self.executor

    def _build(self) -> None:
        self._state = LuaState()
        self._state.add_modules("offload", Path(__file__).parent)
        reading, writing = os.O_RDONLY | _FLAGS, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS
        prefix = f".{secrets.token_hex(6)}-{os.getpid():x}".encode()
        self._copy_all = self._state.require("offload.copier")[b"new"](
            ctypes.addressof(self._copies), prefix, SMALL, reading, writing, errno.ENOENT
        )

    def _drop(self) -> None:
        self._copy_all = None
        if self._state is not None:
            self._state.close()
            self._state = None
