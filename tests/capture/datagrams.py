"""A small packet reader of the tests' own: every UDP datagram of a capture, fragments joined, tunnels looked into."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Datagram(NamedTuple):
    """One UDP datagram, ports in host order."""

    source: int
    target: int
    data: bytes


def datagrams(path: Path) -> Iterator[Datagram]:
    """In the order in which their last fragment was captured. Reads what the shared captures hold, and no more."""
    fragments: dict[bytes, list[tuple[int, bool, bytes]]] = {}
    for link, frame in _frames(path):
        yield from _link(link, frame, fragments)


def _frames(path: Path) -> Iterator[tuple[int, bytes]]:
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    return _pcapng(data) if data[:4] == b"\x0a\x0d\x0d\x0a" else _pcap(data)


def _pcap(data: bytes) -> Iterator[tuple[int, bytes]]:
    order = ">" if data[:2] == b"\xa1\xb2" else "<"
    (link,) = struct.unpack_from(order + "I", data, 20)
    at = 24
    while at + 16 <= len(data):
        (length,) = struct.unpack_from(order + "I", data, at + 8)
        yield link & 0xFFFF, data[at + 16 : at + 16 + length]
        at += 16 + length


def _pcapng(data: bytes) -> Iterator[tuple[int, bytes]]:
    links: list[int] = []
    at = 0
    while at + 12 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind == 1:
            links.append(struct.unpack_from("<H", data, at + 8)[0])
        elif kind == 6:
            index, _, _, length = struct.unpack_from("<IIII", data, at + 8)
            yield links[index], data[at + 28 : at + 28 + length]
        at += size


_Fragments = dict[bytes, list[tuple[int, bool, bytes]]]


def _link(link: int, frame: bytes, fragments: _Fragments) -> Iterator[Datagram]:
    if link == 0:
        yield from _ip(frame[4:], fragments)
    elif link in (12, 101):
        yield from _ip(frame, fragments)
    elif link == 113:
        yield from _ether_type(int.from_bytes(frame[14:16]), frame[16:], fragments)
    elif link == 276:
        yield from _ether_type(int.from_bytes(frame[:2]), frame[20:], fragments)
    else:
        yield from _ether_type(int.from_bytes(frame[12:14]), frame[14:], fragments)


def _ether_type(ether_type: int, data: bytes, fragments: _Fragments) -> Iterator[Datagram]:
    while ether_type in (0x8100, 0x88A8):
        ether_type, data = int.from_bytes(data[2:4]), data[4:]
    if ether_type == 0x8847:
        while data and not data[2] & 1:
            data = data[4:]
        yield from _ip(data[4:], fragments)
    elif ether_type in (0x0800, 0x86DD):
        yield from _ip(data, fragments)


def _ip(data: bytes, fragments: _Fragments) -> Iterator[Datagram]:
    version = data[0] >> 4 if len(data) >= 20 else 0
    if version == 4:
        size, flags = struct.unpack_from(">HxxH", data, 2)
        start = (data[0] & 15) * 4
        key = data[4:6] + data[9:10] + data[12:20]
        yield from _part(data[9], data[start:size], key, (flags & 0x1FFF) * 8, bool(flags & 0x2000), fragments)
    elif version == 6 and len(data) >= 40:
        yield from _extensions(data[6], data[40 : 40 + int.from_bytes(data[4:6])], data[8:40], fragments)


def _extensions(proto: int, data: bytes, key: bytes, fragments: _Fragments) -> Iterator[Datagram]:
    while proto in (0, 43, 60) and len(data) >= 8:
        proto, data = data[0], data[(data[1] + 1) * 8 :]
    if proto == 44 and len(data) >= 8:
        offset = int.from_bytes(data[2:4])
        yield from _part(data[0], data[8:], key + data[4:8], offset & 0xFFF8, bool(offset & 1), fragments)
    else:
        yield from _part(proto, data, key, 0, False, fragments)


def _part(proto: int, data: bytes, key: bytes, offset: int, more: bool, fragments: _Fragments) -> Iterator[Datagram]:
    if more or offset:
        parts = fragments.setdefault(key, [])
        parts.append((offset, more, data))
        parts.sort()
        whole = b""
        for start, _, piece in parts:
            if start != len(whole):
                return
            whole += piece
        if parts[-1][1]:
            return
        data = whole
        del fragments[key]
    if proto == 17 and len(data) >= 8:
        source, target, length = struct.unpack_from(">HHH", data)
        yield Datagram(source, target, data[8:length])
    elif proto == 47 and data[2:4] in (b"\x08\x00", b"\x86\xdd"):
        yield from _ip(data[4 * (1 + (data[0] >> 7) + (data[0] >> 5 & 1) + (data[0] >> 4 & 1)) :], fragments)
    elif proto in (4, 41):
        yield from _ip(data, fragments)
