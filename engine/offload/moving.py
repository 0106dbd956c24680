"""How the bytes of one file get into another: by the kernel where it can, in pieces, so that it can be given up.

For threads. Every system call lets go of the GIL and waits to have it back, so that a small file takes few of them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
import threading
from collections.abc import Callable

PIECE = 8 << 20
"""Bytes per system call: how quickly a copy notices that it was given up. Measured: 64 MiB are no faster."""

SMALL = 128 << 10
"""Bytes up to which a file is read at once and written at once. Measured against copy_file_range: 27 instead of 36 µs
for 20 KiB, 55 instead of 67 for 128 KiB, and no less for 1 MiB."""

NO_KERNEL_COPY = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
"""What the kernel answers when it is the wrong way to copy, not the files that are at fault."""

_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not hold the thread

_FICLONE = 0x40049409


class Abandoned(Exception):  # noqa: N818 - a state, not a fault
    """Raised inside an operation whose engine has given it up; `operate` and `operate_run` catch it."""


def move(source: int, target: int, given_up: threading.Event, most: int = sys.maxsize) -> int:
    """Copy all bytes, or `most` of them, from one descriptor's offset to another's: how many there were.

    A way that moves nothing is not believed, but given up for the next: some file systems (procfs) answer 0 although
    there is more.
    """
    ways: list[Callable[[int, int, int], int]] = [os.copy_file_range, _sendfile, _through_memory]
    total = 0
    while ways and total < most:
        _check(given_up)
        try:
            moved = ways[0](source, target, min(PIECE, most - total))
        except OSError as exc:
            if len(ways) == 1 or exc.errno not in NO_KERNEL_COPY:
                raise
            moved = 0
        total += moved
        if not moved:
            del ways[0]
    return total


def _sendfile(source: int, target: int, count: int) -> int:
    return os.sendfile(target, source, None, count)


def _through_memory(source: int, target: int, count: int) -> int:
    data = os.read(source, min(count, 256 << 10))  # measured: 1 MiB takes twice as long, it falls out of the cache
    write_all(target, data)
    return len(data)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write a buffer to a descriptor's offset, or raise; then a part of it may be there."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


def _check(given_up: threading.Event) -> None:
    if given_up.is_set():
        raise Abandoned


class Source:
    """A file to read from. A small one is read at once, by the descriptor's offset: `data` is all there is, or a part.

    Raises IsADirectoryError for a folder, which Linux lets one open.
    """

    __slots__ = ("complete", "data", "descriptor", "size")

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | _FLAGS)
        try:
            status = os.fstat(self.descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise is_a_directory(path)
            self.size, self.data, self.complete = status.st_size, b"", False
            if stat.S_ISREG(status.st_mode) and self.size <= SMALL:
                # Files of procfs have size 0, and some give what they have to the first read only.
                self.data = os.read(self.descriptor, self.size + 1 if self.size else SMALL)
                self.complete = len(self.data) == self.size
        except BaseException:
            os.close(self.descriptor)
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def clone_into(self, descriptor: int) -> bool:
        """Make an empty file share all blocks of this one, where the file system can."""
        if self.size <= SMALL:
            return False
        with contextlib.suppress(OSError):  # whatever is wrong shows again when bytes are moved
            fcntl.ioctl(descriptor, _FICLONE, self.descriptor)
            return True
        return False

    def move_into(self, descriptor: int, given_up: threading.Event, most: int = sys.maxsize) -> int:
        """Write all to a descriptor's offset: how many bytes there were."""
        _check(given_up)
        if self.data:
            write_all(descriptor, self.data)
        if self.complete:
            return self.size
        return len(self.data) + move(self.descriptor, descriptor, given_up, most)


def is_a_directory(path: str) -> IsADirectoryError:
    """The error for a folder where a file should be."""
    return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
