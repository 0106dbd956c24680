"""Chunked transfer coding, read as it arrives (RFC 9112 7.1). Knows nothing of messages around the body."""

from __future__ import annotations

import re
from enum import Enum

MAX_LINE_BYTES = 8_192
"""Longest chunk-size line with its extensions."""
MAX_TRAILER_BYTES = 65_536
"""All trailer fields together."""

_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;|\Z)")


class _State(Enum):
    SIZE = 0  # in the line that says how long the chunk is
    DATA = 1
    AFTER = 2  # at the line end behind the chunk's data
    TRAILER = 3  # behind the chunk of size 0
    DONE = 4
    BROKEN = 5


class ChunkedDecoder:
    """Takes the bytes of one chunked body in any pieces and says exactly where it ends. Raises nothing.

    Tolerant of bare LF and of blanks around the size. SIZE -> DATA -> AFTER -> SIZE, and SIZE -> TRAILER -> DONE;
    every state but DONE may become BROKEN, and both of these are final.
    """

    __slots__ = ("_line", "_remaining", "_state", "_trailer_bytes")

    def __init__(self) -> None:
        self._state = _State.SIZE
        self._line = b""
        self._remaining = 0
        self._trailer_bytes = 0

    @property
    def done(self) -> bool:
        """The body and its trailers have been read."""
        return self._state is _State.DONE

    @property
    def broken(self) -> bool:
        """What came is not chunked coding; where the body ends is unknown."""
        return self._state is _State.BROKEN

    @property
    def has_all_data(self) -> bool:
        """Every byte of the body was seen, though perhaps not the trailers behind it."""
        return self._state is _State.DONE or self._state is _State.TRAILER

    def feed(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Read on at `position`, append what is body to `pieces`; returns the position behind the last byte used.

        That is `len(data)` unless the body ended or broke before.
        """
        size = len(data)
        while position < size:
            state = self._state
            if state is _State.DATA:
                end = min(size, position + self._remaining)
                pieces.append(data if end - position == size else data[position:end])
                self._take(end - position)
                position = end
            elif state is _State.SIZE or state is _State.TRAILER:
                position = self._read_line(data, position)
            elif state is _State.AFTER:
                position = self._read_line_end(data, position)
            else:
                break
        return position

    def skip(self, length: int) -> bool:
        """`length` bytes are missing here. True when all are data of the current chunk, else nothing changes."""
        if self._state is not _State.DATA or length > self._remaining:
            return False
        self._take(length)
        return True

    def _take(self, length: int) -> None:
        self._remaining -= length
        if not self._remaining:
            self._state = _State.AFTER

    def _read_line(self, data: bytes, position: int) -> int:
        newline = data.find(b"\n", position, position + MAX_LINE_BYTES)
        end = len(data) if newline < 0 else newline
        if end - position + len(self._line) > MAX_LINE_BYTES:
            self._state = _State.BROKEN
            return position
        self._line += data[position:end]
        if newline < 0:
            return end
        line, self._line = self._line.removesuffix(b"\r"), b""
        if self._state is _State.SIZE:
            self._begin_chunk(line)
        else:
            self._end_trailer_line(line)
        return newline + 1

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE.match(line)
        if match is None:
            self._state = _State.BROKEN
            return
        self._remaining = int(match[1], 16)
        self._state = _State.DATA if self._remaining else _State.TRAILER

    def _end_trailer_line(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 1
        if not line:
            self._state = _State.DONE
        elif self._trailer_bytes > MAX_TRAILER_BYTES:
            self._state = _State.BROKEN

    def _read_line_end(self, data: bytes, position: int) -> int:
        byte = data[position]
        if byte == 10:
            self._line = b""
            self._state = _State.SIZE
        elif byte == 13 and not self._line:
            self._line = b"\r"
        else:
            self._state = _State.BROKEN
            return position
        return position + 1
