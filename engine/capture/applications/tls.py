"""TLS on one TCP connection, as far as it is in the clear: records, hellos and certificate chains (RFC 8446 5, 4).

Decrypts nothing, and says when the rest need not be read. Raises nothing for what the bytes hold.
"""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass, field
from typing import Final

from engine.capture.applications.tls_hello import (
    Chain,
    ClientHello,
    ServerHello,
    read_chain,
    read_client_hello,
    read_server_hello,
)
from engine.values.config import CaptureLimits
from engine.values.stats import TlsStats

RECORD_BYTES: Final = (1 << 14) + 2_048
"""Longest record body (RFC 5246 6.2.3)."""

OPAQUE_BYTES: Final = 65_536
"""Bytes read past in a direction that is encrypted, while nothing comes of the other, before the connection is left."""

MOST_RECORDS: Final = 512
MOST_MESSAGES: Final = 64
"""In the clear, of one direction; past either it counts as malformed. A handshake has about ten of both."""

_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA, _HEARTBEAT = 20, 21, 22, 23, 24
_CLIENT_HELLO, _SERVER_HELLO, _CERTIFICATE = 1, 2, 11
_MESSAGE_TYPES: Final = frozenset((0, 1, 2, 4, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23))
_HEADER: Final = struct.Struct(">BHH")
_LONGEST_MESSAGE: Final = 0xFFFF  # what the length of a record can say


@dataclass(frozen=True, slots=True)
class TlsRecord:
    """A record with its five-byte header, of every type but application data, for the attribute ``TLS:RECORD``.

    Of a handshake it is one message, whether it shared a record or was spread over several.
    """

    data: bytes


TlsEvent = TlsRecord | ClientHello | ServerHello | Chain


@dataclass(slots=True)
class _Counts:
    """By the names of `TlsStats`."""

    connections: int = 0
    client_hellos: int = 0
    server_hellos: int = 0
    chains: int = 0
    malformed: int = 0
    oversized: int = 0
    cut: int = 0
    gaps: int = 0


class TlsReader:
    """Opens connections and counts what is in them; one for a run, on one thread."""

    def __init__(self, limits: CaptureLimits, *, records: bool = True) -> None:
        """Without `records` no `TlsRecord` is made."""
        self.limits = limits
        self.records = records
        self.counts = _Counts()

    def open(self) -> TlsConnection:
        """For a connection that has just begun."""
        return TlsConnection(self)

    def stats(self) -> TlsStats:
        """The counts up to now."""
        return TlsStats(**asdict(self.counts))


@dataclass(slots=True)
class _Side:
    """One direction. Once `done` nothing more is read of it."""

    buffer: bytearray = field(default_factory=bytearray)  # the record that has not all come
    message: bytearray = field(default_factory=bytearray)  # the handshake message that has not all come
    skip: int = 0  # bytes of a handshake message over the limit that are still to come
    begun: bool = False  # its first record was recognised
    done: bool = False
    passed: int = 0  # bytes that came when it was done
    records: int = 0
    messages: int = 0
    hellos: int = 0


