"""The file operations of `T.async`: plain functions for a thread, of which aiofiles makes coroutines for the loop.

A failed operation leaves its target as it was. Data is moved by the kernel where it can be.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path

import aiofiles.os

from engine.offload.task import Task

_PIECE = 8 << 20  # bytes per system call: how quickly a copy notices that it was given up

_NO_KERNEL_COPY = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}


class Abandoned(Exception):  # noqa: N818 - a state, not a fault
    """Raised inside an operation whose engine has given it up; caught by `operate`."""


def _move(source: int, target: int, given_up: threading.Event) -> None:
    """Copy all bytes from one descriptor's offset to another's, in the kernel if it can (reflink where it has it).

    A way that moves nothing is not believed, but given up for the next: some file systems (procfs) answer 0 although
    there is more.
    """
    ways: list[Callable[[int, int, int], int]] = [os.copy_file_range, _sendfile, _through_memory]
    while ways:
        if given_up.is_set():
            raise Abandoned
        try:
            moved = ways[0](source, target, _PIECE)
        except OSError as exc:
            if len(ways) == 1 or exc.errno not in _NO_KERNEL_COPY:
                raise
            moved = 0
        if not moved:
            del ways[0]


def _sendfile(source: int, target: int, count: int) -> int:
    return os.sendfile(target, source, None, count)


def _through_memory(source: int, target: int, count: int) -> int:
    data = os.read(source, min(count, 1 << 20))
    _write_all(target, data)
    return len(data)


@contextlib.contextmanager
def _open(path: str, flags: int, mode: int = 0o666) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, mode)  # a pipe must not hold the thread
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def copy(source: str, target: str, given_up: threading.Event) -> None:
    """Create or atomically replace `target` with the contents of `source`; a link is followed."""
    target = os.path.realpath(target)
    if Path(target).is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
    temporary = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}.tmp")
    with _open(source, os.O_RDONLY) as read_from:
        _refuse_directory(read_from, source)
        try:
            with _open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as write_to:
                _keep_mode(target, write_to)
                _move(read_from, write_to, given_up)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def _refuse_directory(descriptor: int, path: str) -> None:
    if os.path.isdir(descriptor):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)


def _keep_mode(target: str, descriptor: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.fchmod(descriptor, os.stat(target).st_mode & 0o7777)


def cat(source: str, target: str, given_up: threading.Event) -> None:
    """Append the contents of `source` to `target`, creating it."""
    with _open(source, os.O_RDONLY) as read_from:
        _refuse_directory(read_from, source)
        with _appending(target) as write_to:
            _move(read_from, write_to, given_up)


@contextlib.contextmanager
def _appending(target: str) -> Iterator[int]:
    """The target, positioned at its end; a failure cuts it back to what it was, or removes it if it was new.

    Not O_APPEND, which copy_file_range refuses: the path is held by this operation alone.
    """
    existed = Path(target).exists()
    with _open(target, os.O_WRONLY | os.O_CREAT) as descriptor:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        try:
            yield descriptor
        except BaseException:
            os.ftruncate(descriptor, end)
            if not existed:
                os.unlink(target)
            raise


def remove(target: str) -> None:
    """Delete `target`; no error if it is absent."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)


def write(data: bytes, target: str, position: int) -> None:
    """Append `data` to `target`, or write it at the 0-based `position` when that is not negative; creates the file."""
    if position < 0:
        with _appending(target) as descriptor:
            _write_all(descriptor, data)
        return
    existed = Path(target).exists()
    with _open(target, os.O_RDWR | os.O_CREAT) as descriptor:
        size = os.fstat(descriptor).st_size
        before = os.pread(descriptor, len(data), position)
        try:
            os.lseek(descriptor, position, os.SEEK_SET)
            _write_all(descriptor, data)
        except BaseException:
            os.pwrite(descriptor, before, position)
            os.ftruncate(descriptor, size)
            if not existed:
                os.unlink(target)
            raise


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def touched_paths(task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The paths that a file operation reads and writes, made comparable; worked out once."""
    if task.paths is None:
        task.paths = _comparable(task.source) if task.source else (), _comparable(task.target)
    return task.paths


def _comparable(path: str) -> tuple[str, ...]:
    """The name in its real folder, and what it leads to when it is a link."""
    folder, name = os.path.split(path)
    try:
        named = os.path.join(os.path.realpath(folder), name)  # measured: pathlib costs 4 times as much
        return (named, os.path.realpath(named)) if os.path.islink(named) else (named,)
    except ValueError:  # a NUL in it: no file has that name, as the operation will find
        return (path,)


def operate(task: Task, given_up: threading.Event) -> str | None:
    """Do a file operation, on this thread. None when it was done, else what went wrong, in one line."""
    try:
        if task.method == "copy":
            copy(task.source, task.target, given_up)
        elif task.method == "cat":
            cat(task.source, task.target, given_up)
        elif task.method == "rm":
            remove(task.target)
        else:
            write(task.data, task.target, task.position)
    except Abandoned:
        return "given up"
    except (OSError, ValueError, OverflowError, MemoryError) as exc:
        return _explain(task, exc)
    return None


def _explain(task: Task, exc: Exception) -> str:
    what = f"{task.source} -> {task.target}" if task.source else task.target
    reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc) or type(exc).__name__
    return f"T.async:{task.method}: {what}: {reason}"


async def in_thread(function: Callable[[], None], executor: Executor) -> None:
    """Run a whole sequence of file operations as one aiofiles coroutine, in one thread hop."""
    await aiofiles.os.wrap(function)(executor=executor)
