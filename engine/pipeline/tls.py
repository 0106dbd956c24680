"""TLS handshakes, over TCP and in QUIC: to attributes, records, resources and documents. Loop thread only."""

from __future__ import annotations

from dataclasses import dataclass

from engine.capture.applications.certificates import Certificate, read_certificate, sha1
from engine.capture.applications.quic import QuicClient, QuicReader
from engine.capture.applications.tls import TlsConnection, TlsEvent, TlsReader
from engine.capture.applications.tls_hello import Chain, ClientHello, ServerHello
from engine.capture.applications.tls_prints import ja3, ja3s, ja4, md5
from engine.capture.applications.tls_text import READ_BYTES, attributes, document, resource
from engine.capture.batches import Datagram
from engine.pipeline.findings import Findings
from engine.values.groups import SSL_CERTS, SSL_DOCUMENTS
from engine.values.records import Tls

QUIC_PORTS = frozenset({443})
_QUIC_CLIENTS = 4_096  # flows whose handshake may be under way; past it the oldest is forgotten


@dataclass(slots=True)
class _Talk:
    connection: TlsConnection
    flow: bytes
    time: float
    """Of its first hello, when there was one."""
    client: ClientHello | None = None
    client_side: int = 0
    server: ServerHello | None = None
    chain: Chain | None = None
    """The server's."""


class TlsFinder:
    """Takes all streams, and leaves those that do not begin like TLS, and others once they are encrypted."""

    hears_end = False

    def __init__(self, reader: TlsReader, findings: Findings) -> None:
        self._reader = reader
        self._findings = findings
        self._talks: dict[int, _Talk] = {}
        wants = findings.wants
        self._only_attributes = not (wants.tls or wants.documents or SSL_CERTS in wants.resources)

    def open(self, stream: int, flow: bytes, roles_known: bool, time: float) -> bool:
        """A connection began."""
        del roles_known
        if self._only_attributes and not self._findings.attributes.wanted_of(flow):
            return False
        self._talks[stream] = _Talk(self._reader.open(), flow, time)
        return True

    def data(self, stream: int, direction: int, position: int, time: float, data: bytes) -> bool:
        """The next bytes."""
        del position
        talk = self._talks[stream]
        for event in talk.connection.data(direction, data):
            self._found(talk, event, direction, time)
        if talk.connection.wanted:
            return True
        self._over(stream)
        return False

    def gap(self, stream: int, direction: int, position: int, length: int, time: float) -> None:
        """The next bytes were not captured."""
        del position, time
        self._talks[stream].connection.gap(direction, length)

    def end(self, stream: int, time: float, *, over: int) -> None:
        """The connection is over."""
        del time, over
        self._over(stream)

    def close(self) -> None:
        """No event follows: what was seen of handshakes is told."""
        for stream in tuple(self._talks):
            self._over(stream)

    def _found(self, talk: _Talk, event: TlsEvent, direction: int, time: float) -> None:
        told = self._findings.attributes
        if told.wanted_of(talk.flow):
            for name, value in attributes(event):
                told.tell(time, talk.flow, name.encode(), value)
        if isinstance(event, ClientHello):
            if talk.client is None:
                talk.client, talk.client_side, talk.time = event, direction, time
        elif isinstance(event, ServerHello):
            talk.server = talk.server if event.is_retry else event
        elif isinstance(event, Chain):
            self._found_chain(talk, event, direction, time)

    def _found_chain(self, talk: _Talk, chain: Chain, direction: int, time: float) -> None:
        wants = self._findings.wants
        if talk.chain is None and (talk.client is None or direction != talk.client_side):
            talk.chain = chain
        if SSL_CERTS in wants.resources and (named := resource(chain)) is not None:
            self._findings.resource(SSL_CERTS, talk.flow, *named, time)
        if wants.documents and chain.certificates:
            self._findings.document(SSL_DOCUMENTS, talk.flow, document(chain), time)

    def _over(self, stream: int) -> None:
        talk = self._talks.pop(stream)
        if self._findings.wants.tls and (talk.client or talk.server or talk.chain):
            self._findings.publish(_record(talk.flow, "tcp", talk.client, talk.server, talk.chain, talk.time))


class QuicFinder:
    """Takes datagrams that clients send, until their hello has come."""

    def __init__(self, reader: QuicReader, findings: Findings) -> None:
        self._reader = reader
        self._findings = findings
        self._clients: dict[bytes, QuicClient] = {}

    def datagram(self, datagram: Datagram) -> None:
        """A datagram that may be of a handshake, to one of `QUIC_PORTS`."""
        flow = datagram.flow
        client = self._clients.get(flow)
        if client is None:
            if len(self._clients) == _QUIC_CLIENTS:
                del self._clients[next(iter(self._clients))]
            client = self._clients[flow] = self._reader.open()
        hello = client.datagram(datagram.data)
        if hello is not None:
            self._findings.publish(_record(flow, "quic", hello, None, None, datagram.time))


def _record(
    flow: bytes,
    transport: str,
    client: ClientHello | None,
    server: ServerHello | None,
    chain: Chain | None,
    time: float,
) -> Tls:
    first = chain.certificates[0] if chain and chain.certificates else b""
    certificate: Certificate | None = read_certificate(first) if 0 < len(first) <= READ_BYTES else None
    return Tls(
        flow=flow.decode(),
        transport=transport,
        sni=client.server_name if client else "",
        alpn=tuple(each.decode("utf-8", "backslashreplace") for each in client.alpn) if client else (),
        versions=tuple(f"{each:04x}" for each in client.versions or (client.version,)) if client else (),
        version=f"{server.selected_version:04x}" if server else "",
        cipher=f"{server.cipher:04x}" if server else "",
        ja3=md5(ja3(client)) if client else "",
        ja3s=md5(ja3s(server)) if server else "",
        ja4=ja4(client, protocol="q" if transport == "quic" else "t") if client else "",
        subject=certificate.subject if certificate else "",
        issuer=certificate.issuer if certificate else "",
        sha1=sha1(first) if first else "",
        time=time,
    )
