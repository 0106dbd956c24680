"""File extraction: TCP stream events in, hooks called, files written, `Http` and `File` records out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from dataclasses import fields

from engine.capture.bodies import Body, content_type_of, host_of, method_of, text, uri_of
from engine.capture.http import Exchange, HttpConnection
from engine.capture.http_head import Framing
from engine.capture.outlets import Counts, FileHooks, HttpListener, Outlets
from engine.capture.ramfs import Ramfs
from engine.values.config import CaptureLimits
from engine.values.records import File, Http
from engine.values.stats import HttpStats

__all__ = ["FileExtractor", "FileHooks", "HttpListener"]

# By their own names: looking one up in its class takes several times as long.
_NONE, _TUNNEL = Framing.NONE, Framing.TUNNEL


class FileExtractor:
    """Extracts the bodies of all connections. Every method is to be called on the loop thread.

    Per flow the hooks are called in this order: `filter_flow` once it is known to speak HTTP; for each exchange
    `filter` with the request's head, `filter` with the response's head, `payload_http` and `file`; at the end
    `flow_end`. `payload_raw` gets each event after the messages in it were read. A refused flow gets no further
    call. A refused request skips its response without asking; a refused body yields no `File` record.
    What a hook raises is not caught here: the plugin floor keeps errors of scripts to itself.

    A listener hears of the messages of every connection that it wants, whatever the hooks refuse.
    """

    hears_end = False
    """The hooks of a connection that is not wanted any more were told of its end at once."""

    def __init__(
        self,
        limits: CaptureLimits,
        ramfs: Ramfs,
        hooks: FileHooks,
        record: Callable[[Http | File], None],
        *,
        chunk_bytes: int,
        listener: HttpListener | None = None,
        bodies: bool = True,
        kinds: Container[str] = ("http", "file"),
    ) -> None:
        """`chunk_bytes`: a body longer than this becomes parts of this size. Without `bodies` they are passed over.

        `kinds` are those of the records that are made; they may change at any time.
        """
        self._counts = Counts()
        self._outlets = Outlets(limits, ramfs, hooks, record, chunk_bytes, self._counts, listener, bodies, kinds)
        self._flows: dict[int, _Flow] = {}

    def open(self, stream: int, flow: bytes, roles_known: bool, time: float) -> bool:
        """A connection began; `flow` is its key. `roles_known`: the handshake was seen, direction 0 is the client.

        Whether it is to be read: whether it speaks HTTP, its bytes will tell.
        """
        outlets = self._outlets
        if not (outlets.bodies or (outlets.listener is not None and outlets.listener.wants_flow(flow))):
            return False
        if stream in self._flows:
            self.end(stream, time)
        self._flows[stream] = _Flow(self._outlets, flow, time, roles_known=roles_known)
        return True

    def data(self, stream: int, direction: int, position: int, time: float, data: bytes) -> bool:
        """The next bytes of a direction, at `position` of its stream.

        False: nobody wants more of this connection, and it is forgotten (`flow_end` was called where it was due).
        """
        flow = self._flows.get(stream)
        if flow is None:
            return False
        if not self._outlets.hooks.wants_raw:
            flow.time = time
            flow.connection.data(direction, time, data)
            if flow.connection.wanted:
                return True
        else:
            flow.data(direction, position, time, data)
            if flow.wanted():
                return True
        self.end(stream, time, over=0)  # what is given up is not whole
        return False

    def gap(self, stream: int, direction: int, position: int, length: int, time: float) -> None:
        """`length` bytes at `position` were not captured."""
        del position  # events come in order: it is where the last one ended
        flow = self._flows.get(stream)
        if flow is not None:
            flow.time = time
            flow.connection.gap(direction, length, time)

    def end(self, stream: int, time: float, *, over: int = 3) -> None:
        """The connection is over. Does nothing for one that is not known, or not any more.

        `over` says which directions their sender ended (`StreamEvent.position` of a CLOSE): a body that lasts until
        the connection ends is whole only then.
        """
        flow = self._flows.pop(stream, None)
        if flow is not None:
            flow.end(time, over=over)

    def stats(self) -> HttpStats:
        """The counts up to now."""
        counts = self._counts
        shared = {each.name: getattr(counts, each.name) for each in fields(counts) if each.name != "held_bytes"}
        return HttpStats(**shared, files_partial=counts.files - counts.files_complete)

    def close(self) -> None:
        """End what is unfinished as partial ("cut"), in the order in which the connections began."""
        while self._flows:
            flow = self._flows.pop(next(iter(self._flows)))
            flow.end(flow.time, over=0)


class _Flow:
    """One connection: the handler of its HTTP, which turns messages into bodies and records."""

    def __init__(self, outlets: Outlets, flow: bytes, time: float, *, roles_known: bool) -> None:
        self.connection = HttpConnection(outlets.limits, self, roles_known=roles_known)
        self.time = time
        self._outlets = outlets
        self._flow = flow
        self._listener = outlets.listener if outlets.listener and outlets.listener.wants_flow(flow) else None
        self._accepted = False
        self._ended = False
        self._bodies: list[Body | None] = [None, None]  # by direction as hooks count them
        self._raw: deque[tuple[int, int, float, bytes]] | None = deque() if outlets.hooks.wants_raw else None
        self._raw_bytes = 0

    def wanted(self) -> bool:
        """False when further events would change nothing."""
        return self.connection.wanted or (self._accepted and self._outlets.hooks.wants_raw)

    def data(self, direction: int, position: int, time: float, data: bytes) -> None:
        """The next bytes, which the hooks want, too."""
        self.time = time
        assert self._raw is not None
        self._hold_raw(self._raw, direction, position, time, data)
        if self.connection.wanted:
            self.connection.data(direction, time, data)
            if not self.connection.wanted:
                self._end_http(time, over=0)
        if self._raw and self._accepted:
            self._give_raw(self._raw)

    def end(self, time: float, *, over: int) -> None:
        """Finish bodies and exchanges, then tell the hooks."""
        self._end_http(time, over=over)
        if self._accepted:
            self._outlets.hooks.flow_end(time, self._flow)
        del self.connection  # it refers to us: no need to leave both to the collector

    def _end_http(self, time: float, *, over: int) -> None:
        if not self._ended:
            self._ended = True
            self.connection.end(time, over=over)

    # Raw bytes: kept until the connection is recognised, no more than one header block's worth.

    def _hold_raw(
        self, raw: deque[tuple[int, int, float, bytes]], direction: int, position: int, time: float, data: bytes
    ) -> None:
        raw.append((direction, position, time, data))
        self._raw_bytes += len(data)
        while self._raw_bytes > self._outlets.limits.header_bytes and len(raw) > 1:
            self._raw_bytes -= len(raw.popleft()[3])

    def _give_raw(self, raw: deque[tuple[int, int, float, bytes]]) -> None:
        client = self.connection.client_direction()
        while raw:
            direction, position, time, data = raw.popleft()
            self._outlets.hooks.payload_raw(time, self._flow, 0 if direction == client else 1, position, data)
        self._raw_bytes = 0

    # What the connection reports.

    def recognised(self, time: float) -> bool:
        self._accepted = self._outlets.hooks.filter_flow(time, self._flow)
        return self._accepted or self._listener is not None

    def begin(self, exchange: Exchange, is_request: bool, time: float, framing: Framing) -> None:
        outlets = self._outlets
        counts = outlets.counts
        head = exchange.request if is_request else exchange.response
        assert head is not None
        if is_request:
            counts.requests += 1
        else:
            counts.responses += 1
            if self._accepted and "http" in outlets.kinds:
                self._record(exchange)
        if self._listener is not None:
            self._listener.head(self._flow, exchange, is_request, time)
        if head.is_cut:
            counts.fields_cut += 1
        tunnel = framing is _TUNNEL
        counts.upgrades += tunnel
        if exchange.refused or not (self._accepted and outlets.bodies):
            return
        agreed = outlets.hooks.filter(time, self._flow, head.raw, is_request)
        if not agreed:
            exchange.refused = is_request
            return
        if tunnel:
            return
        if framing is not _NONE:
            self._bodies[not is_request] = Body(self._outlets, self._flow, exchange, is_request)
        elif not is_request:
            Body(self._outlets, self._flow, exchange, is_request).finish(time, "", announced=False)

    def body(self, is_request: bool, time: float, data: bytes) -> None:
        body = self._bodies[not is_request]
        if body is not None:
            body.data(time, data)

    def gap(self, is_request: bool) -> None:
        body = self._bodies[not is_request]
        if body is not None:
            body.gap()

    def finish(self, is_request: bool, time: float, reason: str) -> None:
        body, self._bodies[not is_request] = self._bodies[not is_request], None
        if body is not None:
            body.finish(time, reason)

    def unanswered(self, exchange: Exchange) -> None:
        if self._accepted and "http" in self._outlets.kinds:
            self._record(exchange)
        if self._listener is not None:
            self._listener.unanswered(self._flow, exchange)

    def malformed(self) -> None:
        self._outlets.counts.malformed += 1

    def _record(self, exchange: Exchange) -> None:
        response = exchange.response
        self._outlets.record(
            Http(
                flow=text(self._flow),
                method=method_of(exchange),
                host=host_of(exchange),
                uri=uri_of(exchange),
                status=response.status if response else 0,
                content_type=content_type_of(response) if response else "",
                time=exchange.time,
            )
        )
