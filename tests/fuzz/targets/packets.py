"""Single packets in the dissector, and whole capture files, before a page that must not be touched."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

from engine.values.config import CaptureLimits
from engine.values.errors import CaptureError
from tests.capture.guard_page import GuardedRoom, load
from tests.capture.packets import enhanced, interface, section, simple
from tests.fuzz import corpus
from tests.fuzz.pieces import pack, unpack
from tests.fuzz.reading import Reader, features

_LINKS = (1, 0, 101, 113, 228, 229, 276, 9, 50, 105, 127, 147)
_ETHERTYPES = (0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8, 0x8847, 0x8848, 0x8863, 0x8864, 0x894F, 0x6558, 0x880B)
_PROTOCOLS = (0, 1, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 60, 112, 132, 135, 137)
_TOKENS = (
    *(struct.pack(">H", each) for each in _ETHERTYPES),
    *(bytes((each,)) for each in _PROTOCOLS),
    *(struct.pack(">H", each) for each in (53, 2152, 4341, 4754, 4789, 4790, 6081, 6635, 8472)),
    b"\x45\0",
    b"\x60\0\0\0",
    b"\x4f",
)


class Dissector:
    """Pieces are packets: a byte for the link type, one for what the snap length cut off, and the captured bytes."""

    tokens = _TOKENS

    def __init__(self) -> None:
        self._room = GuardedRoom()
        self._one = load(self._room.guard)["one"]
        self._time = 0.0

    def seeds(self) -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            found = list(corpus.packets(Path(folder)))
        known = {link: number for number, link in enumerate(_LINKS)}
        pieces = [
            bytes((known[each.frame.link], min(255, each.frame.wire - each.frame.captured))) + each.data[:2_000]
            for each in found
            if each.frame.link in known
        ]
        return [pack([each]) for each in pieces] + [pack(pieces[at : at + 4]) for at in range(0, len(pieces), 4)]

    def execute(self, data: bytes) -> Iterable[object]:
        self._time += 100  # fragments of another input are over
        for piece in unpack(data):
            if len(piece) >= 2:
                link, packet = _LINKS[piece[0] % len(_LINKS)], piece[2:]
                self._room.put(packet)
                verdict, layers = self._one(len(packet), len(packet) + piece[1], link, self._time)
                yield int(verdict), layers

    def close(self) -> None:
        """Nothing to give back."""


class CaptureFiles:
    """Pieces are the file header and the records or blocks of a capture."""

    tokens = (
        b"\x0a\x0d\x0d\x0a",
        b"\x4d\x3c\x2b\x1a",
        b"\xd4\xc3\xb2\xa1",
        b"\xa1\xb2\x3c\x4d",
        b"\x06\0\0\0",
        *_TOKENS,
    )

    def __init__(self) -> None:
        limits = CaptureLimits(fragmented_datagrams=8, fragment_bytes=20_000, tunnels=3, flows=500, streams=20)
        self._reader = Reader(GuardedRoom(), limits)

    def seeds(self) -> list[bytes]:
        seeds = [pack(_records(path.read_bytes())) for path in corpus.CAPTURES if path.suffix == ".pcap"]
        frame = bytes(12) + b"\x08\x06" + bytes(28)
        for order in "<>":
            blocks = [section(order), interface(1, order), enhanced(frame, 5, 0, order), simple(frame, order)]
            options = interface(1, order, 40, struct.pack(order + "HHB3xHHq", 9, 1, 9, 14, 8, 5))
            seeds += [pack(blocks), pack([blocks[0], options, *blocks[2:]])]
        return seeds

    def execute(self, data: bytes) -> Iterable[object]:
        capture = b"".join(unpack(data))
        try:
            found = self._reader.read(capture, step=(1, 3, 1_000)[len(capture) % 3])
        except CaptureError as exc:
            return [exc.args[-1][:20]]
        return [*features(found.stats), *(tuple(each.names) for each in self._reader.frames)]

    def close(self) -> None:
        self._reader.close()


def _records(data: bytes) -> list[bytes]:
    """A pcap file, cut up."""
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    pieces, at = [data[:24]], 24
    while at + 16 <= len(data) and len(pieces) < 40:
        end = at + 16 + struct.unpack_from(order + "I", data, at + 8)[0]
        pieces.append(data[at:end])
        at = end
    return pieces
