"""Several readers of TCP streams as one. Loop thread only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class StreamReader(Protocol):
    """What streams are read into."""

    def open(self, stream: int, flow: bytes, roles_known: bool, time: float) -> None: ...
    def data(self, stream: int, direction: int, position: int, time: float, data: bytes) -> bool: ...
    def gap(self, stream: int, direction: int, position: int, length: int, time: float) -> None: ...
    def end(self, stream: int, time: float, *, over: int) -> None: ...


class StreamReaders:
    """Gives each stream to all readers; a reader that wants no more of it hears no more of it."""

    def __init__(self, readers: Sequence[StreamReader]) -> None:
        self._readers = readers
        self._wanting: dict[int, list[StreamReader]] = {}

    def open(self, stream: int, flow: bytes, roles_known: bool, time: float) -> None:
        """A stream begins."""
        self._wanting[stream] = list(self._readers)
        for reader in self._readers:
            reader.open(stream, flow, roles_known, time)

    def data(self, stream: int, direction: int, position: int, time: float, data: bytes) -> bool:
        """Bytes of a stream; whether some reader wants more of it."""
        readers = self._wanting.get(stream, [])
        still = [reader for reader in readers if reader.data(stream, direction, position, time, data)]
        if still:
            self._wanting[stream] = still
        else:
            self._wanting.pop(stream, None)
        return bool(still)

    def gap(self, stream: int, direction: int, position: int, length: int, time: float) -> None:
        """Bytes of a stream that are missing."""
        for reader in self._wanting.get(stream, ()):
            reader.gap(stream, direction, position, length, time)

    def end(self, stream: int, time: float, *, over: int) -> None:
        """A stream has ended."""
        for reader in self._wanting.pop(stream, ()):
            reader.end(stream, time, over=over)
