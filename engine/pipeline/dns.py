"""DNS over UDP and TCP, from messages to records, resources and documents. Loop thread only."""

from __future__ import annotations

from engine.capture.applications.dns import DNS_PORTS, DnsMessage, DnsReader, DnsStream
from engine.capture.applications.dns_text import document, resource
from engine.capture.batches import Datagram
from engine.pipeline.findings import Findings
from engine.values.flowkeys import port_numbers
from engine.values.groups import DNS_DOCUMENTS, DNS_RESOURCES
from engine.values.records import Dns


class DnsFinder:
    """Takes datagrams of the DNS ports, and streams, of which it wants those of these ports only."""

    hears_end = False

    def __init__(self, reader: DnsReader, findings: Findings) -> None:
        self._reader = reader
        self._findings = findings
        self._streams: dict[int, tuple[bytes, str, tuple[DnsStream, DnsStream]]] = {}

    def datagram(self, datagram: Datagram) -> None:
        """A datagram that one of the ports sent or gets."""
        service = DNS_PORTS.get(datagram.source_port) or DNS_PORTS.get(datagram.target_port)
        message = self._reader.datagram(datagram.data)
        if service is not None and message is not None:
            self._found(message, datagram.flow, service, "udp", datagram.time)

    def open(self, stream: int, flow: bytes, roles_known: bool, time: float) -> bool:
        """A connection began."""
        del roles_known, time
        service = next((DNS_PORTS[port] for port in port_numbers(flow) if port in DNS_PORTS), None)
        if service is None:
            return False
        self._streams[stream] = flow, service, (DnsStream(self._reader), DnsStream(self._reader))
        return True

    def data(self, stream: int, direction: int, position: int, time: float, data: bytes) -> bool:
        """The next bytes."""
        del position
        flow, service, sides = self._streams[stream]
        for message in sides[direction].data(data):
            self._found(message, flow, service, "tcp", time)
        if sides[0].wanted or sides[1].wanted:
            return True
        del self._streams[stream]
        return False

    def gap(self, stream: int, direction: int, position: int, length: int, time: float) -> None:
        """The next bytes were not captured."""
        del position, time
        self._streams[stream][2][direction].gap(length)

    def end(self, stream: int, time: float, *, over: int) -> None:
        """The connection is over."""
        del time, over
        del self._streams[stream]

    def close(self) -> None:
        """No event follows."""
        self._streams.clear()

    def _found(self, message: DnsMessage, flow: bytes, service: str, transport: str, time: float) -> None:
        findings, wants = self._findings, self._findings.wants
        if wants.dns:
            findings.publish(
                Dns(
                    flow=flow.decode(),
                    service=service,
                    transport=transport,
                    id=message.id,
                    is_response=message.is_response,
                    rcode=message.rcode,
                    questions=message.questions,
                    answers=message.answers,
                    whole=message.whole,
                    time=time,
                )
            )
        if DNS_RESOURCES in wants.resources and (named := resource(message)) is not None:
            findings.resource(DNS_RESOURCES, flow, *named, time)
        if wants.documents:
            findings.document(DNS_DOCUMENTS, flow, document(message), time)
