"""Client hellos in QUIC: datagrams as they are, and frames in packets that are encrypted here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from engine.capture.applications.quic import QuicReader
from engine.capture.applications.tls_prints import ja3, ja4
from engine.pipeline.tls import QUIC_PORTS
from tests.capture.test_quic import HELLO, ID, V2, crypto, initial
from tests.fuzz import corpus
from tests.fuzz.pieces import pack, unpack

_ENCRYPTED, _SECOND_VERSION, _JOINED, _OTHER_ID = 1, 2, 4, 8


class QuicHellos:
    """Pieces: a byte that says how, then frames or a datagram."""

    tokens = (b"\6\0", b"\6\x40\x40", b"\1", b"\2", b"\3", b"\x1c", b"\xc0\0\0\0\1", b"\x80\0", b"\xc0", b"\x7f\xff")

    def seeds(self) -> list[bytes]:
        parts = [crypto(at, HELLO[at : at + 30]) for at in range(0, len(HELLO), 30)]
        encrypted = bytes((_ENCRYPTED,))
        seeds = [
            [encrypted + crypto(0, HELLO)],
            [bytes((_ENCRYPTED | _SECOND_VERSION,)) + crypto(0, HELLO)],
            [encrypted + b"\2\0\0\0\0" + b"".join(parts[::-1])],
            [encrypted + each for each in parts],
            [bytes((_ENCRYPTED | _JOINED,)) + each for each in parts],
            [b"\0" + initial(crypto(0, HELLO))],
            [b"\0" + initial(crypto(0, HELLO[:50])) + initial(crypto(50, HELLO[50:]))],
        ]
        with tempfile.TemporaryDirectory() as folder:
            found = [each.data for each in corpus.datagrams(Path(folder), quic_ports=QUIC_PORTS)]
        return [pack(each) for each in seeds] + [pack([b"\0" + each]) for each in dict.fromkeys(found)]

    def execute(self, data: bytes) -> Iterable[object]:
        reader, seen = QuicReader(), []
        client = reader.open()
        for number, datagram in enumerate(_datagrams(unpack(data))):
            hello = client.datagram(datagram)
            if hello is not None:
                (ja3(hello) + ja4(hello, protocol="q") + hello.server_name).encode()
                seen.append((number, len(hello.extensions), bool(hello.server_name)))
                assert not client.wanted
        stats = reader.stats()
        assert stats.client_hellos == len(seen) <= 1
        assert stats.client_hellos + stats.malformed <= 1
        return [*seen, stats, client.wanted]

    def close(self) -> None:
        """Nothing to give back."""


def _datagrams(pieces: list[bytes]) -> list[bytes]:
    found: list[bytes] = []
    for number, piece in enumerate(pieces):
        flags = piece[0] if piece else 0
        datagram = piece[1:]
        if flags & _ENCRYPTED:
            version = V2 if flags & _SECOND_VERSION else 1
            other = ID if not flags & _OTHER_ID else b"other"
            datagram = initial(piece[1:4_000], count=number, version=version, connection_id=other)
        if flags & _JOINED and found:
            found[-1] += datagram
        else:
            found.append(datagram)
    return found
