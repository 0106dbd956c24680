"""HTTP messages and bodies as attributes, resources and documents. Loop thread only."""

from __future__ import annotations

from engine.capture.applications.hashes import Hashes
from engine.capture.applications.hashes import resource as hash_resource
from engine.capture.bodies import content_type_of, host_of, method_of, text, uri_of
from engine.capture.http import Exchange
from engine.capture.http_head import Head
from engine.pipeline.findings import Findings
from engine.values.groups import FILE_HASHES, HTTP_DOCUMENTS, HTTP_URIS

_REQUEST_FIELDS = ((b"Host", b"host"), (b"User-Agent", b"user-agent"), (b"Content-Type", b"content-type"))
_RESPONSE_FIELDS = ((b"Content-Type", b"content-type"),)


class HttpFinder:
    """Listens to the extractor."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self.wants_hashes = findings.wants.hashes
        self._of_all = findings.wants.documents or HTTP_URIS in findings.wants.resources

    def wants_flow(self, flow: bytes) -> bool:
        """Whether messages of a connection are wanted."""
        return self._of_all or self._findings.attributes.wanted_of(flow)

    def head(self, flow: bytes, exchange: Exchange, is_request: bool, time: float) -> None:
        """A header block was read."""
        head = exchange.request if is_request else exchange.response
        assert head is not None
        findings, wants = self._findings, self._findings.wants
        if findings.attributes.wanted_of(flow):
            self._tell(flow, head, time)
        if wants.documents:
            findings.document(HTTP_DOCUMENTS, flow, text(head.raw), time)
        if not is_request and HTTP_URIS in wants.resources:
            self._found_uri(flow, exchange, time)

    def unanswered(self, flow: bytes, exchange: Exchange) -> None:
        """A request without a response."""
        if HTTP_URIS in self._findings.wants.resources:
            self._found_uri(flow, exchange, exchange.time)

    def body(self, flow: bytes, exchange: Exchange, hashes: Hashes, time: float) -> None:
        """A body came to its end."""
        self._findings.resource(FILE_HASHES, flow, *hash_resource(hashes, uri_of(exchange)), time)

    def _tell(self, flow: bytes, head: Head, time: float) -> None:
        tell = self._findings.attributes.tell
        tell(time, flow, b"HTTP-Header", head.raw)
        if head.is_request:
            tell(time, flow, b"URI", head.uri)
        for name, field in _REQUEST_FIELDS if head.is_request else _RESPONSE_FIELDS:
            if field in head.fields:
                tell(time, flow, name, head.fields[field])

    def _found_uri(self, flow: bytes, exchange: Exchange, time: float) -> None:
        """Method, host and target as three words; the time that the response took, its status and type (appendix A)."""
        if exchange.request is None:
            return
        words = (method_of(exchange), host_of(exchange), uri_of(exchange))
        contents = ""
        if exchange.response is not None:
            usec = max(0, round((time - exchange.time) * 1e6))
            contents = f"usec:{usec} status:{exchange.response.status} type:{content_type_of(exchange.response)}"
        self._findings.resource(
            HTTP_URIS, flow, " ".join(each.replace(" ", "%20") or "-" for each in words), contents, time
        )
