"""The file operations of `T.async`: plain functions for a thread, of which aiofiles makes coroutines for the loop.

A failed operation leaves its target as it was. Operations that append to one target can be done together.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import aiofiles.os

from engine.offload.moving import Abandoned, Source, is_a_directory, write_all
from engine.offload.task import Task

_BUFFERS = 1024  # IOV_MAX of Linux

_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not hold the thread

GIVEN_UP = "given up"
"""What went wrong with an operation whose queue was abandoned meanwhile."""

_RANDOM = secrets.token_hex(6)  # once: names need not be secret, only different from those of other hosts and runs

_numbers = itertools.count()

_FAILURES = (OSError, ValueError, OverflowError, MemoryError, Abandoned)


# ---- copy


def copy(source: str, target: str, given_up: threading.Event) -> int:
    """Create or atomically replace `target` with the contents of `source`: how many bytes. A link is followed."""
    target, mode = _replaceable(target)
    temporary = f"{target[: target.rfind('/') + 1]}.{_RANDOM}-{os.getpid():x}-{next(_numbers):x}.tmp"
    with Source(source) as read_from:
        permissions = 0o666 if mode is None else 0o600  # nobody may open it who may not open the target
        write_to = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, permissions)
        try:
            try:
                if mode is not None:
                    os.fchmod(write_to, mode)
                cloned = read_from.clone_into(write_to)
                moved = read_from.size if cloned else read_from.move_into(write_to, given_up)
            finally:
                os.close(write_to)
            os.rename(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    return moved


def _replaceable(path: str) -> tuple[str, int | None]:
    """What a rename must replace for `path` to have other contents, and its mode if it is there."""
    if path.endswith("/") or not path:
        path = os.path.realpath(path)
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            path = os.path.realpath(path)
            mode = os.stat(path).st_mode
    except FileNotFoundError:
        return path, None
    if stat.S_ISDIR(mode):
        raise is_a_directory(path)
    return path, stat.S_IMODE(mode)


# ---- cat, copybuffer, rm


class _Appending:
    """A target of appends, opened by the first and then held open. What fails is cut off, and the file closed.

    Not O_APPEND, which copy_file_range refuses: the path is held by this run of operations alone.
    """

    __slots__ = ("_descriptor", "_end", "_new", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._end = 0
        self._new = False  # made here, and nothing was appended yet

    def __enter__(self) -> _Appending:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _open(self) -> int:
        if self._descriptor < 0:
            self._descriptor, self._new = _open_or_create(self._path, os.O_WRONLY)
            try:
                self._end = os.lseek(self._descriptor, 0, os.SEEK_END)
            except OSError:
                self._close()
                raise
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _keep(self, count: int) -> None:
        self._end += count
        self._new = False

    def _undo(self) -> None:
        try:
            if self._descriptor >= 0:
                _restore(self._descriptor, self._end, self._path if self._new else None)
        finally:
            self._close()

    def cat(self, source: str, given_up: threading.Event) -> int:
        """Append a file: how many bytes."""
        with Source(source) as read_from:
            descriptor = self._open()
            try:
                # Onto itself, it is the file as it was: to its end it would be endless.
                itself = not read_from.complete and os.path.sameopenfile(read_from.descriptor, descriptor)
                moved = read_from.move_into(descriptor, given_up, read_from.size if itself else sys.maxsize)
                self._keep(moved)
            except BaseException:
                self._undo()
                raise
        return moved

    def write(self, buffers: Sequence[bytes], done: Callable[[], None]) -> None:
        """Append buffers, with one system call if all goes well; `done` is called for each before one that fails."""
        descriptor, at = self._open(), 0
        try:
            while at < len(buffers):
                # An empty one at the head is appended whatever becomes of those behind it.
                written = os.writev(descriptor, buffers[at : at + _BUFFERS]) if buffers[at] else 0
                while at < len(buffers) and written >= len(buffers[at]):
                    written -= len(buffers[at])
                    self._keep(len(buffers[at]))
                    done()
                    at += 1
                if written:  # a part of the next
                    write_all(descriptor, memoryview(buffers[at])[written:])
                    self._keep(len(buffers[at]))
                    done()
                    at += 1
        except BaseException:
            self._undo()
            raise


def _open_or_create(path: str, flags: int) -> tuple[int, bool]:
    """A descriptor, and whether the file is new."""
    try:
        return os.open(path, flags | _FLAGS), False
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT | _FLAGS, 0o666), True


def _restore(descriptor: int, size: int, new: str | None) -> None:
    """Give a file its size back, or remove it when it is new. A pipe, which has no size, has nothing to undo."""
    if os.fstat(descriptor).st_size != size:
        os.ftruncate(descriptor, size)
    if new is not None:
        os.unlink(os.path.realpath(new))


def cat(source: str, target: str, given_up: threading.Event) -> int:
    """Append the contents of `source` to `target`, creating it: how many bytes."""
    with _Appending(target) as appending:
        return appending.cat(source, given_up)


def remove(target: str) -> None:
    """Delete `target`; no error if it is absent."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)


