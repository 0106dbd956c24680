"""Which paths file operations are working on, so that no two touch one path at once unless both only read it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

Touched = tuple[tuple[str, ...], tuple[str, ...]]
"""The paths that are read and those that are written, made comparable."""


class PathLocks:
    """Readers share a path, a writer has it alone. May be used from any thread.

    Order within a plugin comes from its queue, whose head waits here; across plugins all waiters try again, in the
    order in which they came, whenever a path is given back.

    Making paths comparable takes system calls, half as long as copying a small file. So a holder that is alone is not
    asked for its paths until another one comes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alone: tuple[object, Callable[[], Touched]] | None = None
        self._holders: dict[object, Touched] = {}
        self._readers: dict[str, int] = {}
        self._writers: set[str] = set()
        self._waiting: list[Callable[[], None]] = []

    def acquire(self, holder: object, touched: Callable[[], Touched], retry: Callable[[], None]) -> bool:
        """Take all the paths; or none of them, return False, and have `retry` called once when paths were released.

        `touched` tells the paths, the same ones until the release. It may be called by another thread that acquires.
        """
        with self._lock:
            if self._alone is None and not self._holders:
                self._alone = holder, touched
                return True
            self._look_up_alone()
            reads, writes = touched()
            if self._in_use(reads, writes):
                self._waiting.append(retry)
                return False
            self._hold(holder, (reads, writes))
            return True

    def _look_up_alone(self) -> None:
        if self._alone is not None:
            holder, touched = self._alone
            self._hold(holder, touched())
            self._alone = None

    def _hold(self, holder: object, paths: Touched) -> None:
        self._holders[holder] = paths
        reads, writes = paths
        for path in reads:
            if path not in writes:
                self._readers[path] = self._readers.get(path, 0) + 1
        self._writers.update(writes)

    def _in_use(self, reads: Iterable[str], writes: Iterable[str]) -> bool:
        return not self._writers.isdisjoint((*reads, *writes)) or any(path in self._readers for path in writes)

    def narrow(self, holder: object, touched: Callable[[], Touched]) -> None:
        """Keep but some of the paths of one `acquire`, and let the waiters try again."""
        with self._lock:
            if self._alone is not None and self._alone[0] is holder:
                self._alone = holder, touched
                return
            self._drop(holder)
            self._hold(holder, touched())
            waiting, self._waiting = self._waiting, []
        for retry in waiting:
            retry()

    def release(self, holder: object) -> None:
        """Give the paths of one `acquire` back and let the waiters try again."""
        with self._lock:
            if self._alone is not None and self._alone[0] is holder:
                self._alone = None  # and nobody waits: whoever comes looks the paths up first
                return
            self._drop(holder)
            waiting, self._waiting = self._waiting, []
        for retry in waiting:
            retry()

    def _drop(self, holder: object) -> None:
        reads, writes = self._holders.pop(holder)
        for path in reads:
            if path not in writes:
                self._drop_reader(path)
        self._writers.difference_update(writes)

    def _drop_reader(self, path: str) -> None:
        left = self._readers[path] - 1
        if left:
            self._readers[path] = left
        else:
            del self._readers[path]

    @property
    def held(self) -> int:
        """Number of paths in use."""
        with self._lock:
            self._look_up_alone()
            return len(self._readers) + len(self._writers)
