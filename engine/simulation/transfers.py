"""What a script wants sent over the simulated network, and the frames of it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NamedTuple

from engine.capture.http_messages import FRAMINGS, framed, head
from engine.capture.packets import UDP, Endpoint, TcpConversation, ethernet_frame, ip_packet, udp_datagram
from engine.capture.turns import FAULTS, LOSS, Timed, Turns
from engine.values.errors import ConfigError

Lost = Callable[[int], object]
"""Hears of how many segments were lost on the way."""

_CLIENT_MAC, _SERVER_MAC = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
_DATAGRAM = 65_507 - 20  # bytes: with the headers of IPv6, too
_MTU_LEAST, _MTU_MOST = 1, 65_000

Fields = Mapping[Any, Any]


class Said(NamedTuple):
    """What one end says in its turn."""

    by_client: bool
    data: bytes
    body: range = range(0)
    """Where in it segments may get lost."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """One connection, or what two ends send each other in datagrams."""

    client: str
    server: str
    client_port: int
    """0 for one that nobody uses."""
    port: int
    rtt: float
    """Seconds to the other end and back."""
    mss: int
    """The most payload bytes in one segment."""
    fault: str
    """One of `FAULTS`, or ""."""
    is_tcp: bool
    turns: tuple[Said, ...]
    at: float | None
    """Seconds since the beginning of the simulation; None for now."""
    server_closes: bool = False

    def frames(self, begin_ns: int, client_port: int, rng: random.Random, lost: Lost) -> Timed:
        """All frames, in the order of their times, the first at `begin_ns`."""
        client = Endpoint(self.client, self.client_port or client_port, _CLIENT_MAC)
        server = Endpoint(self.server, self.port, _SERVER_MAC)
        trip_ns = round(self.rtt / 2 * 1e9)
        if not self.is_tcp:
            return _datagrams(self.turns, client, server, begin_ns, trip_ns)
        tcp = TcpConversation(client, server, rng.getrandbits(32), rng.getrandbits(32), self.mss)
        turns = Turns(tcp, rng, self.fault, trip_ns, begin_ns - trip_ns)
        return self._play(turns, lost)

    def _play(self, turns: Turns, lost: Lost) -> Timed:
        yield from turns.open()
        for said in self.turns:
            if not said.data:
                continue
            first = turns.tcp.client_seq if said.by_client else turns.tcp.server_seq
            segments = turns.segments(said.by_client, said.data)
            if self.fault == LOSS:
                before = len(segments)
                turns.lose(segments, first, said.body)
                lost(before - len(segments))
            yield from turns.timed(segments)
        yield from turns.timed(turns.tcp.close(client_first=not self.server_closes))


def _datagrams(turns: tuple[Said, ...], client: Endpoint, server: Endpoint, begin_ns: int, trip_ns: int) -> Timed:
    for number, (by_client, data, _) in enumerate(turns):
        source, target = (client, server) if by_client else (server, client)
        datagram = udp_datagram(data, source=source, target=target)
        packet = ip_packet(
            datagram, protocol=UDP, source=source.packed, target=target.packed, identification=number & 0xFFFF
        )
        yield begin_ns + number * trip_ns, ethernet_frame(packet, source=source.mac, target=target.mac)


# ---- reading what scripts give. `ConfigError` names the field.

_COMMON = {"client", "server", "client_port", "port", "rtt", "mss", "fault", "at"}
_EXCHANGE = {"method", "uri", "host", "body", "upload", "content_type", "upload_type", "status", "framing"}


def read_http(given: Fields, rng: random.Random) -> Transfer:
    """A connection with HTTP exchanges, one after the other: `exchanges`, or one whose fields stand beside those of the
    connection. Raises `ConfigError`.
    """
    fields = _Fields("T.sim.http", given, _COMMON | _EXCHANGE | {"exchanges"})
    if "exchanges" in fields.values:
        wrong = sorted(_EXCHANGE & set(fields.values))
        if wrong:
            raise ConfigError(f"T.sim.http: {wrong[0]} belongs into the tables of exchanges")
        listed = [_Fields("T.sim.http, exchanges", each, _EXCHANGE) for each in fields.tables("exchanges")]
    else:
        listed = [_Fields("T.sim.http", {k: v for k, v in fields.values.items() if k in _EXCHANGE}, _EXCHANGE)]
    turns: list[Said] = []
    closing = False
    for exchange in listed:
        if closing:
            raise ConfigError('T.sim.http: framing "close" is for the last exchange of a connection')
        closing = exchange.one_of("framing", FRAMINGS, "length") == "close"
        turns += _exchange(exchange, fields.address("server"), rng)
    return _transfer(fields, tuple(turns), default_port=80, server_closes=closing)


def _exchange(fields: _Fields, server: str, rng: random.Random) -> Iterator[Said]:
    upload, body = fields.data("upload"), fields.data("body") or b""
    method = fields.line("method", "GET" if upload is None else "POST")
    host = fields.line("host", server)
    headers = [("Host", host), ("User-Agent", "offpath-sim/1"), ("Accept", "*/*")]
    if upload is not None:
        kind = fields.line("upload_type", "application/octet-stream")
        headers += [("Content-Type", kind), ("Content-Length", str(len(upload)))]
    request = head(f"{method} {fields.line('uri', '/')} HTTP/1.1", headers)
    yield Said(True, request + (upload or b""), range(len(request), len(request) + len(upload or b"")))
    status = fields.whole("status", 200, 200, 599)
    framing = fields.one_of("framing", FRAMINGS, "length")
    how, sent = framed(body, framing, rng)
    kind = fields.line("content_type", "application/octet-stream")
    response = head(f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", [("Content-Type", kind), *how])
    if status in (204, 304) or method == "HEAD":
        sent = b""
    known = range(len(response), len(response) + len(sent)) if framing == "length" else range(0)
    yield Said(False, response + sent, known)


_REASONS = {200: "OK", 201: "Created", 204: "No Content", 304: "Not Modified", 404: "Not Found", 500: "Server Error"}


def read_flow(given: Fields) -> Transfer:
    """What two ends send each other: `sends` has texts of the client and the server in turn. Raises `ConfigError`."""
    fields = _Fields("T.sim.flow", given, _COMMON | {"protocol", "sends"})
    is_tcp = fields.one_of("protocol", ("tcp", "udp"), "tcp") == "tcp"
    sends = fields.texts("sends")
    if not is_tcp:
        if fields.line("fault", ""):
            raise ConfigError("T.sim.flow: faults are of TCP")
        for data in sends:
            if len(data) > _DATAGRAM:
                raise ConfigError(f"T.sim.flow: {len(data):,} bytes of sends are no datagram")
    turns = tuple(Said(number % 2 == 0, data, range(len(data))) for number, data in enumerate(sends))
    return _transfer(fields, turns, default_port=None, is_tcp=is_tcp)


def _transfer(
    fields: _Fields,
    turns: tuple[Said, ...],
    *,
    default_port: int | None,
    is_tcp: bool = True,
    server_closes: bool = False,
) -> Transfer:
    client, server = fields.address("client"), fields.address("server")
    if ip_address(client).version != ip_address(server).version:
        raise ConfigError(f"{fields.method}: client and server must both be of IPv4 or both of IPv6")
    return Transfer(
        client=client,
        server=server,
        client_port=fields.whole("client_port", 0, 1, 65_535),
        port=fields.whole("port", default_port, 1, 65_535),
        rtt=fields.seconds("rtt", 0.02),
        mss=fields.whole("mss", 1_460, _MTU_LEAST, _MTU_MOST),
        fault=fields.one_of("fault", ("", *FAULTS), ""),
        is_tcp=is_tcp,
        turns=turns,
        at=fields.seconds("at", None),
        server_closes=server_closes,
    )


class _Fields:
    """The fields of a table that a script gave."""

    def __init__(self, method: str, given: object, known: Collection[str]) -> None:
        self.method = method
        if not isinstance(given, Mapping):
            raise ConfigError(f"{method}: must be a table")
        names = {_name(key): value for key, value in given.items()}
        for name in names:
            if name not in known:
                raise ConfigError(f"{method}: no field is named '{name}'")
        self.values: dict[str, Any] = names

    def _wrong(self, name: str, what: str) -> ConfigError:
        given = self.values.get(name)
        shown = "it is missing" if given is None else f"not {_shown(given)}"
        return ConfigError(f"{self.method}: {name} must be {what}; {shown}")

    def address(self, name: str) -> str:
        """An address of IPv4 or IPv6."""
        try:
            return str(ip_address(self.values[name].decode()))
        except (KeyError, AttributeError, ValueError):
            raise self._wrong(name, "an address such as 10.0.0.5") from None

    def whole(self, name: str, default: int | None, least: int, most: int) -> int:
        """A whole number; the default may lie outside of the bounds."""
        value = self.values.get(name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not (value == default or least <= value <= most):
            raise self._wrong(name, f"a whole number from {least} to {most}")
        return value

    def seconds(self, name: str, default: float | None) -> Any:
        """A number of seconds, or the default."""
        value = self.values.get(name, default)
        if value is None and default is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise self._wrong(name, "a number of seconds")
        return float(value)

    def data(self, name: str) -> bytes | None:
        """A string of bytes, or None."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bytes):
            raise self._wrong(name, "a string")
        return value

    def line(self, name: str, default: str) -> str:
        """A text of one line."""
        value = self.data(name)
        if value is None:
            return default
        if b"\r" in value or b"\n" in value:
            raise self._wrong(name, "a text of one line")
        return value.decode("utf-8", "surrogateescape")

    def one_of(self, name: str, choices: Collection[str], default: str) -> str:
        """One of some words."""
        value = self.line(name, default)
        if value not in choices:
            raise self._wrong(name, "one of " + ", ".join(f'"{each}"' for each in choices if each))
        return value

    def _listed(self, name: str) -> list[Any]:
        value = self.values.get(name)
        if not isinstance(value, Mapping) or not value or sorted(value) != list(range(1, len(value) + 1)):
            raise self._wrong(name, "a list")
        return [value[at] for at in range(1, len(value) + 1)]

    def tables(self, name: str) -> list[Any]:
        """A list of tables."""
        return self._listed(name)

    def texts(self, name: str) -> list[bytes]:
        """A list of strings."""
        listed = self._listed(name)
        if not all(isinstance(each, bytes) for each in listed):
            raise self._wrong(name, "a list of strings")
        return listed


def _name(key: object) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return repr(value.decode("utf-8", "replace"))[:60]
    return "a table" if isinstance(value, Mapping) else repr(value)[:60]
