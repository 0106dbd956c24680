"""Certificates, and handshakes as attributes, resources and documents."""

from __future__ import annotations

import hashlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.capture.applications import certificates, tls_text
from engine.capture.applications.certificates import Certificate, pem, read_certificate, sha1, sha256
from engine.capture.applications.tls import TlsRecord
from engine.capture.applications.tls_hello import Chain, ClientHello, ServerHello
from engine.capture.applications.tls_text import READ_BYTES, attributes, document, resource
from tests.capture.tls_talk import certificate

pytest.importorskip("cryptography")

LEAF = certificate("a.example", "Middle CA", names=("a.example", "www.a.example"), rsa_key=True)
MIDDLE = certificate("Middle CA", "Root CA", "CA Company")
ROOT = certificate("Root CA", "", "CA Company")


def test_a_certificate() -> None:
    assert read_certificate(LEAF) == Certificate(
        subject="C=US, O=Example\\, Inc., CN=a.example",
        issuer="C=US, O=Example\\, Inc., CN=Middle CA",
        common_name="a.example",
        organisation="Example, Inc.",
        issuer_name="Middle CA",
        not_before="2026-01-02T03:04:05Z",
        not_after="2027-01-02T03:04:05Z",
        serial="abc",
        names=("DNS:a.example", "DNS:www.a.example"),
        is_self_issued=False,
    )
    root = read_certificate(ROOT)
    assert root is not None
    assert root.is_self_issued


def test_names_fall_back() -> None:
    plain = read_certificate(certificate("", "", "Only Org"))
    assert plain is not None
    assert (plain.name, plain.issuer_name) == ("Only Org", "Only Org")


def test_fingerprints_and_pem() -> None:
    assert sha1(LEAF) == hashlib.sha1(LEAF).hexdigest()
    assert sha256(LEAF) == hashlib.sha256(LEAF).hexdigest()
    assert pem(LEAF) == ssl.DER_cert_to_PEM_cert(LEAF)
    assert ssl.PEM_cert_to_DER_cert(pem(LEAF)) == LEAF


@pytest.mark.parametrize("der", [b"", b"\x30\x03\2\1\1", LEAF[:-1], LEAF + b"x"])
def test_a_malformed_certificate_is_none(der: bytes) -> None:
    assert read_certificate(der) is None


@given(st.lists(st.tuples(st.integers(0, len(LEAF) - 1), st.integers(0, 255)), min_size=1, max_size=5))
def test_mutated_certificates_raise_nothing(changes: list[tuple[int, int]]) -> None:
    der = bytearray(LEAF)
    for at, value in changes:
        der[at] = value
    chain = Chain((bytes(der),), whole=True)
    attributes(chain)
    resource(chain)
    document(chain)


def test_attributes() -> None:
    assert attributes(TlsRecord(b"\x16\3\1\0\0")) == [("TLS:RECORD", b"\x16\3\1\0\0")]
    assert attributes(ServerHello(0x0303, 0xC02F, (), 0x0303, False)) == [("TLS:CIPHER", b"C02F")]
    assert attributes(ServerHello(0x0303, 0x1301, (), 0x0304, True)) == []
    assert attributes(ClientHello(0x0303, (), ())) == []


@pytest.mark.parametrize("sent", [(LEAF, MIDDLE), (LEAF, MIDDLE, ROOT)])
def test_attributes_of_a_chain(sent: tuple[bytes, ...]) -> None:
    assert attributes(Chain(sent, whole=True)) == [
        ("TLS:O", b"Example, Inc."),
        ("TLS:CA:ROOT", b"Root CA"),
        ("TLS:CA:INTER", b"Middle CA"),
    ]


def test_attributes_of_what_is_not_all_there() -> None:
    assert attributes(Chain((LEAF, MIDDLE), whole=False)) == [
        ("TLS:O", b"Example, Inc."),
        ("TLS:CA:INTER", b"Middle CA"),
    ]
    assert attributes(Chain((b"junk", MIDDLE), whole=True)) == [
        ("TLS:CA:ROOT", b"Root CA"),
        ("TLS:CA:INTER", b"Middle CA"),
    ]
    assert attributes(Chain((), whole=True)) == []


def test_the_resource_of_a_chain() -> None:
    assert resource(Chain((LEAF, MIDDLE), whole=True)) == (f"SHA1:{sha1(LEAF)} a.example", pem(LEAF) + pem(MIDDLE))
    assert resource(Chain((b"junk",), whole=True)) == (f"SHA1:{sha1(b'junk')} ", pem(b"junk"))
    assert resource(Chain((), whole=True)) is None


def test_the_document_has_what_scripts_search() -> None:
    text = document(Chain((LEAF, MIDDLE), whole=True))
    for line in (
        "NAME:C=US, O=Example\\, Inc., CN=a.example",
        "        Signature Algorithm: sha256WithRSAEncryption",
        "        Issuer: C=US, O=Example\\, Inc., CN=Middle CA",
        "            Not Before: Jan  2 03:04:05 2026 GMT",
        "            Public Key Algorithm: rsaEncryption",
        "                Exponent: 65537 (0x10001)",
        "            X509v3 Subject Key Identifier:",
        "            X509v3 Basic Constraints: critical",
        "                DNS:a.example, DNS:www.a.example",
        "                OCSP - URI:http://ocsp.example",
        "            Public Key Algorithm: id-ecPublicKey",
        "                ASN1 OID: prime256v1",
    ):
        assert line in text.splitlines()
    assert text.count("-----BEGIN CERTIFICATE-----") == 2
    modulus = text.partition("Modulus:\n")[2].partition("Exponent")[0]
    assert modulus.strip().startswith("00:")
    assert len(bytes.fromhex("".join(modulus.split()).replace(":", ""))) == 257


def test_only_so_much_of_a_chain_is_read() -> None:
    big = certificate(names=tuple("a" * 50 + str(each) for each in range(250)))
    assert len(big) > READ_BYTES
    chain = Chain((big, LEAF), whole=True)
    assert attributes(chain) == []
    assert resource(chain) == (f"SHA1:{sha1(big)} ", pem(big) + pem(LEAF))
    assert "Certificate:" not in document(chain)
    assert document(chain).count("-----BEGIN CERTIFICATE-----") == 2


def test_without_the_library_hashes_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (certificates, tls_text):
        monkeypatch.setattr(module, "HAVE_X509", False)
    read_certificate.cache_clear()
    chain = Chain((LEAF,), whole=True)
    assert read_certificate(LEAF) is None
    assert attributes(chain) == []
    assert resource(chain) == (f"SHA1:{sha1(LEAF)} ", pem(LEAF))
    assert document(chain) == f"NAME:\nSHA1:{sha1(LEAF)}\n{pem(LEAF)}"
    read_certificate.cache_clear()
