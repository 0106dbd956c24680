"""HTTP/1.x on one TCP connection: both directions become exchanges and their bodies (RFC 9112).

Frames bodies itself, so that holes in a body are stepped over. Decodes no content and writes no files.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from engine.capture.chunked import ChunkedDecoder
from engine.capture.http_head import (
    Framing,
    Head,
    Start,
    classify,
    find_start,
    frame_request,
    frame_response,
    read_head,
    skip_empty_lines,
)
from engine.values.config import CaptureLimits

PENDING_REQUESTS = 1_000
"""Requests that may wait for a response; past it the oldest counts as unanswered (one-way captures)."""

SEARCH_BYTES = 1 << 20
"""Bytes searched for a message start, per direction and search, before the connection is given up."""

BANNER_BYTES = 16_384
"""The same for a server that spoke first, before its client did: no HTTP server does."""


@dataclass(slots=True)
class Exchange:
    """A request and its final response; either is None when it was not captured."""

    time: float
    """Stream time of the first of them."""
    request: Head | None = None
    response: Head | None = None
    refused: bool = False
    """For the handler: it wants no bodies of this exchange."""


class HttpHandler(Protocol):
    """What a connection reports, in this order per message: `begin`, `body` and `gap` any number of times, `finish`."""

    def recognised(self, time: float) -> bool:
        """The connection speaks HTTP; False refuses it. Called once, before anything else."""

    def begin(self, exchange: Exchange, is_request: bool, time: float, framing: Framing) -> None:
        """A head was read: of a request, or a final response. With `NONE` and `TUNNEL` no `finish` follows."""

    def body(self, is_request: bool, time: float, data: bytes) -> None:
        """The next bytes of the body, without chunking but still content-encoded."""

    def gap(self, is_request: bool) -> None:
        """Bytes of the body are missing here."""

    def finish(self, is_request: bool, time: float, reason: str) -> None:
        """The body is over. `reason` is "" when it is whole, else ``gap``, ``cut`` or ``decode`` (bad chunking)."""

    def unanswered(self, exchange: Exchange) -> None:
        """No response to this request was found, or will be."""

    def malformed(self) -> None:
        """What followed was not HTTP after all; the connection is given up. Called once at most."""


class _State(Enum):
    PROBE = 0  # nothing recognised yet: at what could be a first message
    HEAD = 1  # at a message start, or inside a header block
    LENGTH = 2
    CHUNKED = 3
    CLOSE = 4
    LOST = 5  # searching for the next plausible message start


# Members by their own names: looking one up in its class takes several times as long.
_PROBE, _HEAD, _LENGTH, _CHUNKED, _CLOSE, _LOST = _State
_BODIES = (_LENGTH, _CHUNKED, _CLOSE)
_LINE_ENDS = b"\r\n"
_NO_BODY, _BY_LENGTH, _BY_CHUNKS, _UNTIL_CLOSE, _TUNNEL = Framing  # in their order, likewise
_REQUEST, _RESPONSE, _OPEN = Start.REQUEST, Start.RESPONSE, Start.OPEN
_NO_CHUNKS = ChunkedDecoder()  # of a side that has none


@dataclass(slots=True)
class _Side:
    """One direction. PROBE -> HEAD or LOST; HEAD -> a body or LOST; a body -> HEAD or LOST; LOST -> HEAD."""

    is_request: bool = False  # meaningful once the connection is recognised
    state: _State = _PROBE
    buffer: bytes = b""  # what cannot be judged before more has come; only in PROBE, HEAD and LOST
    scanned: int = 0  # bytes of `buffer` in which no end of the header block was found
    searched: int = 0  # bytes thrown away in LOST
    remaining: int = 0  # bytes of a LENGTH body still to come
    chunked: ChunkedDecoder = _NO_CHUNKS  # of the CHUNKED body in progress
    reason: str = ""  # why the body in progress is not whole


class HttpConnection:
    """Both directions of one connection. To be used on one thread; never raises for what the bytes contain.

    `wanted` turns False for good when the rest need not be delivered: not HTTP, refused by the handler, an upgrade,
    or given up. Bodies then in progress are finished by `end`.
    """

    def __init__(self, limits: CaptureLimits, handler: HttpHandler, *, roles_known: bool) -> None:
        """`roles_known`: direction 0 is the client, and its first byte starts a message (the handshake was seen)."""
        self._handler = handler
        self._header_bytes = limits.header_bytes
        self._most_fields = limits.header_fields
        self._aligned = roles_known
        self._sides = (_Side(), _Side())
        self._pending: deque[Exchange] = deque()
        self._doubtful = 0  # pending requests whose response may have been in a hole
        self.wanted = True
        self.is_recognised = False

    def client_direction(self) -> int:
        """0 or 1: the direction that carries the requests. Valid once `is_recognised`."""
        return 0 if self._sides[0].is_request else 1

    def data(self, direction: int, time: float, data: bytes) -> None:
        """The next bytes of a direction."""
        if not self.wanted:
            return
        read = self._feed if self.is_recognised else self._probe
        read(self._sides[direction], time, data)

    def gap(self, direction: int, length: int, time: float) -> None:
        """The next `length` bytes of a direction were not captured."""
        if not self.wanted or length <= 0:
            return
        side = self._sides[direction]
        if side.state is _LENGTH:
            self._gap_in_length(side, length, time)
        elif side.state is _CHUNKED:
            self._mark_gap(side)
            if not side.chunked.skip(length):
                self._finish(side, time)
                self._lose(side)
        elif side.state is _CLOSE:
            self._mark_gap(side)
        else:
            self._lose(side)
            self._aligned = False

    def end(self, time: float, *, over: int = 3) -> None:
        """The connection is over; `over` has bit 1 << direction for each that its sender ended, by FIN or RST.

        A body that lasts until the connection ends is whole only when its direction was ended so.
        """
        for direction, side in enumerate(self._sides):
            if side.state in _BODIES:
                closed = side.state is _CLOSE and bool(over >> direction & 1)
                whole = closed or (side.state is _CHUNKED and side.chunked.has_all_data)
                side.reason = side.reason or ("" if whole else "cut")
                self._finish(side, time)
        while self._pending:
            self._handler.unanswered(self._pending.popleft())
        self.wanted = False

    # Recognition: no roles yet.

    def _probe(self, side: _Side, time: float, data: bytes) -> None:
        if side.state is _PROBE:
            data = (side.buffer + data).lstrip(b"\r\n")
            side.buffer = b""
            start = classify(data)
            if start is _OPEN and len(data) < self._header_bytes:
                side.buffer = data
                return
            if start is _REQUEST or start is _RESPONSE:
                self._recognise(side, start is _REQUEST, time, data)
                return
            side.state = _LOST
            self._judge()
        if self.wanted:
            self._probe_lost(side, time, data)

    def _probe_lost(self, side: _Side, time: float, data: bytes) -> None:
        data = side.buffer + data
        index, start = find_start(data, 0, requests=True, responses=True)
        if start is not Start.OPEN:
            self._recognise(side, start is Start.REQUEST, time, data[index:])
            return
        side.buffer = data[index:]
        side.searched += index
        if side.searched > (BANNER_BYTES if self._aligned else SEARCH_BYTES):
            self.wanted = False

    def _judge(self) -> None:
        """Give up when no direction began like HTTP, or the client did not though we saw its first byte."""
        client, server = (side.state is _LOST for side in self._sides)
        if client and (server or self._aligned):
            self.wanted = False

    def _recognise(self, side: _Side, is_request: bool, time: float, data: bytes) -> None:
        self.is_recognised = True
        other = self._sides[1] if side is self._sides[0] else self._sides[0]
        side.is_request, other.is_request = is_request, not is_request
        side.buffer = b""
        side.state = _HEAD
        if other.state is _PROBE:
            other.state = _HEAD
        if not self._handler.recognised(time):
            self.wanted = False
            return
        if other.buffer:
            self._feed(other, time, b"")  # what the other direction holds came first
        self._feed(side, time, data)

    # One direction with a known role. Each reader returns the position behind what it used.

    def _feed(self, side: _Side, time: float, data: bytes) -> None:
        if side.buffer:
            data, side.buffer = side.buffer + data, b""
        position, size = 0, len(data)
        while position < size and self.wanted:
            state = side.state
            if state is _LENGTH:
                position = self._read_length(side, time, data, position)
            elif state is _CHUNKED:
                position = self._read_chunked(side, time, data, position)
            elif state is _CLOSE:
                self._handler.body(side.is_request, time, data[position:])
                position = size
            elif state is _HEAD:
                position = self._read_head(side, time, data, position)
            else:
                position = self._search(side, data, position)

    def _read_length(self, side: _Side, time: float, data: bytes, position: int) -> int:
        end = min(len(data), position + side.remaining)
        side.remaining -= end - position
        self._handler.body(side.is_request, time, data[position:end])
        if not side.remaining:
            self._finish(side, time)
        return end

    def _read_chunked(self, side: _Side, time: float, data: bytes, position: int) -> int:
        pieces: list[bytes] = []
        end = side.chunked.feed(data, position, pieces)
        for piece in pieces:
            self._handler.body(side.is_request, time, piece)
        if side.chunked.broken:
            side.reason = side.reason or "decode"
            self._finish(side, time)
            self._lose(side)
        elif side.chunked.done:
            self._finish(side, time)
        return end

    def _read_head(self, side: _Side, time: float, data: bytes, position: int) -> int:
        size = len(data)
        if data[position] in _LINE_ENDS:
            position = skip_empty_lines(data, position)
        head = read_head(
            data,
            position,
            self._header_bytes,
            side.scanned,
            is_request=side.is_request,
            most_fields=self._most_fields,
        )
        if head is not None:
            side.scanned = 0
            if side.is_request:
                self._begin_request(side, time, head)
            elif not head.is_interim:
                self._begin_response(side, time, head)
            return position + len(head.raw)
        start = classify(data, position)
        if start is not _OPEN and start is not (_REQUEST if side.is_request else _RESPONSE):
            self._lose(side)
            return position + 1  # the search does not come back to what is none
        if size - position >= self._header_bytes:
            self._lose(side)
        else:
            side.buffer = data[position:]
            side.scanned = size - position
        return size

    def _search(self, side: _Side, data: bytes, position: int) -> int:
        index, start = find_start(data, position, requests=side.is_request, responses=not side.is_request)
        if start is not Start.OPEN:
            side.state = _HEAD
            return index
        side.buffer = data[index:]
        side.searched += index - position
        if side.searched > SEARCH_BYTES:
            self.wanted = False
            self._handler.malformed()
        return len(data)

    def _begin_request(self, side: _Side, time: float, head: Head) -> None:
        exchange = Exchange(time, head)
        self._pending.append(exchange)
        if len(self._pending) > PENDING_REQUESTS:
            self._doubtful = max(0, self._doubtful - 1)
            self._handler.unanswered(self._pending.popleft())
        self._begin_body(side, time, exchange, *frame_request(head))

    def _begin_response(self, side: _Side, time: float, head: Head) -> None:
        exchange = self._answered(time)
        exchange.response = head
        method = exchange.request.method if exchange.request else b""
        self._begin_body(side, time, exchange, *frame_response(head, method))

    def _answered(self, time: float) -> Exchange:
        """The exchange of the response that has just begun: responses come in the order of their requests."""
        if len(self._pending) > self._doubtful > 0:
            # Requests came after the hole: those before it lost their responses in it.
            for _ in range(self._doubtful):
                self._handler.unanswered(self._pending.popleft())
        self._doubtful = 0
        return self._pending.popleft() if self._pending else Exchange(time)

    def _begin_body(self, side: _Side, time: float, exchange: Exchange, framing: Framing, length: int) -> None:
        self._handler.begin(exchange, side.is_request, time, framing)
        side.reason = ""
        if framing is _BY_LENGTH:
            side.remaining = length
            side.state = _LENGTH
        elif framing is _BY_CHUNKS:
            side.chunked = ChunkedDecoder()
            side.state = _CHUNKED
        elif framing is _UNTIL_CLOSE:
            side.state = _CLOSE
        elif framing is _TUNNEL:
            self.wanted = False

    def _finish(self, side: _Side, time: float) -> None:
        side.state = _HEAD
        self._handler.finish(side.is_request, time, side.reason)

    def _lose(self, side: _Side) -> None:
        side.state = _LOST
        side.buffer = b""
        side.scanned = side.searched = 0
        if not side.is_request:
            self._doubtful = len(self._pending)

    def _mark_gap(self, side: _Side) -> None:
        side.reason = side.reason or "gap"
        self._handler.gap(side.is_request)

    def _gap_in_length(self, side: _Side, length: int, time: float) -> None:
        skipped = min(length, side.remaining)
        side.remaining -= skipped
        self._mark_gap(side)
        if not side.remaining:
            self._finish(side, time)
        if length > skipped:
            self._lose(side)
