"""What the platform itself finds: who wants it, and how it goes out. Loop thread only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from engine.pipeline.attributes import Attributes
from engine.pipeline.records import RecordBus
from engine.plugins.plugin import Plugin
from engine.values.groups import DNS_RESOURCES, FILE_HASHES, HTTP_URIS, SSL_CERTS
from engine.values.records import Document, Record, Resource

RESOURCES = frozenset({DNS_RESOURCES, FILE_HASHES, HTTP_URIS, SSL_CERTS})
"""Groups of resources that are found without a script."""

FOUND_KINDS = ("dns", "tls", "http", "file", "document")
"""Kinds of records that are made of packets without a script."""

TakeResource = Callable[[Resource, tuple[bytes, ...]], None]
"""Takes a resource, and its flow, uri and contents as monitors get them."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What anybody wants in a run; nothing else is looked for."""

    attributes: bool = False
    dns: bool = False
    """Records of DNS messages, and so for those below."""
    tls: bool = False
    http: bool = False
    files: bool = False
    documents: bool = False
    resources: frozenset[str] = frozenset()
    """Groups of which they are wanted."""

    @property
    def any_dns(self) -> bool:
        """Whether DNS messages are to be read."""
        return self.dns or self.documents or DNS_RESOURCES in self.resources

    @property
    def any_tls(self) -> bool:
        """Whether TLS handshakes are to be read."""
        return self.tls or self.documents or self.attributes or SSL_CERTS in self.resources

    @property
    def http_heads(self) -> bool:
        """Whether each HTTP message is to be told of."""
        return self.documents or self.attributes or HTTP_URIS in self.resources

    @property
    def hashes(self) -> bool:
        """Whether bodies are to be hashed."""
        return FILE_HASHES in self.resources


def wants_of(bus: RecordBus, plugins: Sequence[Plugin], attributes: Attributes) -> Wants:
    """What subscribers, sinks and plugins want now."""
    monitors = [plugin for plugin in plugins if plugin.block.name == "resource_monitor" and plugin.hooks]
    reads_documents = any(plugin.block.name == "fts_monitor" and plugin.hooks for plugin in plugins)
    return Wants(
        attributes=attributes.wanted,
        dns=bus.wants("dns"),
        tls=bus.wants("tls"),
        http=bus.wants("http"),
        files=bus.wants("file"),
        documents=bus.subscribed("document") or reads_documents,
        resources=RESOURCES if bus.subscribed("resource") else frozenset(plugin.group for plugin in monitors),
    )


class Findings:
    """Where findings of one run go."""

    def __init__(
        self,
        wants: Wants,
        attributes: Attributes,
        publish: Callable[[Record], None],
        resource: TakeResource,
        document: Callable[[Document], None],
        ids: Iterator[int],
    ) -> None:
        """`resource` and `document` take those; `ids` are numbers for documents."""
        self.wants = wants
        self.attributes = attributes
        self.publish = publish
        self._resource = resource
        self._document = document
        self._ids = ids

    def resource(self, group: str, flow: bytes, uri: str, contents: str, time: float) -> None:
        """A resource of a group that is wanted."""
        resource = Resource(group, flow.decode(), uri, contents, "", time)
        self._resource(resource, (flow, _bytes(uri), _bytes(contents)))

    def document(self, group: str, flow: bytes, text: str, time: float) -> None:
        """A document."""
        self._document(Document(group, flow.decode(), f"{next(self._ids):x}", text, time))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
