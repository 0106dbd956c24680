"""DNS messages, one by one and as a stream, and the texts that are made of them."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

from engine.capture.applications.dns import DNS_PORTS, DnsMessage, DnsReader, DnsStream
from engine.capture.applications.dns_text import document, resource
from engine.values.config import CaptureLimits
from tests.fuzz import corpus
from tests.fuzz.pieces import pack, unpack

_LIMITS = CaptureLimits(dns_questions=4, dns_answers=40)
_TYPES = (1, 2, 5, 6, 12, 13, 15, 16, 28, 33, 35, 39, 43, 44, 46, 48, 52, 55, 59, 60, 64, 65, 99, 257, 41, 47, 250, 255)
_HEAD = struct.pack(">HHHHHH", 7, 0x8180, 0, 1, 0, 0)


class DnsMessages:
    """Each piece is a message."""

    tokens = (
        b"\xc0\x0c",
        b"\xc0\0",
        b"\x3f",
        b"\0\1\0\1",
        b"\3www",
        b"\x84",
        *(struct.pack(">H", each) for each in _TYPES),
    )

    def seeds(self) -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            found = [each.data for each in corpus.datagrams(Path(folder), udp_ports=DNS_PORTS)]
        found = list(dict.fromkeys(found))[:1_000]
        for rdtype in _TYPES:
            for body in (
                b"\0\1\3abc\0",
                b"\1\1\1" + bytes(20),
                bytes(4),
                b"\3\1x\1a\5hello\xc0\x0c",
                b"\0\1\0\0\1\0\2h2",
            ):
                found.append(_HEAD + b"\1a\0" + struct.pack(">HHIH", rdtype, 1, 9, len(body)) + body)
        return [pack(found[at : at + 3]) for at in range(0, len(found), 3)]

    def execute(self, data: bytes) -> Iterable[object]:
        reader, pieces = DnsReader(_LIMITS), unpack(data)
        seen: list[object] = []
        messages = [reader.datagram(each) for each in pieces]
        for message in messages:
            seen += _texts(message)
        stats = reader.stats()
        read = [each for each in messages if each is not None]
        assert stats.queries + stats.responses == len(read)
        assert stats.responses == sum(each.is_response for each in read)
        assert len(pieces) - len(read) <= stats.malformed <= len(pieces)
        _check_stream(pieces, messages)
        return [*seen, stats.cut > 0, (stats.malformed, len(read), len(pieces))]

    def close(self) -> None:
        """Nothing to give back."""


def _texts(message: DnsMessage | None) -> list[object]:
    if message is None:
        return ["none"]
    assert len(message.questions) <= _LIMITS.dns_questions
    assert len(message.answers) <= _LIMITS.dns_answers
    assert message.whole or message.truncated or len(message.answers) <= message.answer_count
    document(message).encode("utf-8")
    named = resource(message)
    if named is not None:
        "".join(named).encode("utf-8")
    kinds = [(each.type, each.data.startswith("\\#"), len(each.data).bit_length()) for each in message.answers]
    return [*kinds, *((each.type, "?") for each in message.questions), (message.whole, message.is_response)]


def _check_stream(pieces: list[bytes], messages: list[DnsMessage | None]) -> None:
    """The same messages through a stream, which gives up behind the first that is none."""
    framed = b"".join(len(each).to_bytes(2) + each for each in pieces)
    readable = messages[: messages.index(None)] if None in messages else messages
    step = 1 + len(framed) % 50
    for size in (len(framed) or 1, step):
        stream, found = DnsStream(DnsReader(_LIMITS)), []
        for at in range(0, len(framed), size):
            found += stream.data(framed[at : at + size])
        assert found == readable
        assert stream.wanted == (None not in messages)
    broken = DnsStream(DnsReader(_LIMITS))
    for at, piece in enumerate(pieces):
        broken.data(piece)
        if at % 3 == 2:
            broken.gap(1 + len(piece))
