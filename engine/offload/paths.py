"""Which paths file operations are working on, so that no two touch one path at once unless both only read it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence


class PathLocks:
    """Readers share a path, a writer has it alone. May be used from any thread.

    Order within a plugin comes from its queue, whose head waits here; across plugins all waiters try again, in the
    order in which they came, whenever a path is given back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: dict[str, int] = {}
        self._writers: set[str] = set()
        self._waiting: list[Callable[[], None]] = []

    def acquire(self, reads: Sequence[str], writes: Sequence[str], retry: Callable[[], None]) -> bool:
        """Take all the paths; or none of them, return False, and have `retry` called once when paths were released."""
        with self._lock:
            if self._in_use(reads, writes):
                self._waiting.append(retry)
                return False
            for path in reads:
                if path not in writes:
                    self._readers[path] = self._readers.get(path, 0) + 1
            self._writers.update(writes)
            return True

    def _in_use(self, reads: Sequence[str], writes: Sequence[str]) -> bool:
        return any(path in self._writers for path in (*reads, *writes)) or any(path in self._readers for path in writes)

    def release(self, reads: Sequence[str], writes: Sequence[str]) -> None:
        """Give the paths of one `acquire` back and let the waiters try again."""
        with self._lock:
            for path in reads:
                if path not in writes:
                    self._drop_reader(path)
            self._writers.difference_update(writes)
            waiting, self._waiting = self._waiting, []
        for retry in waiting:
            retry()

    def _drop_reader(self, path: str) -> None:
        left = self._readers[path] - 1
        if left:
            self._readers[path] = left
        else:
            del self._readers[path]

    @property
    def held(self) -> int:
        """Number of paths in use."""
        return len(self._readers) + len(self._writers)
