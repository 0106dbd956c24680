"""The child's side of `ProcessWorker`: a `LuaWorker` on the main thread of its own process, whose exchange is a socket.

It lives no longer than its parent: the kernel kills it when that dies, and it exits when the socket closes. SIGINT and
SIGTERM, which terminals and service managers send to all processes of a service, are left to the parent.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import resource
import signal
import socket
from collections import deque
from contextlib import suppress
from typing import Any, NoReturn

from engine.offload.process_wire import TASK_WIDTH, Channel, GoneError, Kind, Shared, Value, share
from engine.offload.worker import LuaWorker, WorkerSetup

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15

_HEADROOM_BYTES = 64 << 20
"""What a limited process may take beyond what its state may: Python's part, and what `ffi.C.malloc` gives."""


class _Tasks:
    """Hands tasks to Lua one by one, so that the parent knows which was begun, and sends results as they come."""

    def __init__(self, channel: Channel, shared: Shared) -> None:
        self._channel = channel
        self._shared = shared
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._codes: dict[int, bytes] = {}

    @property
    def left(self) -> bool:
        """Whether there are tasks that Lua has not been given."""
        return bool(self._waiting)

    def add(self, flat: tuple[Value, ...]) -> None:
        """Take a frame of tasks."""
        self._waiting.extend(zip(*[iter(flat)] * TASK_WIDTH, strict=True))

    def exchange(self, more: bool, *flat: Any) -> tuple[Any, ...] | None:
        """Results in, the next task out: what `LuaWorker` asks for."""
        if more and not self._waiting:
            self._channel.send(Kind.ASK, flat)
            kind, tasks = self._channel.receive()
            assert kind is Kind.TASKS
            self.add(tasks)
        elif flat:
            self._channel.send(Kind.RESULTS, flat)
        if not more or not self._waiting:
            return None
        self._shared.progress.place = -1
        self._shared.progress.count = self._shared.progress.bytes = 0
        self._shared.begun += 1
        return self._waiting.popleft()

    def log(self, level: int, text: bytes) -> None:
        """Send a line at once: the next one may never come."""
        self._channel.send(Kind.LOG, (level, text))

    def load_code(self, code: int) -> bytes:
        """The bytecode of a prototype, asked for once in the life of the process."""
        if code not in self._codes:
            self._channel.send(Kind.CODE_WANTED, (code,))
            kind, answer = self._channel.receive()
            assert kind is Kind.CODE
            if not answer:
                raise LookupError(f"code {code} is not known")
            assert isinstance(answer[0], bytes)
            self._codes[code] = answer[0]
        return self._codes[code]


class _ChildWorker(LuaWorker):
    """A `LuaWorker` that the parent sees into."""

    def __init__(self, setup: WorkerSetup, tasks: _Tasks, shared: Shared) -> None:
        super().__init__(setup, tasks.exchange)
        self._stop = ctypes.c_int32.from_buffer(shared, Shared.stop.offset)
        self._progress = shared.progress
        self._report = ctypes.c_double.from_buffer(shared, Shared.report.offset)
        self._shared = shared

    def _build(self) -> None:
        before = self.states_built
        try:
            super()._build()
        finally:
            self._shared.states_built += self.states_built - before


def _ignore(_signal: int, _frame: object) -> None:
    """Not SIG_IGN, which programs that a script starts would inherit."""


def _bind_to_parent(parent: int, libc: ctypes.CDLL) -> None:
    """Die with the parent, whatever a task is at. Without `prctl` it ends at the next frame instead."""
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before that
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
        signal.siginterrupt(number, False)


def _limit_memory(limit_bytes: int) -> None:
    """Bound the private memory of the process; what programs that a script starts take is bound alike.

    Twice the state's limit, as what a task takes in and gives back exists once more on its way.
    """
    used = 0
    with suppress(OSError), open("/proc/self/status", "rb") as status:
        used = next((int(line.split()[1]) << 10 for line in status if line.startswith(b"VmData:")), 0)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = used + 2 * limit_bytes + _HEADROOM_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _serve(channel: Channel, shared: Shared, libc: ctypes.CDLL) -> None:
    """Drain runs, until the parent says END or is gone."""
    kind, (packed,) = channel.receive()
    assert kind is Kind.SETUP
    assert isinstance(packed, bytes)
    tasks = _Tasks(channel, shared)
    setup = WorkerSetup(**marshal.loads(packed), log=tasks.log, load_code=tasks.load_code)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_NAME, setup.name.encode()[:15], 0, 0, 0)
    if setup.memory_bytes is not None:
        _limit_memory(setup.memory_bytes)
    worker = _ChildWorker(setup, tasks, shared)
    while True:
        kind, flat = channel.receive()
        if kind is Kind.END:
            break
        tasks.add(flat)
        worker.drain()
        while tasks.left:
            worker.drain()
        libc.fflush(None)  # what tasks printed must not depend on how the process ends
        channel.send(Kind.ENDED)
    worker.reset()


def work(socket_descriptor: int, shared_descriptor: int, parent: int) -> NoReturn:
    """Be a worker process, to its end."""
    for descriptor in (socket_descriptor, shared_descriptor):
        os.set_inheritable(descriptor, False)  # programs that a script starts may outlive this process
    libc = ctypes.CDLL(None)
    _bind_to_parent(parent, libc)
    shared = share(shared_descriptor)
    os.close(shared_descriptor)
    channel = Channel(socket.socket(fileno=socket_descriptor))
    status = 0
    try:
        _serve(channel, shared, libc)
    except GoneError:
        pass  # nobody is left to hear of it
    except BaseException as exc:
        status = 1
        reason = "out of memory" if isinstance(exc, MemoryError) else str(exc) or type(exc).__name__
        with suppress(BaseException):
            channel.send(Kind.FAULT, (reason.encode("utf-8", "backslashreplace"),))
    finally:
        libc.fflush(None)
        os._exit(status)  # no finalizers: they are of no use to a process, and states may be spent
