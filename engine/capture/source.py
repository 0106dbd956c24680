"""Opens a capture file and maps it into memory. It reads the file header and no record: those are the decoder's."""

from __future__ import annotations

import ctypes
import mmap
import stat
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from engine.capture.compression import HEAD_BYTES, Decompressor, compression_of
from engine.values.errors import CaptureError

PCAP_HEADER_BYTES = 24
_CHUNK = 1 << 18  # bytes read at a time
_PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"
_PCAPNG_ORDERS = (b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d")
_PCAP_MAGICS = {  # first four bytes: byte order, fractions of a second per second
    b"\xd4\xc3\xb2\xa1": ("<", 1_000_000),
    b"\xa1\xb2\xc3\xd4": (">", 1_000_000),
    b"\x4d\x3c\xb2\xa1": ("<", 1_000_000_000),
    b"\xa1\xb2\x3c\x4d": (">", 1_000_000_000),
}


class CaptureFormat(NamedTuple):
    """What a file header says. All but `name` and `records` hold for pcap only: pcapng says them per section."""

    name: str
    """``"pcap"`` or ``"pcapng"``."""
    records: int
    """Offset of the first record or block, in bytes."""
    big_endian: bool = False
    ticks: int = 1_000_000
    """Units of the time stamps per second."""
    link_type: int = 0


class MappedCapture:
    """A capture file in memory, to be read through its address.

    Made by `open_capture`. It must stay open while a decoder reads from it. Of a file that was `shortened` meanwhile no
    more may be read: the kernel ends a process that touches a mapped page which is gone.
    """

    def __init__(self, path: str, mapping: mmap.mmap, fmt: CaptureFormat, *, compressed: str, cut_off: bool) -> None:
        self.path = path
        self.format = fmt
        self.compressed = compressed
        """``"gzip"``, ``"zstd"``, or nothing."""
        self.cut_off = cut_off
        """Whether the compressed stream ended early or broke; what came before is mapped."""
        self.size = len(mapping)
        # The ctypes view is dropped at once: while one lives, the mapping can't be closed.
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        self._mapping: mmap.mmap | None = mapping

    @property
    def closed(self) -> bool:
        """Whether `close` was called; `address` leads nowhere then."""
        return self._mapping is None

    @property
    def shortened(self) -> bool:
        """Whether the file is shorter now than it was when it was mapped; False when closed."""
        return self._mapping is not None and self._mapping.size() < self.size

    def close(self) -> None:
        """Unmap the file. Idempotent."""
        mapping, self._mapping = self._mapping, None
        if mapping is not None:
            mapping.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_capture(path: str | Path) -> bool:
    """Whether the first bytes of a regular file are those of a capture or of what may hold one compressed."""
    try:
        with open_regular(Path(path), str(path)) as file:
            head = file.read(12)
    except (OSError, CaptureError):
        return False
    is_pcapng = head.startswith(_PCAPNG_MAGIC) and head[8:12] in _PCAPNG_ORDERS
    return is_pcapng or head[:4] in _PCAP_MAGICS or bool(compression_of(head))


def open_capture(
    path: str | Path, *, stopped: Callable[[], bool] = lambda: False, name: str | None = None
) -> MappedCapture:
    """Map a pcap or pcapng file, compressed with gzip or zstd or not. Any thread.

    A compressed one is first decompressed, whole, into an unlinked temporary file: that blocks as long as it takes, or
    until `stopped` says so. Raises `CaptureError` when the file can't be read, is empty, or is of no known format.
    """
    name = name or str(path)
    try:
        with open_regular(Path(path), name) as file:
            compressed = compression_of(file.read(HEAD_BYTES))
            file.seek(0)
            if not compressed:
                return _map(name, file, compressed="", cut_off=False)
            with tempfile.TemporaryFile(prefix="offpath-") as plain:
                cut_off = _decompress(name, file, Decompressor(compressed, name), plain, stopped)
                return _map(name, plain, compressed=compressed, cut_off=cut_off)
    except OSError as exc:
        raise CaptureError(name, exc.strerror or str(exc)) from exc


def open_regular(path: Path, name: str) -> BinaryIO:
    """Open a file for reading, but no pipe or device. Raises `CaptureError` or `OSError`."""
    # Asked before opening: to open a pipe would block until somebody writes.
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise CaptureError(name, "is a folder" if stat.S_ISDIR(mode) else "is not a regular file")
    return path.open("rb")


def _decompress(
    name: str, source: BinaryIO, decompressor: Decompressor, target: BinaryIO, stopped: Callable[[], bool]
) -> bool:
    """Write the plain bytes to `target`; returns whether the stream broke before its end."""
    while not decompressor.broken and (chunk := source.read(_CHUNK)):
        for piece in decompressor.feed(chunk):
            if stopped():
                raise CaptureError(name, "was not read: stopped while it was decompressed")
            target.write(piece)
    target.flush()
    return not decompressor.complete


def _map(name: str, file: BinaryIO, *, compressed: str, cut_off: bool) -> MappedCapture:
    file.seek(0)
    fmt = read_format(name, file.read(PCAP_HEADER_BYTES), compressed=compressed)
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return MappedCapture(name, mapping, fmt, compressed=compressed, cut_off=cut_off)


def read_format(name: str, head: bytes, *, compressed: str = "") -> CaptureFormat:
    """What the first bytes of a capture say, of which `PCAP_HEADER_BYTES` are enough. Raises `CaptureError`."""
    if not head:
        raise CaptureError(name, f"the {compressed} stream in it is empty or broken" if compressed else "is empty")
    if head.startswith(_PCAPNG_MAGIC):
        if len(head) < 12 or head[8:12] not in _PCAPNG_ORDERS:
            raise CaptureError(name, "starts like pcapng but has no byte-order mark")
        return CaptureFormat("pcapng", 0)
    known = _PCAP_MAGICS.get(head[:4])
    if known is None:
        raise CaptureError(name, f"is neither pcap nor pcapng, it starts with {head[:4].hex(' ')}")
    if len(head) < PCAP_HEADER_BYTES:
        raise CaptureError(name, f"ends within the pcap file header, after {len(head)} bytes")
    order, ticks = known
    (link_field,) = struct.unpack_from(order + "I", head, 20)
    # The upper bits tell of frame check sequences, which IP lengths cut off anyway.
    return CaptureFormat("pcap", PCAP_HEADER_BYTES, order == ">", ticks, link_field & 0xFFFF)
