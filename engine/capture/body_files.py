"""Writes decoded bodies into files, or into parts of them. Runs on the loop thread."""

from __future__ import annotations

import logging
from collections.abc import Callable

from engine.capture.outlets import Outlets

HOLD_BYTES = 65_536
"""Decoded bytes of one body kept in memory before they are written."""

HOLD_TOTAL_BYTES = 32 << 20
"""The same over all bodies in progress; past it every piece is written at once."""

_log = logging.getLogger("offpath.capture")


class BodyFile:
    """Writes one body into a file, or into parts of `chunk_bytes` once it turns out to be longer.

    No file is open between calls. After a write error the rest of the body is ignored and what was not yet
    given out is removed.
    """

    __slots__ = ("_failed", "_give", "_held", "_offset", "_outlets", "_part_bytes", "_path", "_split", "given")

    def __init__(self, outlets: Outlets, path: str, give: Callable[[str, int, bool], None]) -> None:
        """`give(path, length, is_partial)` is called for each file once it is whole; dropped by `finish`."""
        self._outlets = outlets
        self._path = path
        self._give: Callable[[str, int, bool], None] | None = give
        self._held = bytearray()
        self._part_bytes = 0
        self._offset = 0
        self._split = False
        self._failed = False
        self.given = False

    def write(self, data: bytes) -> None:
        """Take the next decoded bytes. Raises nothing of the file system."""
        limit = self._outlets.chunk_bytes
        if self._part_bytes + len(data) <= limit and not (self._split or self._failed):
            self._hold(data)
            return
        view = memoryview(data)
        while view and not self._failed:
            if not self._split and self._part_bytes == limit:
                self._begin_split()
                continue
            piece = view[: limit - self._part_bytes]
            view = view[len(piece) :]
            self._hold(piece)
            if self._split and self._part_bytes == limit:
                self._end_part()

    def finish(self) -> None:
        """The body is over: give out the file, or the last part."""
        if not self._split:
            self._deliver(is_partial=False)
        elif self._part_bytes:
            self._deliver(is_partial=True)
        self._give = None  # it refers to its owner, who refers to us: no need to leave that to the collector

    def _hold(self, piece: bytes | memoryview) -> None:
        counts = self._outlets.counts
        size = len(piece)
        self._held += piece
        self._part_bytes += size
        counts.held_bytes += size
        if len(self._held) >= HOLD_BYTES or counts.held_bytes > HOLD_TOTAL_BYTES:
            self._flush()

    def _target(self) -> str:
        return f"{self._path}.{self._offset}.part" if self._split else self._path

    def _begin_split(self) -> None:
        """More came than one file may hold: what there is becomes the first part."""
        self._flush()
        if self._failed:
            return
        try:
            self._outlets.ramfs.rename(self._path, f"{self._path}.0.part")
        except OSError as exc:
            self._fail(exc)
            return
        self._split = True
        self._end_part()

    def _end_part(self) -> None:
        self._deliver(is_partial=True)
        self._offset += self._part_bytes
        self._part_bytes = 0

    def _deliver(self, *, is_partial: bool) -> None:
        self._flush()
        if not self._failed and self._give is not None:
            self.given = True
            self._give(self._target(), self._part_bytes, is_partial)

    def _flush(self) -> None:
        held, self._held = self._held, bytearray()
        self._outlets.counts.held_bytes -= len(held)
        if self._failed or (not held and self._part_bytes):
            return
        try:
            self._outlets.ramfs.append(self._target(), held)
        except OSError as exc:
            self._fail(exc)

    def _fail(self, error: OSError) -> None:
        self._failed = True
        self._outlets.counts.write_errors += 1
        self._outlets.ramfs.discard(self._target())
        _log.warning("%s: cannot write an extracted file: %s", self._target(), error.strerror or error)
