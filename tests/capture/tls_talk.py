"""TLS handshakes made field by field."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

from engine.capture.applications.tls import TlsEvent, TlsReader, TlsRecord
from engine.values.config import CaptureLimits
from engine.values.stats import TlsStats

RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


def vector(data: bytes, width: int) -> bytes:
    return len(data).to_bytes(width) + data


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def extension(kind: int, body: bytes = b"") -> bytes:
    return numbers(kind) + vector(body, 2)


def sni(name: bytes) -> bytes:
    return extension(0, vector(b"\0" + vector(name, 2), 2))


def alpn(*names: bytes) -> bytes:
    return extension(16, vector(b"".join(vector(each, 1) for each in names), 2))


def client_body(*extensions: bytes, version: int = 0x0303, ciphers: tuple[int, ...] = (0x1301, 0xC02F)) -> bytes:
    body = numbers(version) + bytes(32) + vector(b"id", 1) + vector(numbers(*ciphers), 2) + b"\1\0"
    return body + vector(b"".join(extensions), 2) if extensions else body


def server_body(*extensions: bytes, cipher: int = 0xC02F, random: bytes = bytes(32)) -> bytes:
    body = numbers(0x0303) + random + b"\0" + numbers(cipher) + b"\0"
    return body + vector(b"".join(extensions), 2) if extensions else body


def chain_body(*certificates: bytes) -> bytes:
    return vector(b"".join(vector(each, 3) for each in certificates), 3)


def message(kind: int, body: bytes = b"") -> bytes:
    return bytes((kind,)) + vector(body, 3)


def record(data: bytes, kind: int = 22, version: int = 0x0303) -> bytes:
    return bytes((kind,)) + numbers(version) + vector(data, 2)


CHANGE = record(b"\1", 20)
DATA = record(b"secret" * 5, 23)
CLIENT = message(1, client_body(sni(b"a.example"), alpn(b"h2", b"http/1.1")))
SERVER = message(2, server_body())
RETRY = message(2, server_body(extension(43, numbers(0x0304)), random=RETRY_RANDOM))


class Talk:
    """A connection, and what came of it."""

    def __init__(self, *, records: bool = False, **limits: int) -> None:
        self.reader = TlsReader(CaptureLimits(**limits), records=records)  # type: ignore[arg-type]
        self.connection = self.reader.open()
        self.events: list[tuple[int, TlsEvent]] = []

    def say(self, direction: int, *data: bytes, sizes: list[int] | None = None) -> Talk:
        """Feed bytes, in pieces of these sizes and then the rest."""
        joined, at = b"".join(data), 0
        for size in [*(sizes or []), len(joined)]:
            piece = joined[at : at + size]
            self.events += [(direction, each) for each in self.connection.data(direction, piece)]
            at += size
        return self

    def gap(self, direction: int, length: int) -> Talk:
        self.connection.gap(direction, length)
        return self

    @property
    def records(self) -> list[bytes]:
        return [each.data for _, each in self.events if isinstance(each, TlsRecord)]

    @property
    def kinds(self) -> list[str]:
        return [type(each).__name__ for _, each in self.events]

    def stats(self) -> TlsStats:
        return self.reader.stats()


def certificate(
    common_name: str = "a.example",
    issuer: str = "",
    organisation: str = "Example, Inc.",
    names: tuple[str, ...] = (),
    *,
    rsa_key: bool = False,
) -> bytes:
    """A signed certificate, DER; without an issuer it is self-issued."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

    key = rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())

    def name(common: str) -> x509.Name:
        parts = [(NameOID.COUNTRY_NAME, "US"), (NameOID.ORGANIZATION_NAME, organisation), (NameOID.COMMON_NAME, common)]
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts if value])

    ocsp = x509.AccessDescription(
        AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://ocsp.example")
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common_name))
        .issuer_name(name(issuer or common_name))
        .public_key(key.public_key())
        .serial_number(0xABC)
        .not_valid_before(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.AuthorityInformationAccess([ocsp]), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(map(x509.DNSName, names)), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
