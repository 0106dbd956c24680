"""What tests look for in /proc: processes that run, and that none of them, no thread and no descriptor is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvloop

from tests.support import eventually_in_thread, no_threads_left


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
    eventually_in_thread(lambda: file.exists() and file.read_text().endswith("\n"))
    return int(file.read_text())


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fail if threads, processes, zombies or descriptors are left that were not there before."""
    uvloop.new_event_loop().close()  # with its first loop in a process, libuv opens a pipe that stays
    before, descriptors = children(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with no_threads_left():
        yield
    eventually_in_thread(lambda: children() <= before, 5.0)
    eventually_in_thread(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, 5.0)  # noqa: PTH208
