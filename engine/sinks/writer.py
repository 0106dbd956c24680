"""A sink whose work is done by one thread of its own: batches of records and windows, in their order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

import anyio
import anyio.to_thread

from engine.values.errors import SinkError
from engine.values.records import Record
from engine.values.stats import SinkStats
from engine.values.windows import Window

_BATCH = 2_000  # records that make a batch
_MOST_RECORDS = 50_000  # that may wait for the thread
_MOST_WINDOWS = 2  # likewise; more than one, so that storing one does not hold up the next


class Backend(Protocol):
    """Where things are stored. One thread calls it; every method raises `SinkError` when it fails."""

    path: str

    def add(self, records: Sequence[Record]) -> None:
        """Store records of the window that goes on."""

    def window(self, window: Window) -> None:
        """A window ended: it and its records are there from now on, or none of them."""

    def close(self) -> None:
        """Store what is left, and close."""

    def abort(self) -> None:
        """Close without what is not complete."""


class WriterSink:
    """Gives records and windows to a backend, on a thread that lives until the sink is closed.

    At most 50,000 records, or two windows, wait for the thread when `flush` returns; else it waits, and what it holds
    up is the source. After a failure what the window had so far is lost with it, all that comes is dropped and counted,
    and `flush` or `close` tells once.
    """

    def __init__(self, backend: Backend, *, name: str) -> None:
        self._backend = backend
        self._name = name
        # Loop thread.
        self._batch: list[Record] = []
        self._taken = self._taken_windows = self._waits = 0
        self._reported = self._closed = False
        self._thread: threading.Thread | None = None
        # Both threads, under the condition.
        self._changed = threading.Condition()
        self._jobs: deque[list[Record] | Window] = deque()
        self._ending = False
        self._stored = self._pending = self._failed = self._dropped = 0  # records
        self._windows = self._failed_windows = self._dropped_windows = 0
        self._queued_records = self._queued_windows = 0
        self._seconds = 0.0
        self._failure: SinkError | None = None

    @property
    def path(self) -> str:
        """What is written to."""
        return self._backend.path

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def stats(self) -> SinkStats:
        """Counts at this moment."""
        with self._changed:
            return SinkStats(
                name=self.path,
                records=self._taken,
                stored=self._stored,
                pending=self._pending,
                waiting=self._taken - self._stored - self._pending - self._failed - self._dropped,
                failed=self._failed,
                dropped=self._dropped,
                windows=self._taken_windows,
                windows_stored=self._windows,
                windows_waiting=self._taken_windows - self._windows - self._failed_windows - self._dropped_windows,
                windows_failed=self._failed_windows,
                windows_dropped=self._dropped_windows,
                waits=self._waits,
                seconds=self._seconds,
            )

    # ---- loop thread

    def write(self, record: Record) -> None:
        """Take a record. Never blocks."""
        self._batch.append(record)
        self._taken += 1
        if len(self._batch) >= _BATCH:
            self._cut()

    def write_window(self, window: Window) -> None:
        """Take a window, after all of its records. Never blocks; the window must not change any more."""
        self._cut()
        self._taken_windows += 1
        self._put(window)

    async def flush(self) -> None:
        """Wait while too much waits for the thread. Raises `SinkError` once when storing failed."""
        if self._is_full():
            self._waits += 1
            await anyio.to_thread.run_sync(self._wait_for_room)
        self._report()

    async def close(self) -> None:
        """Store the rest, even when cancelled, and end the thread. Idempotent. Raises `SinkError` as `flush` does."""
        if self._closed:
            return
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._end)
        self._report()

    def close_now(self) -> None:
        """The same, blocking, for a process that is about to end. Any thread, when the loop writes no more.

        Waits for a `close` that is under way.
        """
        self._end()
        self._report()

    def _cut(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, []
            self._put(batch)

    def _put(self, job: list[Record] | Window) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        with self._changed:
            self._jobs.append(job)
            self._count(job, 1)
            self._changed.notify_all()

    def _is_full(self) -> bool:
        with self._changed:
            return self._full

    @property
    def _full(self) -> bool:
        return self._queued_records > _MOST_RECORDS or self._queued_windows > _MOST_WINDOWS

    def _wait_for_room(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._full)

    def _end(self) -> None:
        """Any thread; the second of two waits for the first."""
        with self._changed:
            first, self._closed = not self._closed, True
        if first:
            self._cut()
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        elif first:
            self._close_backend()

    def _report(self) -> None:
        if self._failure is not None and not self._reported:
            self._reported = True
            raise self._failure

    # ---- writer thread

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            failed_before = self._failure is not None
            stored = self._store(job)
            with self._changed:
                self._count(job, -1)
                if failed_before:
                    self._note_dropped(job)
                elif stored:
                    self._note_stored(job)
                else:
                    self._note_failed(job)
                self._changed.notify_all()
            del job  # a window may be large, and the next may be long in coming
        self._close_backend()

    def _note_stored(self, job: list[Record] | Window) -> None:
        if isinstance(job, Window):
            self._windows += 1
            self._stored, self._pending = self._stored + self._pending, 0
        else:
            self._pending += len(job)

    def _note_failed(self, job: list[Record] | Window) -> None:
        """With the rest of its window, which goes with it."""
        records, windows = (0, 1) if isinstance(job, Window) else (len(job), 0)
        self._failed, self._pending = self._failed + self._pending + records, 0
        self._failed_windows += windows

    def _note_dropped(self, job: list[Record] | Window) -> None:
        if isinstance(job, Window):
            self._dropped_windows += 1
        else:
            self._dropped += len(job)

    def _next_job(self) -> list[Record] | Window | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._ending)
            return self._jobs.popleft() if self._jobs else None

    def _store(self, job: list[Record] | Window) -> bool:
        if self._failure is not None:
            return False
        began = perf_counter()
        try:
            if isinstance(job, Window):
                self._backend.window(job)
            else:
                self._backend.add(job)
        except Exception as exc:
            self._fail(exc)
            self._backend.abort()
            return False
        finally:
            self._seconds += perf_counter() - began
        return True

    def _close_backend(self) -> None:
        if self._failure is None:
            began = perf_counter()
            try:
                self._backend.close()
            except Exception as exc:
                self._fail(exc)
            with self._changed:
                self._seconds += perf_counter() - began
                if self._failure is None:
                    self._stored += self._pending
                else:
                    self._failed += self._pending
                self._pending = 0

    def _fail(self, exc: Exception) -> None:
        """A fault of our own must not pass silently, and must not end the thread that others wait for either."""
        if not isinstance(exc, SinkError):
            wrapped = SinkError(self.path, f"{type(exc).__name__}: {exc}")
            wrapped.__cause__ = exc
            exc = wrapped
        self._failure = exc

    def _count(self, job: list[Record] | Window, sign: int) -> None:
        if isinstance(job, Window):
            self._queued_windows += sign
        else:
            self._queued_records += sign * len(job)
