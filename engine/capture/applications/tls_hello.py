"""Bodies of TLS handshake messages that are sent in the clear: hellos and certificate chains (RFC 5246, RFC 8446).

Every number, GREASE included (RFC 8701), is given as it was sent. Raises nothing for what the bytes hold.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

HELLO_BYTES: Final = 8_192
"""A longer hello counts as malformed; with keys that quantum computers can't break one has 2 KiB."""

MOST_EXTENSIONS: Final = 256
MOST_PROTOCOLS: Final = 64
"""Of one hello; past either it counts as malformed."""

_RETRY_RANDOM: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


class Extension(IntEnum):
    """The extensions that are looked into."""

    SERVER_NAME = 0
    SUPPORTED_GROUPS = 10
    EC_POINT_FORMATS = 11
    SIGNATURE_ALGORITHMS = 13
    ALPN = 16
    SUPPORTED_VERSIONS = 43


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client offers, each in the order sent; what was not sent is empty."""

    version: int
    """The version field, which TLS 1.3 leaves at 0x0303."""
    ciphers: tuple[int, ...]
    extensions: tuple[int, ...]
    server_name: str = ""
    """SNI in lower case, without a final dot."""
    alpn: tuple[bytes, ...] = ()
    groups: tuple[int, ...] = ()
    point_formats: tuple[int, ...] = ()
    signature_algorithms: tuple[int, ...] = ()
    versions: tuple[int, ...] = ()
    """Of the supported_versions extension."""


@dataclass(frozen=True, slots=True)
class ServerHello:
    """What a server chose."""

    version: int
    """The version field, which TLS 1.3 leaves at 0x0303."""
    cipher: int
    extensions: tuple[int, ...]
    selected_version: int
    """The version spoken from here on."""
    is_retry: bool
    """A HelloRetryRequest (RFC 8446 4.1.4): another hello comes from each side."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A certificate chain, the sender's own certificate first, each DER."""

    certificates: tuple[bytes, ...]
    whole: bool
    """False where there were more than the limit allows."""


class _MalformedError(Exception):
    """A length is a lie, or a limit is passed; raised and caught in here."""


class _Bytes:
    """Reads big-endian numbers and vectors with a length before them."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._position

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise _MalformedError
        self._position += size
        return self._data[self._position - size : self._position]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width))

    def vector(self, width: int) -> bytes:
        return self.take(self.number(width))


def read_client_hello(body: bytes) -> ClientHello | None:
    """The body of a client_hello, without the four bytes of the message's own header; None when malformed."""
    try:
        data = _hello(body)
        version = data.number(2)
        data.take(32)
        data.vector(1)
        ciphers = _numbers(data.vector(2))
        data.vector(1)
        order, extensions = _extensions(data)
        found = {each: extensions[each] for each in Extension if each in extensions}
        return ClientHello(
            version=version,
            ciphers=ciphers,
            extensions=order,
            server_name=_server_name(found.get(Extension.SERVER_NAME)),
            alpn=_protocols(found.get(Extension.ALPN)),
            groups=_listed(found.get(Extension.SUPPORTED_GROUPS), 2),
            point_formats=tuple(_Bytes(found.get(Extension.EC_POINT_FORMATS, b"\0")).vector(1)),
            signature_algorithms=_listed(found.get(Extension.SIGNATURE_ALGORITHMS), 2),
            versions=_listed(found.get(Extension.SUPPORTED_VERSIONS), 1),
        )
    except _MalformedError:
        return None


def read_server_hello(body: bytes) -> ServerHello | None:
    """The body of a server_hello, or of a HelloRetryRequest; None when malformed."""
    try:
        data = _hello(body)
        version = data.number(2)
        random = data.take(32)
        data.vector(1)
        cipher = data.number(2)
        data.take(1)
        order, extensions = _extensions(data)
        selected = extensions.get(Extension.SUPPORTED_VERSIONS)
        return ServerHello(
            version=version,
            cipher=cipher,
            extensions=order,
            selected_version=_Bytes(selected).number(2) if selected is not None else version,
            is_retry=random == _RETRY_RANDOM,
        )
    except _MalformedError:
        return None


def read_chain(body: bytes, most: int) -> Chain | None:
    """The body of a certificate message up to TLS 1.2, at most that many of it; None when malformed."""
    certificates: list[bytes] = []
    try:
        data = _Bytes(_Bytes(body).vector(3))
        while data.left and len(certificates) < most:
            certificates.append(data.vector(3))
    except _MalformedError:
        return None
    return Chain(tuple(certificates), not data.left)


def _hello(body: bytes) -> _Bytes:
    if len(body) > HELLO_BYTES:
        raise _MalformedError
    return _Bytes(body)


def _extensions(data: _Bytes) -> tuple[tuple[int, ...], dict[int, bytes]]:
    """Types in the order sent, and the first body of each. There may be none at all (before TLS 1.2)."""
    order: list[int] = []
    bodies: dict[int, bytes] = {}
    if data.left:
        block = _Bytes(data.vector(2))
        while block.left:
            kind = block.number(2)
            order.append(kind)
            if len(order) > MOST_EXTENSIONS:
                raise _MalformedError
            bodies.setdefault(kind, block.vector(2))
    return tuple(order), bodies


def _numbers(data: bytes) -> tuple[int, ...]:
    if len(data) % 2:
        raise _MalformedError
    return struct.unpack(f">{len(data) // 2}H", data)


def _listed(body: bytes | None, width: int) -> tuple[int, ...]:
    return _numbers(_Bytes(body).vector(width)) if body is not None else ()


def _server_name(body: bytes | None) -> str:
    """The first of the list, where it is a host name: no other kind was ever defined (RFC 6066 3)."""
    names = _Bytes(_Bytes(body).vector(2)) if body else _Bytes(b"")
    if not names.left:
        return ""
    kind, name = names.number(1), names.vector(2)
    return "" if kind else name.decode("ascii", "backslashreplace").lower().removesuffix(".")


def _protocols(body: bytes | None) -> tuple[bytes, ...]:
    """RFC 7301 3.1."""
    names = _Bytes(_Bytes(body).vector(2) if body is not None else b"")
    found: list[bytes] = []
    while names.left:
        found.append(names.vector(1))
        if len(found) > MOST_PROTOCOLS:
            raise _MalformedError
    return tuple(found)