class TlsConnection:
    """Both directions of one connection. `wanted` turns False for good when no more can come of it.

    That is when it does not begin like TLS, and when both directions are encrypted or were given up. STARTTLS is not
    looked for: behind another protocol there is no beginning to see.
    """

    __slots__ = ("_reader", "_retried", "_sides", "is_recognised", "wanted")

    def __init__(self, reader: TlsReader) -> None:
        self._reader = reader
        self._sides = (_Side(), _Side())
        self._retried = False
        self.is_recognised = False
        self.wanted = True

    def data(self, direction: int, data: bytes) -> list[TlsEvent]:
        """The next bytes of a direction, and what ended in them, in its order."""
        events: list[TlsEvent] = []
        if not self.wanted:
            return events
        side = self._sides[direction]
        if side.done:
            self._pass(side, len(data))
            return events
        side.buffer += data
        if not side.begun and not self._begin(side):
            return events
        self._read_records(side, events)
        return events

    def gap(self, direction: int, length: int) -> None:
        """The next `length` bytes of a direction were not captured: a handshake is given up there."""
        side = self._sides[direction]
        if not self.wanted or length <= 0:
            return
        if side.done:
            self._pass(side, length)
        else:
            self._reader.counts.gaps += 1
            self._end(side)

    def _begin(self, side: _Side) -> bool:
        """Whether a first record is here. What can't be one ends the connection."""
        head = side.buffer[:6]
        if not _may_begin(head):
            self.wanted = False
            return False
        if len(head) < 6:
            return False
        side.begun = True
        if not self.is_recognised:
            self.is_recognised = True
            self._reader.counts.connections += 1
        return True

    def _read_records(self, side: _Side, events: list[TlsEvent]) -> None:
        buffer, position = side.buffer, 0
        while not side.done and len(buffer) - position >= _HEADER.size:
            kind, version, length = _HEADER.unpack_from(buffer, position)
            if kind == _APPLICATION_DATA:
                self._end(side)
            elif not _is_header(kind, version, length) or side.records == MOST_RECORDS:
                self._give_up(side)
            else:
                end = position + _HEADER.size + length
                if len(buffer) < end:
                    break
                self._read_record(side, kind, version, bytes(buffer[position:end]), events)
                position = end
        if side.done:
            self._pass(side, len(buffer) - position)
        del buffer[:position]

    def _read_record(self, side: _Side, kind: int, version: int, record: bytes, events: list[TlsEvent]) -> None:
        side.records += 1
        if kind == _HANDSHAKE:
            self._read_messages(side, version, record[_HEADER.size :], events)
            return
        if self._reader.records:
            events.append(TlsRecord(record))
        # In a retried TLS 1.3 handshake a second hello follows this record, in the clear (RFC 8446 D.4).
        if kind == _CHANGE_CIPHER_SPEC and not (self._retried and side.hellos == 1):
            self._end(side)

    def _read_messages(self, side: _Side, version: int, body: bytes, events: list[TlsEvent]) -> None:
        skipped = min(side.skip, len(body))
        side.skip -= skipped
        message = side.message
        message += body[skipped:]
        limit = min(self._reader.limits.tls_handshake_bytes, _LONGEST_MESSAGE)
        position = 0
        while len(message) - position >= 4 and not side.done:
            end = position + 4 + int.from_bytes(message[position + 1 : position + 4])
            if end - position > limit:
                self._reader.counts.oversized += 1
                side.skip = max(0, end - len(message))
            elif len(message) < end:
                break
            else:
                self._read_message(side, version, bytes(message[position:end]), events)
            position = min(end, len(message))
        del message[:position]

    def _read_message(self, side: _Side, version: int, message: bytes, events: list[TlsEvent]) -> None:
        counts = self._reader.counts
        side.messages += 1
        if side.messages > MOST_MESSAGES:
            self._give_up(side)
            return
        if self._reader.records:
            events.append(TlsRecord(_HEADER.pack(_HANDSHAKE, version, len(message)) + message))
        kind = message[0]
        found: ClientHello | ServerHello | Chain | None
        if kind == _CLIENT_HELLO:
            found = read_client_hello(message[4:])
            counts.client_hellos += found is not None
            side.hellos += 1
        elif kind == _SERVER_HELLO:
            found = server_hello = read_server_hello(message[4:])
            counts.server_hellos += found is not None
            side.hellos += 1
            self._retried |= server_hello is not None and server_hello.is_retry
        elif kind == _CERTIFICATE:
            found = chain = read_chain(message[4:], self._reader.limits.tls_certificates)
            counts.chains += found is not None
            counts.cut += chain is not None and not chain.whole
        else:
            return
        if found is None:
            counts.malformed += 1
        else:
            events.append(found)

    def _pass(self, side: _Side, length: int) -> None:
        side.passed += length
        if side.passed > OPAQUE_BYTES:
            self.wanted = False

    def _give_up(self, side: _Side) -> None:
        self._reader.counts.malformed += 1
        self._end(side)

    def _end(self, side: _Side) -> None:
        side.done = True
        side.buffer, side.message = bytearray(), bytearray()
        self.wanted = not all(each.done for each in self._sides)


def _is_header(kind: int, version: int, length: int) -> bool:
    return _CHANGE_CIPHER_SPEC <= kind <= _HEARTBEAT and 0x0300 <= version <= 0x0304 and length <= RECORD_BYTES


def _may_begin(head: bytes | bytearray) -> bool:
    """Whether these can be the first bytes of a record. A handshake must begin with a message of a known type."""
    if len(head) < 6:
        return _CHANGE_CIPHER_SPEC <= (head or b"\x16")[0] <= _HEARTBEAT and head[1:2] in (b"", b"\3")
    return _is_header(*_HEADER.unpack_from(head)) and (head[0] != _HANDSHAKE or head[5] in _MESSAGE_TYPES)
