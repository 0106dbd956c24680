"""HTTP exchanges with known contents, as the two ends of a synthetic connection send them."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import NamedTuple

from engine.capture.codings import CODERS, PERIOD, TOKENS
from engine.capture.http_messages import Headers, framed, head

_KINDS = (
    ("text/html", "html", b"<!DOCTYPE html>\n<html>"),
    ("text/html; charset=utf-8", "htm", b"<html><head>"),
    ("image/png", "png", b"\x89PNG\r\n\x1a\n"),
    ("application/octet-stream", "bin", b""),
    ("application/pdf", "pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"),
    ("application/x-msdownload", "exe", b"MZ\x90\x00\x03\x00\x00\x00\x04\x00\x00\x00\xff\xff\x00\x00"),
    ("application/zip", "zip", b"PK\x03\x04"),
    ("application/json", "json", b'{"items": ['),
)
HOSTS = ("www.example.com", "cdn.example.net", "files.example.org", "mirror.example.net:8080")
_WORDS = b"packet stream window seldom before header unless someone reads <i>back</i> \xc3\xa9t\xc3\xa9".split()


@dataclass(frozen=True, slots=True)
class SynthFile:
    """One body that the capture carries. Size and hashes are of the whole content, codings undone."""

    uri: str
    host: str
    """As in the Host header."""
    method: str
    direction: str
    """``"response"`` for a download, ``"request"`` for an upload."""
    content_type: str
    size: int
    """Bytes."""
    sha1: str
    sha256: str
    sha512: str
    framing: str
    """``"length"``, ``"chunked"`` or ``"close"``."""
    encoding: str
    """The Content-Encoding, ``""`` for none."""
    complete: bool
    """False when segments that hold parts of the body were left out of the capture."""
    connection: int
    """Which TCP connection, counted from 0 by start time."""


class Download(NamedTuple):
    """A file that is to be sent."""

    number: int
    size: int
    framing: str
    coding: str


class Exchange(NamedTuple):
    """A request and its response, as sent."""

    request: bytes
    response: bytes
    file: SynthFile | None = None
    body: range = range(0)
    """Where in the response segments may be lost: the body, when its length is known."""
    upload: SynthFile | None = None
    awaited: bytes = b""
    """The part of the request that the client holds back until the server says 100."""


class Http:
    """Makes the exchanges of one connection."""

    def __init__(self, connection: int, rng: random.Random) -> None:
        self._connection = connection
        self._rng = rng
        self._host = HOSTS[connection % len(HOSTS)]

    def download(self, spec: Download) -> Exchange:
        """A GET, or now and then a POST, that is answered with a file."""
        rng = self._rng
        content_type, suffix, magic = rng.choice(_KINDS)
        content = _content(rng, magic, spec.size, tiled=bool(spec.coding) or "html" in content_type)
        token = TOKENS.get(spec.coding, spec.coding)
        coded = CODERS[spec.coding](content) if spec.coding else content
        uri = f"/{spec.number:06d}/{rng.choice(('report', 'setup', 'a%20b', 'x'))}.{suffix}"
        uri += rng.choice(("", "", "?id=7&v=1.2"))
        method, request, upload = "GET", self._request("GET", uri), None
        if rng.random() < 0.1:
            method = "POST"
            request, body, upload = self._upload(uri)
            request += body
        version = "HTTP/1.0" if spec.framing == "close" and rng.random() < 0.5 else "HTTP/1.1"
        headers = [("Server", "synth"), ("Content-Type", content_type)]
        headers += [("Content-Encoding", token)] if token else []
        framing, wire = framed(coded, spec.framing, rng)
        opening = self._head(f"{version} 200 OK", [*headers, *framing])
        start = len(opening)
        known = range(start, start + len(wire)) if spec.framing == "length" else range(0)
        about = {"uri": uri, "method": method, "direction": "response", "content_type": content_type}
        file = self._file(content, **about, framing=spec.framing, encoding=token)
        return Exchange(request, opening + wire, file, known, upload)

    def without_download(self, card: str) -> Exchange:
        """An exchange whose response has no body: to HEAD, a 304, a 204, or the 204 to an upload."""
        uri = f"/bare/{self._connection:06d}"
        length = ("Content-Length", str(self._rng.randrange(1, 5_000)))
        if card == "HEAD":
            return Exchange(self._request("HEAD", uri), self._head("HTTP/1.1 200 OK", [length]))
        if card == "304":
            request = self._request("GET", uri, [("If-None-Match", '"v1"')])
            headers = [("ETag", '"v1"'), length][: self._rng.randint(1, 2)]
            return Exchange(request, self._head("HTTP/1.1 304 Not Modified", headers))
        done = self._head("HTTP/1.1 204 No Content", [("Server", "synth")])
        if card == "204":
            return Exchange(self._request("GET", uri), done)
        if card == "100":
            request, body, upload = self._upload(uri, [("Expect", "100-continue")])
            return Exchange(request, done, upload=upload, awaited=body)
        request, body, upload = self._upload(uri)
        return Exchange(request + body, done, upload=upload)

    def _upload(self, uri: str, headers: Headers = ()) -> tuple[bytes, bytes, SynthFile]:
        rng = self._rng
        content_type = rng.choice(("application/x-www-form-urlencoded", "application/octet-stream"))
        size = rng.randint(*rng.choice(((1, 300), (300, 20_000))))
        content = _content(rng, b"q=", size, tiled="form" in content_type)
        kind = rng.choice(("length", "length", "length", "chunked"))
        framing, wire = framed(content, kind, rng)
        request = self._request("POST", uri, [*headers, ("Content-Type", content_type), *framing])
        about = {"uri": uri, "method": "POST", "direction": "request", "content_type": content_type}
        return request, wire, self._file(content, **about, framing=kind, encoding="")

    def _request(self, method: str, uri: str, headers: Headers = ()) -> bytes:
        always = [("Host", self._host), ("User-Agent", "offpath-synth/1"), ("Accept", "*/*")]
        return self._head(f"{method} {uri} HTTP/1.1", [*always, *headers])

    def _head(self, first_line: str, headers: Headers) -> bytes:
        """Header names are spelled in lower case now and then, and values padded: RFC 9110 section 5."""
        lower, gap = self._rng.random() < 0.2, self._rng.choice((" ", " ", "", "  "))
        return head(first_line, headers, gap=gap, lower=lower)

    def _file(self, content: bytes, **known: str) -> SynthFile:
        return SynthFile(
            size=len(content),
            sha1=hashlib.sha1(content, usedforsecurity=False).hexdigest(),
            sha256=hashlib.sha256(content).hexdigest(),
            sha512=hashlib.sha512(content).hexdigest(),
            host=self._host,
            complete=True,
            connection=self._connection,
            **known,
        )


def _content(rng: random.Random, magic: bytes, size: int, *, tiled: bool) -> bytes:
    """Bytes of a file: noise behind the magic, or a text that repeats every `PERIOD` bytes."""
    if not tiled:
        return (magic + rng.randbytes(size))[:size]
    unit = (magic + b" ".join(rng.choices(_WORDS, k=PERIOD // 3)))[:PERIOD]
    return (unit * (size // PERIOD + 1))[:size]
