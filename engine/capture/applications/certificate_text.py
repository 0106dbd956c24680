"""A certificate as the text that the openssl program prints, which scripts search; needs the library of `HAVE_X509`."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from engine.capture.applications.certificates import alternative_names, name_text


def dump(der: bytes) -> str:
    """The text, or "" for what can't be read. Parts that can't be read are left out."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        return "\n".join(_lines(certificate)) + "\n"
    except Exception:  # as in certificates.py
        return ""


def _lines(certificate: x509.Certificate) -> Iterator[str]:
    algorithm = _oid_text(certificate.signature_algorithm_oid)
    yield "Certificate:"
    yield "    Data:"
    yield f"        Version: {certificate.version.value + 1} ({certificate.version.value:#x})"
    yield f"        Serial Number: {certificate.serial_number:x}"
    yield f"        Signature Algorithm: {algorithm}"
    yield f"        Issuer: {name_text(certificate.issuer)}"
    yield "        Validity"
    yield f"            Not Before: {certificate.not_valid_before_utc:%b %e %H:%M:%S %Y} GMT"
    yield f"            Not After : {certificate.not_valid_after_utc:%b %e %H:%M:%S %Y} GMT"
    yield f"        Subject: {name_text(certificate.subject)}"
    yield "        Subject Public Key Info:"
    yield f"            Public Key Algorithm: {_oid_text(certificate.public_key_algorithm_oid)}"
    yield from _key_lines(certificate)
    yield from _extension_lines(certificate)
    yield f"    Signature Algorithm: {algorithm}"
    yield from _hex_block(certificate.signature, 18, 9)


def _key_lines(certificate: x509.Certificate) -> Iterator[str]:
    try:
        key = certificate.public_key()
    except Exception:  # a key or curve that the library does not know
        return
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        yield f"                Public-Key: ({key.key_size} bit)"
        yield "                Modulus:"
        modulus = b"\0" + numbers.n.to_bytes((key.key_size + 7) // 8)
        yield from _hex_block(modulus, 15, 20)
        yield f"                Exponent: {numbers.e} ({numbers.e:#x})"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        yield f"                Public-Key: ({key.key_size} bit)"
        yield f"                ASN1 OID: {_CURVES.get(key.curve.name, key.curve.name)}"


_CURVES = {"secp256r1": "prime256v1", "secp192r1": "prime192v1"}


def _extension_lines(certificate: x509.Certificate) -> Iterator[str]:
    try:
        extensions = list(certificate.extensions)
        names = alternative_names(certificate)
    except Exception:  # one that is malformed, or comes twice, spoils all
        return
    if extensions:
        yield "        X509v3 extensions:"
    for each in extensions:
        lines = names if isinstance(each.value, x509.SubjectAlternativeName) else _extension_text(each.value)
        if lines:
            yield f"            {_TITLES[type(each.value)]}:{' critical' if each.critical else ''}"
            yield from (f"                {line}" for line in ([", ".join(lines)] if lines is names else lines))


_TITLES: dict[type, str] = {
    x509.SubjectAlternativeName: "X509v3 Subject Alternative Name",
    x509.SubjectKeyIdentifier: "X509v3 Subject Key Identifier",
    x509.AuthorityKeyIdentifier: "X509v3 Authority Key Identifier",
    x509.BasicConstraints: "X509v3 Basic Constraints",
    x509.AuthorityInformationAccess: "Authority Information Access",
    x509.CRLDistributionPoints: "X509v3 CRL Distribution Points",
}


def _extension_text(value: x509.ExtensionType) -> tuple[str, ...]:
    """Lines of those extensions that have a title above; none for others."""
    if isinstance(value, x509.SubjectKeyIdentifier):
        return (_colons(value.digest),)
    if isinstance(value, x509.AuthorityKeyIdentifier):
        return (f"keyid:{_colons(value.key_identifier)}",) if value.key_identifier else ()
    if isinstance(value, x509.BasicConstraints):
        return (f"CA:{str(value.ca).upper()}",)
    if isinstance(value, x509.AuthorityInformationAccess):
        titles = {"OCSP": "OCSP", "caIssuers": "CA Issuers"}
        methods = ((_oid_text(each.access_method), each.access_location) for each in value)
        return tuple(f"{titles.get(name, name)} - {_location(location)}" for name, location in methods)
    if isinstance(value, x509.CRLDistributionPoints):
        return tuple(_location(name) for point in value for name in point.full_name or ())
    return ()


def _location(name: x509.GeneralName) -> str:
    return f"URI:{name.value}" if isinstance(name, x509.UniformResourceIdentifier) else str(name.value)


def _oid_text(oid: x509.ObjectIdentifier) -> str:
    name = oid._name  # the library's only name for it, which is OpenSSL's
    return oid.dotted_string if name == "Unknown OID" else name


def _colons(data: bytes) -> str:
    return data.hex(":").upper()


def _hex_block(data: bytes, per_line: int, margin: int) -> Iterator[str]:
    for at in range(0, len(data), per_line):
        yield " " * margin + data[at : at + per_line].hex(":") + (":" if at + per_line < len(data) else "")