def write(data: bytes, target: str, position: int) -> None:
    """Append `data` to `target`, or write it at the 0-based `position` when that is not negative; creates the file."""
    if position < 0:
        with _Appending(target) as appending:
            appending.write([data], lambda: None)
        return
    descriptor, new = _open_or_create(target, os.O_RDWR)
    try:
        size, before = os.fstat(descriptor).st_size, b""
        try:
            os.lseek(descriptor, position, os.SEEK_SET)
            if position < size:
                before = os.pread(descriptor, len(data), position)
            write_all(descriptor, data)
        except BaseException:
            if before:
                os.pwrite(descriptor, before, position)
            _restore(descriptor, size, target if new else None)
            raise
    finally:
        os.close(descriptor)


# ---- tasks


def operate(task: Task, given_up: threading.Event) -> str | None:
    """Do a file operation, on this thread. None when it was done, else what went wrong, in one line."""
    try:
        if task.method == "copy":
            task.moved = copy(task.source, task.target, given_up)
        elif task.method == "cat":
            task.moved = cat(task.source, task.target, given_up)
        elif task.method == "rm":
            remove(task.target)
        else:
            write(task.data, task.target, task.position)
            task.moved = len(task.data)
    except _FAILURES as exc:
        return _explain(task, exc)
    return None


def coalesces(first: Task, next: Task) -> bool:  # noqa: A002 - the one that comes next
    """Whether `next` may be drawn together with `first`, for `operate_run`: both append to one target."""
    return next.target == first.target and _appends(next) and _appends(first)


def _appends(task: Task) -> bool:
    return task.method == "cat" or (task.method == "copybuffer" and task.position < 0)


def operate_run(tasks: Sequence[Task], given_up: threading.Event) -> list[str | None]:
    """Do operations that coalesce, on this thread: for each what `operate` would have said, and the same contents.

    The target is opened once, and all buffers between two `cat`s are written with one system call.
    """
    wrong: list[str | None] = []
    with _Appending(tasks[0].target) as target:
        while len(wrong) < len(tasks):
            task = tasks[len(wrong)]
            try:
                if task.method == "cat":
                    task.moved = target.cat(task.source, given_up)
                    wrong.append(None)
                else:
                    rest = list(itertools.takewhile(lambda each: each.method != "cat", tasks[len(wrong) :]))
                    _write_all_of(rest, target, wrong)
            except _FAILURES as exc:
                wrong.append(_explain(tasks[len(wrong)], exc))
    return wrong


def _write_all_of(tasks: Sequence[Task], target: _Appending, wrong: list[str | None]) -> None:
    """Append the data of several tasks, and note each that was done."""
    left = iter(tasks)

    def done() -> None:
        task = next(left)
        task.moved = len(task.data)
        wrong.append(None)

    target.write([each.data for each in tasks], done)


def _explain(task: Task, exc: Exception) -> str:
    if isinstance(exc, Abandoned):
        return GIVEN_UP
    what = f"{task.source} -> {task.target}" if task.source else task.target
    reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc) or type(exc).__name__
    return f"T.async:{task.method}: {what}: {reason}"


def touched_paths(task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The paths that a file operation reads and writes, made comparable; worked out once."""
    if task.paths is None:
        task.paths = _comparable(task.source) if task.source else (), _comparable(task.target)
    return task.paths


def touched_by_run(tasks: Sequence[Task]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The same of several operations; a target that all share is looked up once."""
    reads: dict[str, None] = {}
    writes: dict[str, None] = {}
    first = tasks[0]
    for task in tasks:
        if task.target == first.target and first.paths is not None:
            task.paths = task.paths or (_comparable(task.source) if task.source else (), first.paths[1])
        of_task = touched_paths(task)
        reads.update(dict.fromkeys(of_task[0]))
        writes.update(dict.fromkeys(of_task[1]))
    return tuple(reads), tuple(writes)


def _comparable(path: str) -> tuple[str, ...]:
    """The name in its folder, known by device and inode, and what it leads to when it is a link."""
    try:
        named = _in_folder(path)
        if not os.path.islink(path):
            return (named,)
        return (named, _in_folder(os.path.realpath(path)))
    except ValueError:  # a NUL in it: no file has that name, as the operation will find
        return (path,)


def _in_folder(path: str) -> str:
    folder, _, name = path.rpartition("/")
    if name in ("", ".", ".."):
        path = os.path.realpath(path)
        folder, _, name = path.rpartition("/")
    try:  # measured: a third of what realpath costs, which looks at every folder on the way
        status = os.stat(folder or ("/" if path.startswith("/") else "."))
    except OSError:
        return os.path.realpath(path)
    return f"{status.st_dev}:{status.st_ino}/{name}"


async def in_thread(function: Callable[[], None], executor: Executor) -> None:
    """Run a whole sequence of file operations as one aiofiles coroutine, in one thread hop."""
    await aiofiles.os.wrap(function)(executor=executor)
