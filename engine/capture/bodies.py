"""One HTTP body on its way from the wire to hooks, files and its record. Runs on the loop thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from engine.capture.applications.hashes import BodyHasher, Hashes
from engine.capture.content import ContentDecoder
from engine.capture.http import Exchange
from engine.capture.http_head import Head
from engine.capture.ramfs import Ramfs
from engine.values.config import CaptureLimits
from engine.values.records import File, Http

HOLD_BYTES = 65_536
"""Decoded bytes of one body kept in memory before they are written."""

HOLD_TOTAL_BYTES = 32 << 20
"""The same over all bodies in progress; past it every piece is written at once."""

_log = logging.getLogger("offpath.capture")


class FileHooks(Protocol):
    """What plugins make of flows and bodies; implemented by the plugin floor. Every call is on the loop thread.

    `flow` is the flow key, `request` and `response` are header blocks as on the wire (b"" when not seen),
    `direction` is 0 for client to server and 1 for server to client (spec 2.13).
    """

    wants_files: bool
    wants_payload: bool
    wants_raw: bool

    def filter_flow(self, time: float, flow: bytes) -> bool:
        """False skips the flow."""

    def filter(self, time: float, flow: bytes, head: bytes, is_request: bool) -> bool:
        """False skips the body behind this head."""

    def payload_raw(self, time: float, flow: bytes, direction: int, seekpos: int, data: bytes) -> None:
        """Bytes of the TCP stream; `seekpos` is their position in it."""

    def payload_http(
        self,
        time: float,
        flow: bytes,
        path: str,
        request: bytes,
        response: bytes,
        direction: int,
        seekpos: int,
        data: bytes,
    ) -> None:
        """Decoded bytes of a body; a call with none marks the end."""

    def file(
        self,
        time: float,
        flow: bytes,
        path: str,
        request: bytes,
        response: bytes,
        length: int,
        is_partial: bool,
        lease: int,
    ) -> None:
        """A file, or one part of it, is ready. It goes when the call returns, unless the lease was held."""

    def flow_end(self, time: float, flow: bytes) -> None:
        """Nothing more will come of this flow."""


class HttpListener(Protocol):
    """Hears of messages and bodies, and has no say in them."""

    wants_hashes: bool

    def wants_flow(self, flow: bytes) -> bool:
        """Whether it is to hear of the messages of a connection."""

    def head(self, flow: bytes, exchange: Exchange, is_request: bool, time: float) -> None:
        """A header block was read: that of the request, or of the final response."""

    def unanswered(self, flow: bytes, exchange: Exchange) -> None:
        """No response to this request was found, or will be."""

    def body(self, flow: bytes, exchange: Exchange, hashes: Hashes, time: float) -> None:
        """A body is over, and was whole."""


@dataclass(slots=True)
class Counts:
    """Running counts of one extractor, by the names of `HttpStats`, and the bytes that bodies hold back."""

    requests: int = 0
    responses: int = 0
    malformed: int = 0
    upgrades: int = 0
    files: int = 0
    files_complete: int = 0
    file_bytes: int = 0
    decode_errors: int = 0
    bombs: int = 0
    write_errors: int = 0
    held_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Outlets:
    """Where bodies go; one for all bodies of an extractor."""

    limits: CaptureLimits
    ramfs: Ramfs
    hooks: FileHooks
    record: Callable[[Http | File], None]
    chunk_bytes: int
    counts: Counts
    listener: HttpListener | None = None
    bodies: bool = True


class BodyFile:
    """Writes one body into a file, or into parts of `chunk_bytes` once it turns out to be longer.

    No file is open between calls. After a write error the rest of the body is ignored and what was not yet
    given out is removed.
    """

    def __init__(self, outlets: Outlets, path: str, give: Callable[[str, int, bool], None]) -> None:
        """`give(path, length, is_partial)` is called for each file once it is whole; dropped by `finish`."""
        self._outlets = outlets
        self._path = path
        self._give: Callable[[str, int, bool], None] | None = give
        self._held = bytearray()
        self._part_bytes = 0
        self._offset = 0
        self._split = False
        self._failed = False
        self.given = False

    def write(self, data: bytes) -> None:
        """Take the next decoded bytes. Raises nothing of the file system."""
        view = memoryview(data)
        limit = self._outlets.chunk_bytes
        while view and not self._failed:
            if not self._split and self._part_bytes == limit:
                self._begin_split()
                continue
            piece = view[: limit - self._part_bytes]
            view = view[len(piece) :]
            self._hold(piece)
            if self._split and self._part_bytes == limit:
                self._end_part()

    def finish(self) -> None:
        """The body is over: give out the file, or the last part."""
        if not self._split:
            self._deliver(is_partial=False)
        elif self._part_bytes:
            self._deliver(is_partial=True)
        self._give = None  # it refers to its owner, who refers to us: no need to leave that to the collector

    def _hold(self, piece: memoryview) -> None:
        counts = self._outlets.counts
        self._held += piece
        self._part_bytes += len(piece)
        counts.held_bytes += len(piece)
        if len(self._held) >= HOLD_BYTES or counts.held_bytes > HOLD_TOTAL_BYTES:
            self._flush()

    def _target(self) -> str:
        return f"{self._path}.{self._offset}.part" if self._split else self._path

    def _begin_split(self) -> None:
        """More came than one file may hold: what there is becomes the first part."""
        self._flush()
        if self._failed:
            return
        try:
            self._outlets.ramfs.rename(self._path, f"{self._path}.0.part")
        except OSError as exc:
            self._fail(exc)
            return
        self._split = True
        self._end_part()

    def _end_part(self) -> None:
        self._deliver(is_partial=True)
        self._offset += self._part_bytes
        self._part_bytes = 0

    def _deliver(self, *, is_partial: bool) -> None:
        self._flush()
        if not self._failed and self._give is not None:
            self.given = True
            self._give(self._target(), self._part_bytes, is_partial)

    def _flush(self) -> None:
        held, self._held = self._held, bytearray()
        self._outlets.counts.held_bytes -= len(held)
        if self._failed or (not held and self._part_bytes):
            return
        try:
            self._outlets.ramfs.append(self._target(), held)
        except OSError as exc:
            self._fail(exc)

    def _fail(self, error: OSError) -> None:
        self._failed = True
        self._outlets.counts.write_errors += 1
        self._outlets.ramfs.discard(self._target())
        _log.warning("%s: cannot write an extracted file: %s", self._target(), error.strerror or error)


class Body:
    """One body: decodes it, tells the hooks, writes the file, and ends in a `File` record."""

    def __init__(self, outlets: Outlets, flow: bytes, exchange: Exchange, is_request: bool) -> None:
        self._outlets = outlets
        self._flow = flow
        self._exchange = exchange
        self._is_request = is_request
        self._head = head = _head_of(exchange, is_request)
        self._decoder = ContentDecoder(head.codings(), outlets.limits)
        self._size = 0
        self._time = exchange.time
        ramfs = outlets.ramfs
        self._path = ramfs.path_of(ramfs.name_for(flow, host_of(exchange), uri_of(exchange)))
        self._file = BodyFile(outlets, self._path, self._give) if outlets.hooks.wants_files else None
        self._hasher = BodyHasher() if outlets.listener and outlets.listener.wants_hashes else None

    def data(self, time: float, data: bytes) -> None:
        """The next bytes of the body, still content-encoded."""
        self._time = time
        for piece in self._decoder.feed(data):
            self._payload(piece)
            self._size += len(piece)
            if self._file is not None:
                self._file.write(piece)
            if self._hasher is not None:
                self._hasher.update(piece)

    def gap(self) -> None:
        """Bytes are missing here."""
        self._decoder.skip()

    def finish(self, time: float, reason: str, *, announced: bool = True) -> None:
        """The body is over; `reason` is why it is not whole, or "".

        A body that was not `announced` by its head, or is empty, ends like any other for the hooks, but yields no
        record.
        """
        self._time = time
        if not reason:
            self._decoder.finish()
        self._payload(b"")
        if self._file is not None:
            self._file.finish()
        reason = self._decoder.reason or reason
        if self._hasher is not None and self._outlets.listener is not None and self._size and not reason:
            self._outlets.listener.body(self._flow, self._exchange, self._hasher.digest(), time)
        if announced and (self._size or reason):
            self._record(reason)

    def _payload(self, data: bytes) -> None:
        if self._outlets.hooks.wants_payload:
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
        self._outlets.record(
            File(
                flow=text(self._flow),
                path=self._path if self._file is not None and self._file.given else "",
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
    host = request.fields.get(b"host", b"")
    if not host and b"://" in request.uri:
        host = request.uri.partition(b"://")[2].partition(b"/")[0].rpartition(b"@")[2]
    return text(host)


def content_type_of(head: Head) -> str:
    """The media type without parameters, lower case."""
    return text(head.fields.get(b"content-type", b"").partition(b";")[0].strip().lower())


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
