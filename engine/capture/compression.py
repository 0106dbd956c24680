"""Compressed captures: gzip and zstd, known by their first bytes and undone a piece at a time. Any thread."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator
from types import ModuleType
from typing import Any

from engine.values.errors import CaptureError

HEAD_BYTES = 4
"""How many bytes tell of the compression."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPED = b"\x2a\x4d\x18"  # bytes 1 to 3 of a frame that says something else
_PIECE = 1 << 18  # bytes that one step of zlib gives at most
_ZSTD_SLICE = 1 << 10  # bytes given to zstd at a time: a run of 128 KiB may be packed into 4 of them


def compression_of(head: bytes) -> str:
    """``"gzip"``, ``"zstd"``, or nothing for what is not compressed."""
    if head[:2] == _GZIP_MAGIC:
        return "gzip"
    skipped = len(head) >= 4 and 0x50 <= head[0] <= 0x5F and head[1:4] == _ZSTD_SKIPPED
    return "zstd" if head[:4] == _ZSTD_MAGIC or skipped else ""


class Decompressor:
    """Undoes one compressed stream of any number of frames. What is broken ends it; what came before counts."""

    def __init__(self, kind: str, name: str) -> None:
        """`kind` is what `compression_of` said. Raises `CaptureError` when the library for it is not installed."""
        self.kind = kind
        self.broken = False
        """Whether a frame broke, or something else than a frame followed one."""
        self._frame: Any = None
        if kind == "gzip":
            self._make: Callable[[], Any] = lambda: zlib.decompressobj(31)
            self._run, self._error, self._padding = _run_zlib, zlib.error, b"\0"
        else:
            library = _zstandard(name)
            self._make = lambda: library.ZstdDecompressor().decompressobj()
            self._run, self._error, self._padding = _run_zstd, library.ZstdError, b""

    @property
    def complete(self) -> bool:
        """Whether the stream may end here."""
        return not self.broken and self._frame is None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give more of the stream; the plain bytes of it, in pieces."""
        while not self.broken:
            if self._frame is None:
                data = data.lstrip(self._padding) if self._padding else data
                if not data:
                    return
                self._frame = self._make()
            try:
                data = yield from self._run(self._frame, data)
            except self._error:
                self.broken = True
                return
            if not self._frame.eof:
                return
            self._frame = None


# Each gives the plain bytes of a frame, and returns what follows the frame if it ends.


def _run_zlib(frame: Any, data: bytes) -> Generator[bytes, None, bytes]:
    while not frame.eof:
        piece = frame.decompress(data, _PIECE)
        data = frame.unconsumed_tail
        if piece:
            yield piece
        if not data and len(piece) < _PIECE:
            break
    return bytes(frame.unused_data)


def _run_zstd(frame: Any, data: bytes) -> Generator[bytes, None, bytes]:
    for at in range(0, len(data), _ZSTD_SLICE):
        piece = frame.decompress(data[at : at + _ZSTD_SLICE])
        if piece:
            yield piece
        if frame.eof:
            return bytes(frame.unused_data or b"") + data[at + _ZSTD_SLICE :]
    return b""


def _zstandard(name: str) -> ModuleType:
    try:
        import zstandard
    except ImportError as exc:
        raise CaptureError(
            name, "is compressed with zstd, which needs another library: pip install 'offpath[zstd]'"
        ) from exc
    return zstandard
