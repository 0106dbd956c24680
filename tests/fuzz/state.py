"""What a fuzzing process shows to the one that watches it: memory of a file, which outlives any crash."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.pieces import MOST_BYTES

_HEAD = struct.Struct("<QQQQdQ")
_ROOM = _HEAD.size + MOST_BYTES


class Progress(NamedTuple):
    """How far it got."""

    begun: int
    """Executions begun, and"""
    ended: int
    """ended; of these,"""
    kept: int
    """inputs that showed something new."""
    digest: int
    """Of all inputs up to now."""
    slowest: float
    """Processor seconds of one execution, the most."""
    length: int
    """Bytes of the present input."""


class State:
    """The memory, on either side."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_ROOM))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _ROOM)

    def write(self, progress: Progress) -> None:
        """Show this."""
        _HEAD.pack_into(self._memory, 0, *progress)

    def write_input(self, data: bytes) -> None:
        """Show what is to be executed next."""
        self._memory[_HEAD.size : _HEAD.size + len(data)] = data

    def read(self) -> Progress:
        """What is shown."""
        return Progress(*_HEAD.unpack_from(self._memory))

    def read_input(self) -> bytes:
        """The present input."""
        return self._memory[_HEAD.size : _HEAD.size + self.read().length]

    def close(self) -> None:
        """Unmap it."""
        self._memory.close()
