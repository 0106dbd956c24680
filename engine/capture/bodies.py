"""One HTTP body on its way from the wire to hooks, files and its record. Runs on the loop thread."""

from __future__ import annotations

from engine.capture.applications.hashes import BodyHasher
from engine.capture.body_files import BodyFile
from engine.capture.content import ContentDecoder
from engine.capture.http import Exchange
from engine.capture.http_head import Head
from engine.capture.outlets import Outlets
from engine.values.records import File


class Body:
    """One body: decodes it, tells the hooks, writes the file, and ends in a `File` record."""

    __slots__ = (
        "_decoder",
        "_exchange",
        "_file",
        "_flow",
        "_hasher",
        "_head",
        "_is_request",
        "_outlets",
        "_path",
        "_size",
        "_time",
    )

    def __init__(self, outlets: Outlets, flow: bytes, exchange: Exchange, is_request: bool) -> None:
        self._outlets = outlets
        self._flow = flow
        self._exchange = exchange
        self._is_request = is_request
        self._head = head = _head_of(exchange, is_request)
        codings = head.codings()
        self._decoder = ContentDecoder(codings, outlets.limits) if codings else None
        self._size = 0
        self._time = exchange.time
        ramfs, hooks = outlets.ramfs, outlets.hooks
        self._path = ""  # nobody hears of it
        if hooks.wants_files or hooks.wants_payload:
            self._path = ramfs.path_of(ramfs.name_for(flow, host_of(exchange), uri_of(exchange)))
        self._file = BodyFile(outlets, self._path, self._give) if hooks.wants_files else None
        self._hasher = BodyHasher() if outlets.listener and outlets.listener.wants_hashes else None

    def data(self, time: float, data: bytes) -> None:
        """The next bytes of the body, still content-encoded."""
        self._time = time
        if self._decoder is None:
            self._take(data)
            return
        for piece in self._decoder.feed(data):
            self._take(piece)

    def _take(self, piece: bytes) -> None:
        if self._outlets.hooks.wants_payload:
            self._payload(piece)
        self._size += len(piece)
        if self._file is not None:
            self._file.write(piece)
        if self._hasher is not None:
            self._hasher.update(piece)

    def gap(self) -> None:
        """Bytes are missing here."""
        if self._decoder is not None:
            self._decoder.skip()

    def finish(self, time: float, reason: str, *, announced: bool = True) -> None:
        """The body is over; `reason` is why it is not whole, or "".

        A body that was not `announced` by its head, or is empty, ends like any other for the hooks, but yields no
        record.
        """
        self._time = time
        if self._decoder is not None:
            if not reason:
                self._decoder.finish()
            reason = self._decoder.reason or reason
        if self._outlets.hooks.wants_payload:
            self._payload(b"")
        if self._file is not None:
            self._file.finish()
        if self._hasher is not None and self._outlets.listener is not None and self._size and not reason:
            self._outlets.listener.body(self._flow, self._exchange, self._hasher.digest(), time)
        if announced and (self._size or reason):
            self._record(reason)

    def _payload(self, data: bytes) -> None:
        self._outlets.hooks.payload_http(
            self._time,
            self._flow,
            self._path,
            *raw_heads(self._exchange),
            0 if self._is_request else 1,
            self._size,
            data,
        )

    def _give(self, path: str, length: int, is_partial: bool) -> None:
        ramfs = self._outlets.ramfs
        lease = ramfs.publish(path)
        try:
            self._outlets.hooks.file(
                self._time, self._flow, path, *raw_heads(self._exchange), length, is_partial, lease
            )
        finally:
            ramfs.release(lease)

    def _record(self, reason: str) -> None:
        counts, exchange = self._outlets.counts, self._exchange
        counts.files += 1
        counts.files_complete += not reason
        counts.file_bytes += self._size
        counts.decode_errors += reason == "decode"
        counts.bombs += reason == "limit"
        if "file" not in self._outlets.kinds:
            return
        self._outlets.record(
            File(
                flow=text(self._flow),
                path=self._outlets.ramfs.shown(self._path) if self._file is not None and self._file.given else "",
                uri=uri_of(exchange),
                size=self._size,
                direction="request" if self._is_request else "response",
                method=method_of(exchange),
                host=host_of(exchange),
                status=exchange.response.status if exchange.response else 0,
                content_type=content_type_of(self._head),
                complete=not reason,
                reason=reason,
                time=self._time,
            )
        )


def text(value: bytes) -> str:
    """Bytes of the wire as text for records."""
    return value.decode("utf-8", "backslashreplace")


def method_of(exchange: Exchange) -> str:
    """The request's method, "" when it was not captured."""
    return text(exchange.request.method) if exchange.request else ""


def uri_of(exchange: Exchange) -> str:
    """The request's target as on the wire, "" when it was not captured."""
    return text(exchange.request.uri) if exchange.request else ""


def host_of(exchange: Exchange) -> str:
    """The Host field; without one the host of an absolute or CONNECT target, else ""."""
    request = exchange.request
    if request is None:
        return ""
    host = request.field(b"host")
    if not host and b"://" in request.uri:
        host = request.uri.partition(b"://")[2].partition(b"/")[0].rpartition(b"@")[2]
    return text(host)


def content_type_of(head: Head) -> str:
    """The media type without parameters, lower case."""
    return text(head.field(b"content-type").partition(b";")[0].strip().lower())


def raw_heads(exchange: Exchange) -> tuple[bytes, bytes]:
    """Both header blocks as on the wire, b"" for one that was not seen."""
    return (
        exchange.request.raw if exchange.request else b"",
        exchange.response.raw if exchange.response else b"",
    )


def _head_of(exchange: Exchange, is_request: bool) -> Head:
    head = exchange.request if is_request else exchange.response
    if head is None:
        raise AssertionError("a body follows its head")
    return head
