"""Who takes the streams and datagrams of a run: plugins, and what the platform finds for them. Loop thread only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from engine.capture.applications.dns import DNS_PORTS, DnsReader
from engine.capture.applications.quic import HAVE_AES, QuicReader
from engine.capture.applications.tls import TlsReader
from engine.capture.batches import Datagram
from engine.capture.extract import FileExtractor
from engine.capture.ramfs import Ramfs
from engine.pipeline.attributes import Attributes, FlowMarks
from engine.pipeline.dns import DnsFinder
from engine.pipeline.findings import Findings, TakeResource, wants_of
from engine.pipeline.http import HttpFinder
from engine.pipeline.records import RecordBus
from engine.pipeline.storage import PacketStore
from engine.pipeline.streams import Streams, StreamTaker
from engine.pipeline.tls import QUIC_PORTS, QuicFinder, TlsFinder
from engine.plugins.filex import FilexVotes
from engine.plugins.plugin import Plugin
from engine.plugins.reassembly import ReassemblyHandlers
from engine.values.config import Config
from engine.values.records import Document
from engine.values.stats import DnsStats, HttpStats, QuicStats, TlsStats


class Datagrams:
    """Hands datagrams of chosen ports to what reads them."""

    def __init__(self, dns: DnsFinder | None, quic: QuicFinder | None) -> None:
        self._dns = dns
        self._quic = quic
        self.udp_ports = frozenset(DNS_PORTS) if dns is not None else frozenset[int]()
        self.quic_ports = QUIC_PORTS if quic is not None else frozenset[int]()

    def take(self, datagram: Datagram) -> None:
        """A datagram of one of the ports."""
        if self._dns is not None and {datagram.source_port, datagram.target_port} & self.udp_ports:
            self._dns.datagram(datagram)
        elif self._quic is not None:
            self._quic.datagram(datagram)


@dataclass(frozen=True, slots=True)
class Takers:
    """What is to be read of a source; None for what nobody wants."""

    streams: Streams | None = None
    datagrams: Datagrams | None = None


class AnalysisStats(NamedTuple):
    """By the names of `EngineStats`."""

    http: HttpStats
    dns: DnsStats
    tls: TlsStats
    quic: QuicStats


class Analysis:
    """Decides for each run what is computed, by what plugins, sinks and subscribers want, and counts what was found."""

    def __init__(
        self,
        config: Config,
        bus: RecordBus,
        plugins: Sequence[Plugin],
        ramfs: Callable[[], Ramfs],
        warn: Callable[[Plugin, str], None],
        resource: TakeResource,
        document: Callable[[Document], None],
        store: PacketStore,
    ) -> None:
        """`plugins` is the live list of the engine; `warn(plugin, text)` takes warnings about votes."""
        self._store = store
        self._config = config
        self._bus = bus
        self._plugins = plugins
        self._ramfs = ramfs
        self._warn = warn
        self._resource = resource
        self._document = document
        self._dns, self._tls, self._quic = DnsReader(config.limits), TlsReader(config.limits), QuicReader()
        self._documents = itertools.count(1)
        self._handlers = ReassemblyHandlers((), warn)
        self._extractor: FileExtractor | None = None
        self._http = HttpStats()
        self._leases: list[int] = []

    def begin(self) -> Takers:
        """What is wanted now, for a run that begins."""
        self._handlers = handlers = ReassemblyHandlers(self._of_type("reassembly_handler"), self._warn)
        attributes = Attributes(handlers, self._of_type("flowmonitor"))
        findings = Findings(
            wants_of(self._bus, self._plugins, attributes),
            attributes,
            self._bus.publish,
            self._resource,
            self._document,
            self._documents,
        )
        wants = findings.wants
        dns = DnsFinder(self._dns, findings) if wants.any_dns else None
        quic = QuicFinder(self._quic, findings) if wants.tls and HAVE_AES else None
        takers: list[StreamTaker] = [handlers] if handlers.wanted else []
        if wants.attributes:
            takers.append(FlowMarks(attributes))
        if wants.any_tls:
            self._tls.records = wants.attributes
            takers.append(TlsFinder(self._tls, findings))
        if dns is not None:
            takers.append(dns)
        takers += self._make_extractor(findings)
        if self._store.wants_streams:
            takers.append(self._store)
        return Takers(Streams(takers) if takers else None, Datagrams(dns, quic) if dns or quic else None)

    def _of_type(self, name: str) -> list[Plugin]:
        return [plugin for plugin in self._plugins if plugin.block.name == name]

    def _make_extractor(self, findings: Findings) -> list[FileExtractor]:
        self._http, self._extractor = self._http_stats(), None
        filex, wants = self._of_type("filex_monitor"), findings.wants
        bodies = bool(filex) or wants.http or wants.files or wants.hashes
        if not (bodies or wants.http_heads):
            return []
        self._extractor = FileExtractor(
            self._config.limits,
            self._ramfs(),
            FilexVotes(filex, self._warn, self._keep),
            self._bus.publish,
            chunk_bytes=self._config.chunk_bytes,
            listener=HttpFinder(findings) if wants.http_heads or wants.hashes else None,
            bodies=bodies,
            kinds=self._bus.kinds,
        )
        return [self._extractor]

    def _keep(self, lease: int) -> None:
        """Tasks of a file's hook are still in an outbox when the hook returns: the file stays until they are out."""
        self._ramfs().hold(lease)
        self._leases.append(lease)

    def outboxes_taken(self) -> None:
        """The tasks of all hooks are out, and hold the files that they need."""
        for lease in self._leases:
            self._ramfs().release(lease)
        self._leases.clear()

    def give_up(self, plugin: Plugin, flow: bytes) -> None:
        """A plugin wants no more bytes of a connection (`engine:disable_reassembly`)."""
        self._handlers.give_up(plugin, flow)

    def stats(self) -> AnalysisStats:
        """Counts of all runs so far."""
        return AnalysisStats(self._http_stats(), self._dns.stats(), self._tls.stats(), self._quic.stats())

    def _http_stats(self) -> HttpStats:
        if self._extractor is None:
            return self._http
        now = self._extractor.stats()
        return HttpStats(
            **{each.name: getattr(self._http, each.name) + getattr(now, each.name) for each in fields(now)}
        )
