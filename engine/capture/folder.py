"""Which captures a list of files and folders stands for, in which order. Blocks: not for the loop's thread."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from engine.capture.compression import HEAD_BYTES, Decompressor, compression_of
from engine.capture.source import PCAP_HEADER_BYTES, CaptureFormat, open_regular, read_format
from engine.values.errors import CaptureError

_LOOKED_AT = 1 << 20  # plain bytes of a file within which its first packet is looked for
_CHUNK = 1 << 16
_INTERFACE, _SIMPLE, _ENHANCED, _SECTION = 1, 3, 6, 0x0A0D0D0A


class Found(NamedTuple):
    """A capture file, and the time of its first packet in seconds; None when no packet was found near its start."""

    path: Path
    first: float | None


class Findings(NamedTuple):
    """Captures in time order, and for each file that is none, why not."""

    captures: list[Found]
    skipped: list[CaptureError]


def find_captures(paths: Iterable[str | Path], stopped: Callable[[], bool] = lambda: False) -> Findings:
    """Look at the start of each file. Raises `CaptureError` for a named file that is no capture, or an empty folder."""
    found: list[Found] = []
    skipped: list[CaptureError] = []
    for named in map(Path, paths):
        if not named.is_dir():
            found.append(_look_at(named))
            continue
        before = len(found)
        for path in _files_of(named):
            if stopped():
                raise CaptureError(str(named), "was not read: stopped while looking at its files")
            try:
                found.append(_look_at(path))
            except CaptureError as exc:
                skipped.append(exc)
        if len(found) == before:
            raise CaptureError(str(named), "is a folder without captures")
    found.sort(key=lambda each: (each.first is None, each.first or 0.0, _natural(each.path)))
    return Findings(found, skipped)


def _files_of(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=_natural)
    except OSError as exc:
        raise CaptureError(str(folder), exc.strerror or str(exc)) from exc


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """A key by which ``x.pcap2`` comes before ``x.pcap10``."""
    parts = re.findall(r"(\d+)|(\D+)", path.name)
    return [(int(digits or 0), rest) for digits, rest in parts], str(path)


def _look_at(path: Path) -> Found:
    try:
        head, compressed = _head(path)
    except OSError as exc:
        raise CaptureError(str(path), exc.strerror or str(exc)) from exc
    fmt = read_format(str(path), head[:PCAP_HEADER_BYTES], compressed=compressed)
    return Found(path, first_packet_time(fmt, head))


def _head(path: Path) -> tuple[bytes, str]:
    with open_regular(path, str(path)) as file:
        head = file.read(HEAD_BYTES)
        compressed = compression_of(head)
        if not compressed:
            return head + file.read(_LOOKED_AT), ""
        plain = bytearray()
        decompressor = Decompressor(compressed, str(path))
        chunk = head
        while chunk and len(plain) < _LOOKED_AT and not decompressor.broken:
            for piece in decompressor.feed(chunk):
                plain += piece[:_LOOKED_AT]
                if len(plain) >= _LOOKED_AT:
                    break
            chunk = file.read(_CHUNK)
        return bytes(plain[:_LOOKED_AT]), compressed


def first_packet_time(fmt: CaptureFormat, head: bytes) -> float | None:
    """Time of the first packet, if it begins within these first bytes of a capture."""
    if fmt.name == "pcapng":
        return next(_block_times(head), None)
    if len(head) < fmt.records + 16:
        return None
    seconds, fraction = struct.unpack_from(">II" if fmt.big_endian else "<II", head, fmt.records)
    return float(seconds + fraction / fmt.ticks)


def _block_times(head: bytes) -> Iterator[float]:
    """Times of the enhanced packets; a simple one has none."""
    order, at = "<", 0
    interfaces: list[tuple[float, float]] = []
    while at + 12 <= len(head):
        if head[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            order = ">" if head[at + 8 : at + 12] == b"\x1a\x2b\x3c\x4d" else "<"
            interfaces.clear()
        kind, length = struct.unpack_from(order + "II", head, at)
        if length < 12 or length % 4:
            return
        body = head[at + 8 : at + length - 4]
        if kind == _INTERFACE:
            interfaces.append(_units(body, order))
        elif kind == _ENHANCED and len(body) >= 12:
            index, high, low = struct.unpack_from(order + "III", body)
            if index < len(interfaces):
                ticks, shift = interfaces[index]
                yield ((high << 32) + low) / ticks + shift
        at += length


def _units(body: bytes, order: str) -> tuple[float, float]:
    """Ticks per second and the offset of an interface's times, as its options say."""
    ticks, shift, at = 1e6, 0.0, 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == 0 or len(value) < length:
            break
        if code == 9 and length == 1:
            ticks = 10.0 ** (value[0] & 0x7F) if value[0] < 0x80 else 2.0 ** (value[0] & 0x7F)
        elif code == 14 and length == 8:
            shift = float(struct.unpack(order + "q", value)[0])
        at += 4 + (length + 3 & ~3)
    return ticks, shift
