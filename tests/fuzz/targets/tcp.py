"""TCP streams, of segments whose bytes tell their sequence number: what comes out in order must be what was sent."""

from __future__ import annotations

import random
import struct
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from engine.capture.batches import EventKind
from engine.values.config import CaptureLimits
from tests.capture.frames import FrameReader
from tests.capture.guard_page import GuardedRoom
from tests.capture.packets import ACK, FIN, SYN, Decoded, Record, pcap, tcp
from tests.fuzz import corpus
from tests.fuzz.pieces import pack, unpack
from tests.fuzz.reading import Reader, features

_SEGMENT = struct.Struct(">BBHIIHB")
_LONGEST = 3_000
_SERVER = ("10.0.0.2", 80)
_BYTES = random.Random(1).randbytes(1 << 16)
_TWICE = _BYTES * 2
"""The byte with sequence number n is that at n modulo 65,536."""


def content(seq: int, length: int) -> bytes:
    """What is sent with a sequence number."""
    at = seq & 0xFFFF
    return _TWICE[at : at + length]


def segment(
    seq: int, length: int, flags: int = ACK, *, ack: int = 0, delta: int = 1, talk: int = 0, side: int = 0, cut: int = 0
) -> bytes:
    """A piece: of which connection and direction, how many hundredths of a second after the last one, and so on."""
    return _SEGMENT.pack(talk << 1 | side, flags, delta, seq % 2**32, ack % 2**32, length, cut)


class TcpStreams:
    """Each piece is a segment."""

    tokens = (b"\0\0\0\1", b"\0\2", b"\0\x10", b"\0\x11", b"\0\x12", b"\0\x04", b"\xff\xff\xff\xff", b"\x80\0\0\0")

    def __init__(self) -> None:
        tight = CaptureLimits(out_of_order_bytes=4_000, out_of_order_bytes_total=9_000, streams=3, flows=1_000)
        room = GuardedRoom()
        self._readers = [[Reader(room, each, frames=False) for _ in range(2)] for each in (CaptureLimits(), tight)]

    def seeds(self) -> list[bytes]:
        opening = [
            segment(99, 0, SYN),
            segment(499, 0, SYN | ACK, ack=100, side=1),
            segment(100, 0, ACK, ack=500),
        ]
        data = [segment(100 + at, 100, ACK, ack=500) for at in range(0, 1_000, 100)]
        ends = [segment(1_100, 0, FIN | ACK, ack=500), segment(500, 0, FIN | ACK, ack=1_101, side=1)]
        late = [segment(100, 10), segment(200, 10, delta=500), segment(300, 10, delta=40_000)]
        shuffled = random.Random(2).sample(data, len(data))
        lists = [opening + data + ends, opening + shuffled + ends, data, shuffled, opening + data[::-1], late]
        with tempfile.TemporaryDirectory() as folder:
            return [pack(each) for each in lists] + _captured(Path(folder))

    def execute(self, data: bytes) -> Iterable[object]:
        pieces = [_SEGMENT.unpack(each) for each in unpack(data) if len(each) == _SEGMENT.size]
        one, other = self._readers[len(pieces) & 1]
        capture = pcap(_packets(pieces, one.now))
        found, stepwise = one.read(capture), other.read(capture, step=1)
        _check_content(found, pieces)
        assert _shape(found) == _shape(stepwise), "events depend on how many packets a step reads"
        talk = tuple(kind for events in found.told.values() for kind, _, _ in events)
        return [*features(found.stats), talk[:12]]

    def close(self) -> None:
        for one, other in self._readers:
            one.close()
            other.close()


def _packets(pieces: list[tuple[int, ...]], now: float) -> list[Record]:
    records: list[Record] = []
    for where, flags, delta, seq, ack, length, cut in pieces:
        now += delta / 100
        ends = (("10.0.0.1", 40_000 + (where >> 1 & 3)), _SERVER)
        source, target = ends[:: -1 if where & 1 else 1]
        packet = tcp(source, target, seq, content(seq + bool(flags & SYN), length % _LONGEST), flags, ack)
        records.append((now, packet[: max(0, len(packet) - cut)], len(packet)))
    return records


def _shape(found: Decoded) -> list[list[tuple[object, ...]]]:
    """What was told of each stream, in order. Bytes that follow on each other in one step are one event."""
    shapes = []
    for events in found.told.values():
        shape: list[tuple[object, ...]] = []
        for (kind, side), told in groupby(events, key=lambda each: each[:2]):
            parts = [part for _, _, part in told]
            shape.append((kind, side, b"".join(parts) if kind == EventKind.DATA.name else sum(parts)))
        shapes.append(shape)
    return shapes


def _check_content(found: Decoded, pieces: list[tuple[int, ...]]) -> None:
    starts = {number & 0xFFFF for each in pieces for number in (each[3], each[3] + 1, each[4])}
    data: dict[tuple[int, int], list[tuple[int, bytes]]] = defaultdict(list)
    for each in found.events:
        if each.kind == EventKind.DATA:
            data[each.stream, each.direction].append((each.position, each.data))
    for key, parts in data.items():
        at_home = any(all(content(start + at, len(part)) == part for at, part in parts) for start in starts)
        assert at_home, f"stream {key[0]}, direction {key[1]}: these bytes were not sent there"


def _captured(folder: Path) -> list[bytes]:
    """The segments of captures, with other contents."""
    reader, seeds = FrameReader(), []
    for path in corpus.captures(folder):
        if path.stat().st_size > corpus.SHORT:
            continue
        first: dict[tuple[int, bool], int] = {}
        pieces = []
        for seen in reader.read(path):
            frame = seen.frame
            if frame.has_tcp:
                side = bytes(frame.ip[:16]) > bytes(frame.ip[16:])
                seq = frame.seq - first.setdefault((frame.row, side), frame.seq)
                ack = frame.ack - first.get((frame.row, not side), frame.ack)
                length = min(frame.payload_length, _LONGEST - 1)
                pieces.append(segment(seq, length, frame.flags, ack=ack, talk=frame.row & 3, side=side))
        seeds += [pack(pieces[at : at + 40]) for at in range(0, min(len(pieces), 160), 40)]
    reader.close()
    return seeds
