"""Fragments of datagrams whose bytes tell their place: what is put together must be what was sent."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from engine.values.config import CaptureLimits
from tests.capture.frames import Seen
from tests.capture.guard_page import GuardedRoom
from tests.capture.packets import Record, ethernet, ip, pcap
from tests.fuzz.pieces import pack, unpack
from tests.fuzz.reading import Reader, features
from tests.fuzz.targets.tcp import content

_PIECE = struct.Struct(">BBHHB")
_LONGEST = 9_000
_EXPERIMENT = 253
"""An IP protocol that nobody dissects."""


def fragment(
    offset: int, length: int, *, more: bool = True, ident: int = 0, six: bool = False, delta: int = 0, cut: int = 0
) -> bytes:
    """A piece: eighths of the offset, the length, and seconds since the last one."""
    return _PIECE.pack(six << 7 | more << 6 | ident, delta, offset // 8, length, cut)


class Fragments:
    """Each piece is a fragment."""

    tokens = (b"\0\0", b"\x1f\xff", b"\x3f", b"\x40", b"\x80", b"\xc0", b"\0\x08", b"\x05\xc8")

    def __init__(self) -> None:
        room = GuardedRoom()
        tight = CaptureLimits(fragmented_datagrams=2, fragment_bytes=5_000)
        self._readers = [Reader(room, each) for each in (CaptureLimits(), tight)]

    def seeds(self) -> list[bytes]:
        seeds = []
        for six in (False, True):
            for size, total in ((8, 40), (504, 3_000), (1_480, 9_000)):
                cut = [
                    fragment(at, min(size, total - at), more=at + size < total, six=six) for at in range(0, total, size)
                ]
                other = [each[:1] + b"\1" + each[2:] for each in cut]
                mixed = [each for both in zip(cut, other, strict=True) for each in both]
                seeds += [pack(each) for each in (cut, cut[::-1], cut + cut, mixed, cut[:-1], [*cut[1:], cut[0]])]
        return seeds

    def execute(self, data: bytes) -> Iterable[object]:
        pieces = [_PIECE.unpack(each) for each in unpack(data) if len(each) == _PIECE.size]
        reader = self._readers[len(pieces) & 1]
        found = reader.read(pcap(_packets(pieces, reader.now)))
        assert found.stats.datagrams == sum(each.frame.reassembled for each in reader.frames)
        for each in reader.frames:
            _check_content(each)
        return features(found.stats)

    def close(self) -> None:
        for each in self._readers:
            each.close()


def _packets(pieces: list[tuple[int, ...]], now: float) -> list[Record]:
    records: list[Record] = []
    for flags, delta, offset, length, cut in pieces:
        now += delta & 0x3F
        offset &= 0x1FFF
        packet = (_six if flags & 0x80 else _four)(flags & 3, flags >> 6 & 1, offset, length % _LONGEST)
        records.append((now, packet[: len(packet) - cut], len(packet)))
    return records


def _four(ident: int, more: int, offset: int, length: int) -> bytes:
    data = content(8 * offset, length)
    return ethernet(ip("10.0.0.1", "10.0.0.2", _EXPERIMENT, data, fragment=more << 13 | offset, ident=ident))


def _six(ident: int, more: int, offset: int, length: int) -> bytes:
    head = struct.pack(">BBHI", _EXPERIMENT, 0, offset << 3 | more, ident)
    packet = ip("fd00::1", "fd00::2", 44, head + content(8 * offset, length))
    assert packet[8:24] == socket.inet_pton(socket.AF_INET6, "fd00::1")
    return ethernet(packet)


def _check_content(seen: Seen) -> None:
    if seen.frame.reassembled:
        _, offset, length = seen.layers[-1]
        datagram = seen.data[offset + length :]
        assert datagram == content(0, len(datagram)), "these bytes were not sent there"
