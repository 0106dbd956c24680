"""A worker that is a process of its own: its tasks may crash, exit or never end, and the engine goes on.

What it guarantees:
- A timeout or a stop ends the process and the programs that it started in its group, at once.
- When it dies, tasks that were begun and have no result fail with ``worker died (signal 11)``; those behind them are
  given to the next process, and the rest of a pack goes back to the queue. No task is run twice.
- No process outlives its worker, nor this process, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from engine.offload.process_spawn import Child
from engine.offload.process_wire import (
    RESULT_WIDTH,
    TASK_WIDTH,
    BrokenFrameError,
    GoneError,
    Kind,
    Progress,
    Shared,
    Value,
    share,
)
from engine.offload.task import PACK_CODE, Status
from engine.offload.worker import WorkerSetup, WorkerThread
from engine.values.histogram import Histogram

_FRAME_BYTES = 1 << 20  # tasks per frame: what a child with a memory limit must hold beside the one it runs
_GRACE_SECONDS = 0.7  # for a process that was asked to end; the gate waits a second for threads
_EXIT_SECONDS = 0.2  # for a process whose socket closed by itself
_MAX_DEATHS = 5
_RETRY_SECONDS = 1.0  # how long after a process could not begin none is started; tasks fail until then

_Row = tuple[Any, ...]


class WorkerDiedError(Exception):
    """Raised by `drain` when a process dies before it runs a task, or over and over. The queue fails what it held."""


class ProcessWorker:
    """A worker process of a plugin, started anew when it died. Made on the loop thread; `Worker` says the rest."""

    kind = "process"
    ends_at_once = True

    def __init__(self, setup: WorkerSetup, exchange: Callable[..., Any]) -> None:
        """`exchange(more, *results)` is called on the worker's thread: results go in, the next tasks come out."""
        self.executor = WorkerThread(setup.name)
        self._setup = setup
        self._exchange = exchange
        self._shared_descriptor = os.memfd_create("offpath", os.MFD_CLOEXEC)
        os.ftruncate(self._shared_descriptor, ctypes.sizeof(Shared))
        self._shared = share(self._shared_descriptor)
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._stopped = False
        self._drawn: deque[_Row] = deque()  # not sent yet
        self._sent: dict[int, _Row] = {}  # by id, in order, less those that are over
        self._over = 0  # how many of the last frame those are
        self._parts: dict[int, int] = {}  # by pack, tasks whose outcomes were given
        self._parts_taken = 0  # how many parts of packs the queue has taken of this process
        self._deaths = 0  # since a task was finished
        self._refusal = ""  # why the last process could not begin
        self._refused_until = 0.0
        self.tasks_run = 0
        """Tasks that were run. Written on the worker's thread."""

    # ---- what the queue asks for

    @property
    def states_built(self) -> int:
        """How many states there were, over all processes. From any thread."""
        return int(self._shared.states_built)

    @property
    def memory_bytes(self) -> int:
        """What the state used at the end of the last drain run, 0 before there was one. From any thread."""
        return int(self._shared.report)

    def run_times(self) -> Histogram:
        """How long the tasks took that were run, in all processes. From any thread."""
        progress: Progress = self._shared.progress
        return progress.run_times()

    def drain(self) -> int:
        """Run tasks until `exchange` gives none; how many were run. Raises `WorkerDiedError`."""
        before = self.tasks_run
        while not self._stopped:
            child = self._child or self._start()
            try:
                self._run(child)
                if not self._drawn:  # there may be some when a state was spent: the next one takes them
                    break
            except (GoneError, BrokenFrameError, _Fault) as exc:
                self._after_death(child, exc)
            except BaseException:  # not the child's: what it waits for will not come
                self._drop(child)
                raise
        if self._stopped:
            self._fail_all("worker died (signal 9)")
        return self.tasks_run - before

    def reset(self) -> None:
        """End the process, politely for a moment; the next drain run starts another. On the worker's thread."""
        child = self._child
        if child is None:
            return
        until = time.monotonic() + _GRACE_SECONDS
        with suppress(GoneError, BrokenFrameError, _Fault):
            child.channel.send(Kind.END)
            while True:
                self._serve(child, *child.channel.receive(max(until - time.monotonic(), 0.001)))
        self._drop(child, until - time.monotonic())

    def stop(self) -> None:
        """End the process at once, and with it the drain run; there will be no other. From any thread."""
        with self._lock:
            self._stopped = True
            child = self._child
        if child is not None:
            child.kill()

    def close(self) -> WorkerThread:
        """Ask the thread to end the process and itself. Gives the thread, to wait for."""
        self.executor.submit(self._close)
        self.executor.end()
        return self.executor

    def place(self) -> int:
        """Place in the pack of the task that was begun last, -1 before the first. From any thread."""
        return int(self._shared.progress.place) if self._at_a_task else -1  # before, it is that of the pack before

    def outcomes(self) -> tuple[int, bytes]:
        """How many tasks of the pack have ended whose outcomes were not given yet, and these. From any thread.

        They can only be trusted while the process is inside the task that it began last, or dead. What comes after
        outcomes that are still on their way is not told of: it would overtake them.
        """
        progress: Progress = self._shared.progress
        gives, count, outcomes = progress.shown()
        return (count, outcomes) if gives == self._parts_taken else (0, b"")

    def end_pack_after(self, count: int) -> None:
        """Let the process leave a pack when it has run so many tasks of it, at least one. From any thread."""
        self._shared.stop = max(count, 1) + 1

    def end_pack(self) -> None:
        """The pack is over: the next one is run to its end. On the worker's thread."""
        self._shared.stop = 0

    # ---- the worker's thread: a run

    def _start(self) -> Child:
        if self._refusal and time.monotonic() < self._refused_until:
            raise WorkerDiedError(self._refusal)
        self._refusal = ""
        self._parts_taken = self._shared.progress.gives = 0
        child = Child(self._setup, self._shared_descriptor)
        with self._lock:
            self._child = child
            stopped = self._stopped
        if stopped:
            child.kill()
        return child

    def _run(self, child: Child) -> None:
        """One drain run. A fresh child asks first, so that its start is no part of any task's time."""
        first: list[Value] = []
        if not child.fresh:
            first = self._next_frame(())
            if not first:
                return
        child.channel.send(Kind.RUN, first)
        while True:
            kind, values = child.channel.receive()
            if kind is Kind.ENDED:
                return
            self._serve(child, kind, values)

    def _serve(self, child: Child, kind: Kind, values: tuple[Any, ...]) -> None:
        """Do what a frame asks for."""
        if kind is Kind.ASK:
            child.fresh = False
            child.channel.send(Kind.TASKS, self._next_frame(values))
        elif kind is Kind.RESULTS:
            self._note(values)
            self._hand_on(False, values)
        elif kind is Kind.LOG:
            self._setup.log(*values)
        elif kind is Kind.CODE_WANTED:
            child.channel.send(Kind.CODE, self._code(*values))
        elif kind is Kind.FAULT:
            raise _Fault(values[0].decode("utf-8", "replace"))
        else:
            raise BrokenFrameError(f"{kind.name} is not for the parent")

    def _code(self, code: int) -> tuple[bytes, ...]:
        try:
            return (self._setup.load_code(code),)
        except LookupError:
            return ()

    def _next_frame(self, results: tuple[Any, ...]) -> list[Value]:
        """Hand results on, and take what goes out next: what is drawn already, or a new chunk."""
        self._note(results)
        if self._drawn:
            if results:
                self._hand_on(False, results)
        else:
            self._drawn.extend(_rows(self._hand_on(True, results) or (), TASK_WIDTH))
        frame: list[Value] = []
        size = 0
        self._sent.clear()
        self._over = 0
        while self._drawn and size < _FRAME_BYTES:
            row = self._drawn.popleft()
            self._sent[row[0]] = row
            size += len(row[3])
            frame.extend(row)
        self._shared.begun, self._shared.progress.place = 0, -1
        return frame

    def _hand_on(self, more: bool, results: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Give the queue what came, and take what it has."""
        tasks: tuple[Any, ...] | None = self._exchange(more, *results)
        self._parts_taken += sum(row[1] == Status.PART for row in _rows(results, RESULT_WIDTH))
        return tasks

    def _note(self, results: tuple[Any, ...]) -> None:
        """Keep count of what is over."""
        before = self.tasks_run
        for number, status, _, extra in _rows(results, RESULT_WIDTH):
            if status == Status.PART:
                self._parts[number] = self._parts.get(number, 0) + extra
                self.tasks_run += extra
            elif status not in (Status.FAILED_IN_PACK, Status.QUICK_CODE):
                self._over += self._sent.pop(number, None) is not None
                self._parts.pop(number, None)
                self.tasks_run += status != Status.PACK_END
        if self.tasks_run > before:
            self._deaths = 0

    # ---- the worker's thread: a death

    def _after_death(self, child: Child, cause: Exception) -> None:
        """Fail what the child had begun, and keep the rest for the next one. Raises when there had better be none."""
        could_run = not child.fresh
        if isinstance(cause, GoneError):
            cause = self._last_words(child) or cause
        how = self._drop(child, _EXIT_SECONDS)
        if self._stopped:
            return
        if isinstance(cause, _Fault):
            message = f"worker failed: {cause}"
        elif isinstance(cause, BrokenFrameError):
            message = f"worker died ({cause})"
        else:
            message = f"worker died ({how})"
        self._deaths += 1
        at_fault = isinstance(cause, _Fault) and not self._at_a_task
        if not could_run or at_fault or self._deaths >= _MAX_DEATHS:
            self._forget()
            reason = message.removeprefix("worker failed: ")  # which the queue puts before it
            if not could_run:
                self._refusal, self._refused_until = reason, time.monotonic() + _RETRY_SECONDS
                raise WorkerDiedError(reason)
            raise WorkerDiedError(reason if at_fault else f"{reason}, {self._deaths} times in a row")
        self._fail_begun(message.encode())

    def _last_words(self, child: Child) -> _Fault | None:
        """Why it went, if it said so while something was sent to it."""
        try:
            while True:
                self._serve(child, *child.channel.receive(_EXIT_SECONDS))
        except (GoneError, BrokenFrameError):
            return None
        except _Fault as fault:
            return fault

    @property
    def _at_a_task(self) -> bool:
        """Whether the dead process had begun a task that is not over."""
        return bool(self._shared.begun > self._over)

    def _drop(self, child: Child, seconds: float = 0.0) -> str:
        how = child.bury(seconds)
        with self._lock:
            self._child = None
        self._shared.report = 0
        return how

    def _fail_begun(self, message: bytes) -> None:
        """The result of the task that the process died of, if it was at one. Those behind it are drawn again."""
        rows = list(self._sent.values())
        at = 1 if self._at_a_task else 0
        self._drawn.extendleft(reversed(rows[at:]))
        results = [value for row in rows[:at] for value in self._failure(row, message)]
        self._sent.clear()
        self._parts.clear()
        self._shared.stop = 0
        if results:
            self._exchange(False, *results)

    def _failure(self, row: _Row, message: bytes) -> list[Value]:
        """Of a pack: what had ended, the one that was begun as failed, and that this is all.

        As in worker.lua, the place moves before the flag is looked at: a task at which the worker was to stop was not
        begun, and may be another worker's by now.
        """
        number, code, skip, data, size = row
        if code != PACK_CODE:
            return [number, Status.FAILED, message, b""]
        ended, outcomes = self.outcomes()
        at = self._parts.get(number, 0) + ended
        stop = self._shared.stop
        results: list[Value] = []
        if at < size and at <= self._shared.progress.place and (stop == 0 or at + 1 < stop):
            results += [number, Status.FAILED_IN_PACK, message, b""]
            outcomes += _lua_outcome(_first_value(data) + skip + at, Status.FAILED, message)
            at, ended = at + 1, ended + 1
        if ended:
            results += [number, Status.PART, outcomes, ended]
        return [*results, number, Status.PACK_END, at, False]

    def _fail_all(self, message: str) -> None:
        """Whoever stopped the worker settled its tasks, as a rule, and hears of them once more."""
        rows = [*self._sent.values(), *self._drawn]
        self._forget()
        if rows:
            self._exchange(False, *(value for row in rows for value in (row[0], Status.FAILED, message.encode(), b"")))

    def _forget(self) -> None:
        self._sent.clear()
        self._drawn.clear()
        self._parts.clear()
        self._shared.stop = 0

    def _close(self) -> None:
        self.reset()
        if self._shared_descriptor >= 0:
            self._shared = Shared.from_buffer_copy(self._shared)  # which unmaps it
            os.close(self._shared_descriptor)
            self._shared_descriptor = -1


class _Fault(Exception):  # noqa: N818 - what the child said of itself
    pass


def _rows(flat: Iterable[Any], width: int) -> Iterable[_Row]:
    return zip(*[iter(flat)] * width, strict=True)


# Of LuaJIT's string.buffer: tags of a 32-bit integer, of a double, and of a string below 192 bytes, plus its length.
_INTEGER, _DOUBLE, _STRING = 6, 7, 32


def _first_value(encoded: bytes) -> float:
    """The number that comes first in what string.buffer encoded."""
    value: float
    [value] = struct.unpack_from("<i" if encoded[0] == _INTEGER else "<d", encoded, 1)
    return value


def _lua_outcome(task_id: float, status: int, text: bytes) -> bytes:
    """Two numbers and a string as string.buffer encodes them."""
    text = text[:191]
    return struct.pack("<BdBiB", _DOUBLE, task_id, _INTEGER, status, _STRING + len(text)) + text
