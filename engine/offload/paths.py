"""Which paths file operations are working on, so that no two touch one path at once unless both only read it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence


class PathLocks:
    """Readers share a path, a writer has it alone. Loop thread only.

    Ordering within a plugin comes from its queue, whose head waits here; across plugins the waiters of all paths go
    on in the order in which they came.
    """

    def __init__(self) -> None:
        self._readers: dict[str, int] = {}
        self._writers: set[str] = set()
        self._waiting: deque[Callable[[], None]] = deque()

    def acquire(self, reads: Sequence[str], writes: Sequence[str]) -> bool:
        """Take all the paths, or none of them and return False."""
        if any(path in self._writers for path in (*reads, *writes)):
            return False
        if any(path in self._readers for path in writes):
            return False
        for path in reads:
            if path not in writes:
                self._readers[path] = self._readers.get(path, 0) + 1
        self._writers.update(writes)
        return True

    def wait(self, retry: Callable[[], None]) -> None:
        """Have `retry` called once after the next release."""
        self._waiting.append(retry)

    def release(self, reads: Sequence[str], writes: Sequence[str]) -> None:
        """Give the paths of one `acquire` back and let the waiters try again."""
        for path in reads:
            if path in writes:
                continue
            left = self._readers[path] - 1
            if left:
                self._readers[path] = left
            else:
                del self._readers[path]
        self._writers.difference_update(writes)
        for _ in range(len(self._waiting)):
            self._waiting.popleft()()

    @property
    def held(self) -> int:
        """Number of paths in use."""
        return len(self._readers) + len(self._writers)
