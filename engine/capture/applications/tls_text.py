"""TLS handshakes as what scripts see: flow attributes (spec 2.11), resources and documents (spec, appendix A)."""

from __future__ import annotations

from typing import Final

from engine.capture.applications.certificates import HAVE_X509, pem, read_certificate, sha1
from engine.capture.applications.tls import TlsEvent, TlsRecord
from engine.capture.applications.tls_hello import Chain, ServerHello

READ_BYTES: Final = 12_288
"""Of one chain, what is read of certificates; those behind are known by their hash. 10 ms when all of it is names."""


def attributes(event: TlsEvent) -> list[tuple[str, bytes]]:
    """Names and values for `onattribute`, in the order in which they are to be told."""
    if isinstance(event, TlsRecord):
        return [("TLS:RECORD", event.data)]
    if isinstance(event, ServerHello) and not event.is_retry:
        return [("TLS:CIPHER", f"{event.cipher:04X}".encode())]
    if isinstance(event, Chain):
        return [(name, value.encode()) for name, value in _chain_attributes(event) if value]
    return []


def resource(chain: Chain) -> tuple[str, str] | None:
    """`uri` and `contents` for the group "SSL Certs": the first certificate's hash and name, and the chain as PEM.

    None for a chain without certificates.
    """
    if not chain.certificates:
        return None
    first = chain.certificates[0]
    certificate = read_certificate(first) if _readable(chain) else None
    uri = f"SHA1:{sha1(first)} {certificate.name if certificate else ''}"
    return uri, "".join(map(pem, chain.certificates))


def document(chain: Chain) -> str:
    """The full text for the group "SSL Certs": each certificate's name, issuer, dump and PEM."""
    readable = _readable(chain)
    return "\n".join(_certificate_text(der, readable=at < len(readable)) for at, der in enumerate(chain.certificates))


def _readable(chain: Chain) -> tuple[bytes, ...]:
    """The certificates within `READ_BYTES`, from the first one on."""
    total = 0
    for at, der in enumerate(chain.certificates):
        total += len(der)
        if total > READ_BYTES:
            return chain.certificates[:at]
    return chain.certificates


def _chain_attributes(chain: Chain) -> list[tuple[str, str]]:
    """The organisation of the first, who issued the last (the root is seldom sent itself), and the CAs between."""
    readable = _readable(chain)
    certificates = [read_certificate(der) for der in readable]
    first, last = (certificates[0], certificates[-1]) if certificates else (None, None)
    between = [each.name for each in certificates[1:] if each is not None and not each.is_self_issued]
    seen_last = chain.whole and len(readable) == len(chain.certificates)
    return [
        ("TLS:O", first.organisation if first else ""),
        ("TLS:CA:ROOT", last.issuer_name if last and seen_last else ""),
        *(("TLS:CA:INTER", name) for name in between),
    ]


def _certificate_text(der: bytes, *, readable: bool) -> str:
    certificate = read_certificate(der) if readable else None
    if certificate is None or not HAVE_X509:
        return f"NAME:\nSHA1:{sha1(der)}\n{pem(der)}"
    from engine.capture.applications.certificate_text import dump

    return f"NAME:{certificate.subject}\nSHA1:{sha1(der)}\n{dump(der)}{pem(der)}"
