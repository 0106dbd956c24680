"""A plain file whose copy waits until a test lets it go, inside the copier's call into Lua."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from engine.offload import copier


class SlowSource:
    """Holds a lease on a file, for which open(2) waits when it is not told to come back at once."""

    def __init__(self, path: Path, data: bytes = b"slow") -> None:
        self.path = path
        path.write_bytes(data)
        self._descriptor = os.open(path, os.O_RDWR)
        self._lease(fcntl.F_WRLCK)

    def _lease(self, kind: int) -> None:
        fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, kind)

    def is_entered(self) -> bool:
        """Whether somebody waits to open it."""
        return fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) != fcntl.F_WRLCK

    def release(self) -> None:
        """Let go of it; again is no harm."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


MakeSlow = Callable[..., SlowSource]


@contextmanager
def making_slow_sources(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeSlow]:
    """Makes slow sources, of given names, for copiers that are made meanwhile."""
    monkeypatch.setattr(copier, "_FLAGS", os.O_CLOEXEC)  # without O_NONBLOCK
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # tells the holder of a lease that somebody waits
    made: list[SlowSource] = []

    def make(name: str = "slow") -> SlowSource:
        try:
            made.append(SlowSource(folder / name))
        except OSError as exc:
            if exc.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES):
                pytest.skip("no leases on files here")
            raise
        return made[-1]

    yield make
    for each in made:
        with suppress(OSError):
            each.release()
    signal.signal(signal.SIGIO, before)
