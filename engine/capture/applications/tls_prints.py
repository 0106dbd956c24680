"""Fingerprints of TLS hellos: JA3, JA3S, and JA4 of clients (a specification under the BSD 3-clause license)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from engine.capture.applications.tls_hello import ClientHello, Extension, ServerHello

_JA4_VERSIONS: Final = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}
_NO_HASH: Final = "0" * 12


def is_grease(value: int) -> bool:
    """Whether a two-byte value is one of those that clients send to be ignored (RFC 8701)."""
    return value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF


def ja3(hello: ClientHello) -> str:
    """``version,ciphers,extensions,groups,point formats`` in decimal, without GREASE."""
    lists = (hello.ciphers, hello.extensions, hello.groups, hello.point_formats)
    return ",".join([str(hello.version), *map(_dashed, lists)])


def ja3s(hello: ServerHello) -> str:
    """``version,cipher,extensions`` in decimal."""
    return f"{hello.version},{hello.cipher},{_dashed(hello.extensions)}"


def md5(text: str) -> str:
    """The usual short form of JA3 and JA3S, hex."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def ja4(hello: ClientHello, *, protocol: str = "t") -> str:
    """The JA4 fingerprint; `protocol` is t for TCP, q for QUIC, d for DTLS."""
    ciphers = [each for each in hello.ciphers if not is_grease(each)]
    extensions = [each for each in hello.extensions if not is_grease(each)]
    name = "d" if Extension.SERVER_NAME in extensions else "i"
    counts = f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}"
    tail = _hex(sorted(_others(extensions)))
    if algorithms := _hex(each for each in hello.signature_algorithms if not is_grease(each)):
        tail += f"_{algorithms}"
    return "_".join(
        (
            f"{protocol}{_ja4_version(hello)}{name}{counts}{_ja4_alpn(hello)}",
            _short_hash(_hex(sorted(ciphers))),
            _short_hash(tail),
        )
    )


def _others(extensions: Iterable[int]) -> list[int]:
    """Extensions without those that JA4 has in its first part."""
    return [each for each in extensions if each not in (Extension.SERVER_NAME, Extension.ALPN)]


def _dashed(values: Iterable[int]) -> str:
    return "-".join(str(each) for each in values if not is_grease(each))


def _hex(values: Iterable[int]) -> str:
    return ",".join(f"{each:04x}" for each in values)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else _NO_HASH


def _ja4_version(hello: ClientHello) -> str:
    offered = [each for each in hello.versions if not is_grease(each)]
    return _JA4_VERSIONS.get(max(offered, default=hello.version), "00")


def _ja4_alpn(hello: ClientHello) -> str:
    """First and last character of the first protocol, or of its hex where one of them is not alphanumeric ASCII."""
    first = hello.alpn[0] if hello.alpn else b""
    if not first:
        return "00"
    ends = bytes((first[0], first[-1]))
    text = ends.decode("latin-1") if ends.isalnum() else first.hex()
    return text[0] + text[-1]
