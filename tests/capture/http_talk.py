"""Shared by the HTTP tests: a handler that writes down what a connection reports, and ways to feed it."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.capture.http import Exchange, HttpConnection
from engine.capture.http_head import Framing
from engine.values.config import CaptureLimits

LIMITS = CaptureLimits()


@dataclass
class Seen:
    """One message as it was reported; `reason` is None while its body is not finished."""

    is_request: bool
    start: tuple[bytes, bytes] | int
    framing: Framing
    body: bytes = b""
    gaps: int = 0
    reason: str | None = None


@dataclass
class Notes:
    """An `HttpHandler` that remembers everything and checks the order of the calls."""

    accept: bool = True
    recognitions: int = 0
    messages: list[Seen] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    unanswered_count: int = 0
    malformed_count: int = 0
    open: dict[bool, Seen] = field(default_factory=dict)

    def recognised(self, time: float) -> bool:
        self.recognitions += 1
        return self.accept

    def begin(self, exchange: Exchange, is_request: bool, time: float, framing: Framing) -> None:
        assert is_request not in self.open
        head = exchange.request if is_request else exchange.response
        assert head is not None
        start = (head.method, head.uri) if is_request else head.status
        message = Seen(is_request, start, framing)
        self.messages.append(message)
        if not is_request:
            self.exchanges.append(exchange)
        if framing in (Framing.LENGTH, Framing.CHUNKED, Framing.CLOSE):
            self.open[is_request] = message

    def body(self, is_request: bool, time: float, data: bytes) -> None:
        assert data
        self.open[is_request].body += data

    def gap(self, is_request: bool) -> None:
        self.open[is_request].gaps += 1

    def finish(self, is_request: bool, time: float, reason: str) -> None:
        self.open.pop(is_request).reason = reason

    def unanswered(self, exchange: Exchange) -> None:
        assert exchange.response is None
        self.exchanges.append(exchange)
        self.unanswered_count += 1

    def malformed(self) -> None:
        self.malformed_count += 1

    @property
    def responses(self) -> list[Seen]:
        return [each for each in self.messages if not each.is_request]

    @property
    def requests(self) -> list[Seen]:
        return [each for each in self.messages if each.is_request]

    @property
    def pairs(self) -> list[tuple[bytes, int]]:
        """URI and status of each exchange, b"" and 0 for what is missing."""
        return [
            (each.request.uri if each.request else b"", each.response.status if each.response else 0)
            for each in self.exchanges
        ]


Event = tuple[int, bytes | int]
"""Direction, and the bytes that came or the length of a hole."""


def talk(
    *events: Event, roles_known: bool = True, limits: CaptureLimits = LIMITS, accept: bool = True, end: bool = True
) -> tuple[Notes, HttpConnection]:
    """Run events through a connection."""
    notes = Notes(accept=accept)
    connection = HttpConnection(limits, notes, roles_known=roles_known)
    for number, (direction, what) in enumerate(events):
        if isinstance(what, int):
            connection.gap(direction, what, float(number))
        else:
            connection.data(direction, float(number), what)
    if end:
        connection.end(float(len(events)))
    return notes, connection


def get(uri: str = "/", method: str = "GET", extra: str = "") -> bytes:
    """A request without a body."""
    return f"{method} {uri} HTTP/1.1\r\nHost: example.org\r\n{extra}\r\n".encode()


def answer(body: bytes = b"", *, status: int = 200, extra: str = "", length: int | None = None) -> bytes:
    """A response with a Content-Length."""
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status} X\r\nContent-Length: {size}\r\n{extra}\r\n".encode() + body


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
