"""X.509 certificates (RFC 5280) as plain values. The library that reads them is the extra `tls`; without it, hashes."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache

try:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    HAVE_X509 = True
    """Whether certificates can be read; else only their fingerprints are known."""
except ImportError:  # pragma: no cover
    HAVE_X509 = False

_CACHED = 256  # certificates: the same few come again and again, and one takes 50 µs to read


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate; names are as in RFC 4514, but the most general part first: ``C=US, O=Example, CN=a.example``."""

    subject: str
    issuer: str
    common_name: str
    """Of the subject, "" without one."""
    organisation: str
    """Of the subject, "" without one."""
    issuer_name: str
    """Of the issuer: its common name, else organisation, else all of it."""
    not_before: str
    """ISO 8601, UTC: ``2026-01-31T00:00:00Z``."""
    not_after: str
    serial: str
    """Hex."""
    names: tuple[str, ...]
    """Subject alternative names: ``DNS:...``, ``IP:...``, ``email:...``, ``URI:...``."""
    is_self_issued: bool
    """Subject and issuer are the same name: a root, or self-signed."""

    @property
    def name(self) -> str:
        """What it is called: its common name, else organisation, else all of the subject."""
        return self.common_name or self.organisation or self.subject


def sha1(der: bytes) -> str:
    """The fingerprint by which resources are named, hex."""
    return hashlib.sha1(der, usedforsecurity=False).hexdigest()


def sha256(der: bytes) -> str:
    """The other common fingerprint, hex."""
    return hashlib.sha256(der).hexdigest()


def pem(der: bytes) -> str:
    """The certificate between its BEGIN and END lines (RFC 7468)."""
    encoded = base64.b64encode(der).decode()
    body = "\n".join(encoded[at : at + 64] for at in range(0, len(encoded), 64))
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


@lru_cache(maxsize=_CACHED)
def read_certificate(der: bytes) -> Certificate | None:
    """None when it is malformed, or the library is missing (`HAVE_X509`)."""
    if not HAVE_X509:
        return None
    try:
        return _read(x509.load_der_x509_certificate(der))
    except Exception:  # whatever is wrong with it: the library documents no closed set, and fields are read late
        return None


def _read(certificate: x509.Certificate) -> Certificate:
    subject, issuer = certificate.subject, certificate.issuer
    issuer_text = name_text(issuer)
    return Certificate(
        subject=name_text(subject),
        issuer=issuer_text,
        common_name=_first(subject, NameOID.COMMON_NAME),
        organisation=_first(subject, NameOID.ORGANIZATION_NAME),
        issuer_name=_first(issuer, NameOID.COMMON_NAME) or _first(issuer, NameOID.ORGANIZATION_NAME) or issuer_text,
        not_before=certificate.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        not_after=certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        serial=f"{certificate.serial_number:x}",
        names=alternative_names(certificate),
        is_self_issued=subject == issuer,
    )


def name_text(name: x509.Name) -> str:
    """A distinguished name on one line, most general part first."""
    return ", ".join(each.rfc4514_string({NameOID.EMAIL_ADDRESS: "emailAddress"}) for each in name.rdns)


def alternative_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The subject alternative names, those kinds that are text. May raise what the library raises."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    kinds: dict[type, str] = {
        x509.DNSName: "DNS",
        x509.IPAddress: "IP",
        x509.RFC822Name: "email",
        x509.UniformResourceIdentifier: "URI",
    }
    return tuple(f"{kinds[type(each)]}:{each.value}" for each in names if type(each) in kinds)


def _first(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    values = name.get_attributes_for_oid(oid)
    value = values[0].value if values else ""
    return value if isinstance(value, str) else value.hex()
