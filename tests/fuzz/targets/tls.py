"""TLS handshakes in pieces, all that is said of them, and certificates."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from engine.capture.applications import certificates
from engine.capture.applications.tls import TlsEvent, TlsReader, TlsRecord
from engine.capture.applications.tls_hello import Chain, ClientHello, ServerHello
from engine.capture.applications.tls_prints import ja3, ja3s, ja4
from engine.capture.applications.tls_text import attributes, document, resource
from engine.values.config import CaptureLimits
from engine.values.stats import TlsStats
from tests.capture.tls_talk import CHANGE, CLIENT, RETRY, SERVER, chain_body, message, record
from tests.fuzz import corpus
from tests.fuzz.pieces import pack, unpack

_LIMITS = CaptureLimits(tls_handshake_bytes=6_000, tls_certificates=4)
_TOKENS = (
    b"\x16\3\1", b"\x16\3\3", b"\x14\3\3\0\1\1", b"\x17\3\3", b"\1\0\0", b"\2\0\0", b"\x0b\0\0", b"\0\0\0", b"\0\x10",
    b"\0\x2b", b"\0\x33", b"\x0a\x0a", b"\3\4", b"\x13\1", b"\xc0\x2f", b"\2h2", b"\x30\x82", b"\xa0\3\2\1\2",
    b"\6\3\x55\4\3", b"\6\3\x55\4\x0a", b"\6\3\x55\x1d\x11", b"\x0c\3", b"\x13\3", b"\x17\x0d",
    b"\x18\x0f", b"\x30\x80",
)  # fmt: skip
_FIRST = (b"\x16\3",)


class TlsHandshakes:
    """Pieces: a byte that says which side speaks, or that what follows is lost; then its bytes."""

    tokens = _TOKENS

    def seeds(self) -> list[bytes]:
        chains = _chains()[:1]
        back = RETRY, SERVER, message(11, chain_body(*chains, b"no certificate")), message(14)
        made = [(0, record(CLIENT)), (1, record(b"".join(back[1:]))), (0, CHANGE), (1, CHANGE)]
        retried = [
            (0, record(CLIENT)),
            (1, record(back[0]) + CHANGE),
            (0, CHANGE + record(CLIENT)),
            (1, record(SERVER)),
        ]
        with tempfile.TemporaryDirectory() as folder:
            talks = [made, retried, *corpus.conversations(Path(folder), _FIRST)]
        return [pack(bytes((side,)) + data[:6_000] for side, data in talk) for talk in talks[:200]]

    def execute(self, data: bytes) -> Iterable[object]:
        pieces = [(each[0], each[1:]) for each in unpack(data) if len(each) > 1]
        events, stats = _read(pieces, 1 << 16)
        split, split_stats = _read(pieces, 1 + len(data) % 97)
        assert split == events, "it depends on where segments end"
        assert split_stats == stats
        _check_counts([each for _, each in events], stats)
        return [seen for _, each in events for seen in _tell(each)] + [stats]

    def close(self) -> None:
        """Nothing to give back."""


def _read(pieces: list[tuple[int, bytes]], most: int) -> tuple[list[tuple[int, TlsEvent]], TlsStats]:
    reader = TlsReader(_LIMITS, records=True)
    connection = reader.open()
    events: list[tuple[int, TlsEvent]] = []
    for flags, data in pieces:
        if flags & 2:
            connection.gap(flags & 1, len(data))
            continue
        for at in range(0, len(data), most):
            events += [(flags & 1, each) for each in connection.data(flags & 1, data[at : at + most])]
            if not connection.wanted:
                return events, reader.stats()
    return events, reader.stats()


def _check_counts(events: list[TlsEvent], stats: TlsStats) -> None:
    for kind, number in (
        (ClientHello, stats.client_hellos),
        (ServerHello, stats.server_hellos),
        (Chain, stats.chains),
    ):
        assert sum(isinstance(each, kind) for each in events) == number
    assert stats.cut == sum(isinstance(each, Chain) and not each.whole for each in events)
    assert stats.connections <= 1


def _tell(event: TlsEvent) -> list[object]:
    """What is said of an event, as the pipeline makes it."""
    told = attributes(event)
    if isinstance(event, ClientHello):
        text = ja3(event) + ja4(event) + ja4(event, protocol="q") + event.server_name
        text.encode()
        return [("client", each) for each in event.extensions] + [len(event.alpn), bool(event.server_name)]
    if isinstance(event, ServerHello):
        ja3s(event).encode()
        return [("server", event.cipher.bit_length(), event.is_retry, event.selected_version)]
    if isinstance(event, Chain):
        assert len(event.certificates) <= _LIMITS.tls_certificates
        document(event).encode("utf-8", "backslashreplace")
        named = resource(event)
        assert (named is None) == (not event.certificates)
        return [("chain", len(event.certificates), event.whole, tuple(name for name, _ in told))]
    assert isinstance(event, TlsRecord)
    return [("record", event.data[0], event.data[5:6])]


class Certificates:
    """Each piece is a certificate."""

    tokens = _TOKENS

    def seeds(self) -> list[bytes]:
        return [pack([each]) for each in dict.fromkeys(_chains())]

    def execute(self, data: bytes) -> Iterable[object]:
        seen: list[object] = []
        for der in unpack(data):
            read = certificates.read_certificate(der)
            text = _dump(der)
            text.encode("utf-8", "backslashreplace")
            seen.append((read is not None, tuple(line.partition(":")[0] for line in text.splitlines()[:60])))
            if read is not None:
                seen += [(each.partition(":")[0], "name") for each in read.names]
                seen.append((bool(read.common_name), bool(read.organisation), read.is_self_issued))
        return seen

    def close(self) -> None:
        """Nothing to give back."""


def _dump(der: bytes) -> str:
    if not certificates.HAVE_X509:
        return ""
    from engine.capture.applications.certificate_text import dump

    return dump(der)


def _chains() -> list[bytes]:
    """Certificates of captures. One that is made here would have another key each time."""
    found: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        for talk in corpus.conversations(Path(folder), _FIRST):
            connection = TlsReader(CaptureLimits()).open()
            for side, data in talk:
                for event in connection.data(side, data):
                    found += event.certificates if isinstance(event, Chain) else ()
    return found
