"""Captures of HTTP downloads whose every file is known beforehand: the measure of tests and benchmarks.

All variety comes from one seed. Nothing may depend on the machine: no clock, and no compressor, since their
output differs between versions of a library; the content codings are written out here instead.
"""

from __future__ import annotations

import hashlib
import heapq
import random
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from engine.capture import packets
from engine.capture.packets import Endpoint, PcapWriter, Segment, TcpConversation

START_NS = 1_700_000_000 * 1_000_000_000  # 2023-11-14 22:13:20 UTC
BIG_FILE_BYTES = 6_000_000  # beyond the default size at which bodies are handed on in parts
BIG_FILE_FROM = 20  # files in a capture that make room for a big one

_FAULTS = ("no handshake", "reorder", "repeat", "overlap", "loss", "checksum")
_FAULT_CARDS = (*_FAULTS, *_FAULTS, "", "", "", "", "", "")
_EXTRA_CARDS = ("", "", "", "HEAD", "304", "204", "POST", "100")
_SHAPE_CARDS = (
    *[("length", "")] * 6,
    *[("chunked", "")] * 3,
    *[("close", "")] * 2,
    *[(framing, coding) for framing in ("length", "chunked") for coding in ("gzip", "zlib", "raw", "br")],
    ("close", "gzip"),
)
_SIZES = ((0.04, 0, 0), (0.08, 1, 1), (0.55, 2, 2_000), (0.90, 2_000, 20_000), (0.98, 20_000, 100_000))
_PERIOD = 1_280  # bytes
_LARGE = (100_000, 400_000)
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
_HOSTS = ("www.example.com", "cdn.example.net", "files.example.org", "mirror.example.net:8080")
_WORDS = b"packet stream window seldom before header unless someone reads <i>back</i> \xc3\xa9t\xc3\xa9".split()

Card = TypeVar("Card")
Timed = Iterator[tuple[int, bytes]]
Headers = Sequence[tuple[str, str]]


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


@dataclass(frozen=True, slots=True)
class Synthesis:
    """A capture that was written, and what is in it: files by connection, in their order there."""

    path: Path
    packets: int
    connections: int
    files: tuple[SynthFile, ...]

    @property
    def downloads(self) -> tuple[SynthFile, ...]:
        """The response bodies: as many as were asked for."""
        return tuple(each for each in self.files if each.direction == "response")


def manifest(synthesis: Synthesis) -> dict[str, Any]:
    """The contents as plain data for JSON. The folder is left out, so equal captures have equal manifests."""
    return {
        "capture": synthesis.path.name,
        "packets": synthesis.packets,
        "connections": synthesis.connections,
        "files": [asdict(each) for each in synthesis.files],
    }


def synthesize(path: Path | str, *, files: int, seed: int, faults: bool = False) -> Synthesis:
    """Write a capture with `files` downloads to `path`; the same arguments give the same bytes.

    Some connections also carry uploads and exchanges without a body. From 20 files on, exactly one is of
    about 6 MB. With `faults`, connections suffer what captures suffer: segments reordered, repeated,
    retransmitted with other boundaries or lost, no handshake, checksums left to the network card. Only a
    loss makes a file incomplete, and losses fall inside bodies of known length.
    Raises `ValueError` on a bad number and `OSError` when `path` can't be written.
    """
    if files < 1:
        raise ValueError(f"files must be at least 1, not {files!r}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, not {seed!r}")
    plans = _plan(files, random.Random(seed), faults)
    found: list[list[SynthFile]] = [[] for _ in plans]
    connections = (_Connection(plan, found[plan.number]) for plan in plans)
    with Path(path).open("wb") as stream:
        writer = PcapWriter(stream)
        for time_ns, frame in _interleave(connections):
            writer.write(time_ns, frame)
    everything = tuple(each for group in found for each in group)
    return Synthesis(Path(path), writer.packets, len(plans), everything)


class _Download(NamedTuple):
    number: int
    size: int
    framing: str
    coding: str


class _Plan(NamedTuple):
    """A connection before it is made. Its own seed keeps it apart from how connections interleave."""

    number: int
    start_ns: int
    seed: int
    fault: str
    extra: str
    downloads: list[_Download]


def _plan(files: int, rng: random.Random, faults: bool) -> list[_Plan]:
    shapes, extras = _deal(_SHAPE_CARDS, rng), _deal(_EXTRA_CARDS, rng)
    troubles = _deal(_FAULT_CARDS if faults else ("",), rng)
    big = rng.randrange(files) if files >= BIG_FILE_FROM else -1
    plans: list[_Plan] = []
    start_ns, number = START_NS, 0
    while number < files:
        # The first connections take each fault once, so that small captures have them too.
        trouble = _FAULTS[len(plans)] if faults and len(plans) < len(_FAULTS) else next(troubles)
        downloads: list[_Download] = []
        for _ in range(min(rng.choice((1, 2, 3, 4, 6)), files - number)):
            download = _Download(number, _size(rng), *next(shapes))
            size = BIG_FILE_BYTES + rng.randrange(400_000) if number == big else 0
            if trouble and not downloads and not size:
                size = rng.randrange(12_000, 60_000)  # faults need a body of several segments to act on
            if size:
                download = download._replace(size=size, framing="length", coding="")
            downloads.append(download)
            number += 1
            if download.framing == "close":
                break
        plans.append(_Plan(len(plans), start_ns, rng.getrandbits(64), trouble, next(extras), downloads))
        start_ns += rng.randrange(10_000, 40_000_000)
    return plans


def _deal(cards: Iterable[Card], rng: random.Random) -> Iterator[Card]:
    """Deal shuffled decks for ever, so that even a short run of cards is varied."""
    while True:
        deck = list(cards)
        rng.shuffle(deck)
        yield from deck


def _size(rng: random.Random) -> int:
    draw = rng.random()
    low, high = next(((low, high) for limit, low, high in _SIZES if draw < limit), _LARGE)
    return rng.randint(low, high)


def _interleave(connections: Iterator[_Connection]) -> Timed:
    """Frames of all connections in order of time; a connection is made only when its time has come."""
    running: list[tuple[int, bytes, int, Timed]] = []
    upcoming = next(connections, None)
    while running or upcoming:
        while upcoming and (not running or upcoming.plan.start_ns <= running[0][0]):
            frames = upcoming.frames()
            heapq.heappush(running, (*next(frames), upcoming.plan.number, frames))
            upcoming = next(connections, None)
        time_ns, frame, number, frames = running[0]
        yield time_ns, frame
        following = next(frames, None)
        if following is None:
            heapq.heappop(running)
        else:
            heapq.heapreplace(running, (*following, number, frames))


class _Connection:
    """Plays one connection: exchanges into sends, sends into segments, then faults, times and frames."""

    def __init__(self, plan: _Plan, found: list[SynthFile]) -> None:
        self.plan = plan
        self._rng = random.Random(plan.seed)
        self._found = found
        self._trip_ns = self._rng.randrange(2_000_000, 30_000_000)
        self._time_ns = plan.start_ns - self._trip_ns
        self._tcp = _conversation(plan, self._rng)
        self._http = _Http(plan.number, self._rng)

    def frames(self) -> Timed:
        """Every frame with its time; fills the list of files on the way."""
        if self.plan.fault == "no handshake":
            self._tcp.skip_open()
        else:
            yield from self._timed(self._tcp.open())
        if self.plan.extra:
            yield from self._converse([self._http.without_download(self.plan.extra)])
        rest = list(self.plan.downloads)
        while rest:
            pipelined = min(self._rng.choice((1, 1, 1, 2, 3)), len(rest))
            yield from self._converse([self._http.download(rest.pop(0)) for _ in range(pipelined)])
        closing = self.plan.downloads[-1].framing == "close"
        yield from self._timed(self._tcp.close(client_first=not closing and self._rng.random() < 0.5))

    def _converse(self, exchanges: list[_Exchange]) -> Timed:
        """Requests together, then responses together: pipelining when there is more than one."""
        yield from self._timed(self._segments(True, b"".join(each.request for each in exchanges)))
        for each in exchanges:
            if each.awaited:
                yield from self._timed(self._segments(False, b"HTTP/1.1 100 Continue\r\n\r\n"))
                yield from self._timed(self._segments(True, each.awaited))
        first_seq = self._tcp.server_seq
        segments = self._segments(False, b"".join(each.response for each in exchanges))
        start = 0
        for each in exchanges:
            if each.upload:
                self._found.append(each.upload)
            if each.file:
                body = range(start + each.body.start, start + each.body.stop)
                lost = self._lose(segments, first_seq, body) if self.plan.fault == "loss" else False
                self._found.append(replace(each.file, complete=not lost))
            start += len(each.response)
        yield from self._timed(segments)

    def _segments(self, from_client: bool, data: bytes) -> list[Segment]:
        """One turn, sometimes pushed in two writes, with the faults that keep all its bytes."""
        split = self._rng.randrange(len(data)) if self._rng.random() < 0.2 else 0
        view = memoryview(data)
        segments = self._tcp.send(from_client, view[:split]) + self._tcp.send(from_client, view[split:])
        change = _CHANGES.get(self.plan.fault)
        return change(segments, self._rng) if change else segments

    def _lose(self, segments: list[Segment], first_seq: int, body: range) -> bool:
        """Take up to three segments out, from the first file always. Both ends of the body are kept: then
        nothing but this file is touched, and that it was there stays known.
        """
        first = all(each.direction == "request" for each in self._found)
        if not first and self._rng.random() < 0.6:
            return False
        inside = []
        for place, segment in enumerate(segments):
            start = segment.seq - first_seq & 0xFFFFFFFF
            if segment.payload and body.start < start and start + len(segment.payload) < body.stop:
                inside.append(place)
        if not inside:
            return False
        at = self._rng.randrange(len(inside))
        for place in reversed(inside[at : at + self._rng.randint(1, 3)]):
            del segments[place]
        return True

    def _timed(self, segments: list[Segment]) -> Timed:
        """Frames of one turn: a trip over the network, then segments in close succession."""
        self._time_ns += self._trip_ns
        for segment in segments:
            yield self._time_ns, self._tcp.frame(segment, offloaded=self.plan.fault == "checksum")
            self._time_ns += 2_000 + int(self._rng.random() * 60_000)


_CHANGES: dict[str, Callable[[list[Segment], random.Random], list[Segment]]] = {
    "reorder": packets.reorder,
    "repeat": packets.repeat,
    "overlap": packets.overlap,
}


def _conversation(plan: _Plan, rng: random.Random) -> TcpConversation:
    """Addresses and sequence numbers: every fourth connection is IPv6, every eighth wraps past 2**32."""
    number = plan.number
    net, far = ("2001:db8:1::", "2001:db8:80::") if number % 4 == 3 else ("10.0.0.", "198.51.100.")
    host = number % len(_HOSTS)
    port = int(_HOSTS[host].partition(":")[2] or 80)
    client = Endpoint(f"{net}{2 + (number + number // 40_000) % 8}", 20_000 + number % 40_000, b"\2\0\0\0\0\1")
    return TcpConversation(
        client,
        Endpoint(f"{far}{10 + host}", port, b"\2\0\0\0\0\2"),
        client_seq=rng.getrandbits(32),
        server_seq=2**32 - 5_000 if number % 8 == 1 else rng.getrandbits(32),
        # A host that leaves checksums to its card leaves the cutting into segments to it as well.
        mss=rng.choice((1_460, 11_680) if plan.fault == "checksum" else (1_440, 1_440, 1_360, 536)),
        seen_at_server=rng.random() < 0.5,
    )


class _Exchange(NamedTuple):
    """A request and its response, as sent."""

    request: bytes
    response: bytes
    file: SynthFile | None = None
    body: range = range(0)
    """Where in the response segments may be lost: the body, when its length is known."""
    upload: SynthFile | None = None
    awaited: bytes = b""
    """The part of the request that the client holds back until the server says 100."""


class _Http:
    """Makes the exchanges of one connection."""

    def __init__(self, connection: int, rng: random.Random) -> None:
        self._connection = connection
        self._rng = rng
        self._host = _HOSTS[connection % len(_HOSTS)]

    def download(self, spec: _Download) -> _Exchange:
        """A GET, or now and then a POST, that is answered with a file."""
        rng = self._rng
        content_type, suffix, magic = rng.choice(_KINDS)
        content = _content(rng, magic, spec.size, tiled=bool(spec.coding) or "html" in content_type)
        token = _TOKENS.get(spec.coding, spec.coding)
        coded = _CODERS[spec.coding](content) if spec.coding else content
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
        framing, wire = self._framed(coded, spec.framing)
        head = self._head(f"{version} 200 OK", [*headers, *framing])
        start = len(head)
        known = range(start, start + len(wire)) if spec.framing == "length" else range(0)
        about = {"uri": uri, "method": method, "direction": "response", "content_type": content_type}
        file = self._file(content, **about, framing=spec.framing, encoding=token)
        return _Exchange(request, head + wire, file, known, upload)

    def without_download(self, card: str) -> _Exchange:
        """An exchange whose response has no body: to HEAD, a 304, a 204, or the 204 to an upload."""
        uri = f"/bare/{self._connection:06d}"
        length = ("Content-Length", str(self._rng.randrange(1, 5_000)))
        if card == "HEAD":
            return _Exchange(self._request("HEAD", uri), self._head("HTTP/1.1 200 OK", [length]))
        if card == "304":
            request = self._request("GET", uri, [("If-None-Match", '"v1"')])
            headers = [("ETag", '"v1"'), length][: self._rng.randint(1, 2)]
            return _Exchange(request, self._head("HTTP/1.1 304 Not Modified", headers))
        done = self._head("HTTP/1.1 204 No Content", [("Server", "synth")])
        if card == "204":
            return _Exchange(self._request("GET", uri), done)
        if card == "100":
            request, body, upload = self._upload(uri, [("Expect", "100-continue")])
            return _Exchange(request, done, upload=upload, awaited=body)
        request, body, upload = self._upload(uri)
        return _Exchange(request + body, done, upload=upload)

    def _upload(self, uri: str, headers: Headers = ()) -> tuple[bytes, bytes, SynthFile]:
        rng = self._rng
        content_type = rng.choice(("application/x-www-form-urlencoded", "application/octet-stream"))
        size = rng.randint(*rng.choice(((1, 300), (300, 20_000))))
        content = _content(rng, b"q=", size, tiled="form" in content_type)
        kind = rng.choice(("length", "length", "length", "chunked"))
        framing, wire = self._framed(content, kind)
        head = self._request("POST", uri, [*headers, ("Content-Type", content_type), *framing])
        about = {"uri": uri, "method": "POST", "direction": "request", "content_type": content_type}
        return head, wire, self._file(content, **about, framing=kind, encoding="")

    def _request(self, method: str, uri: str, headers: Headers = ()) -> bytes:
        always = [("Host", self._host), ("User-Agent", "offpath-synth/1"), ("Accept", "*/*")]
        return self._head(f"{method} {uri} HTTP/1.1", [*always, *headers])

    def _head(self, first_line: str, headers: Headers) -> bytes:
        """Header names are spelled in lower case now and then, and values padded: RFC 9110 section 5."""
        lower, gap = self._rng.random() < 0.2, self._rng.choice((" ", " ", "", "  "))
        lines = [f"{name.lower() if lower else name}:{gap}{value}\r\n" for name, value in headers]
        return f"{first_line}\r\n{''.join(lines)}\r\n".encode("ascii")

    def _framed(self, data: bytes, framing: str) -> tuple[Headers, bytes]:
        if framing == "length":
            return [("Content-Length", str(len(data)))], data
        if framing == "chunked":
            return [("Transfer-Encoding", "chunked")], _chunked(data, self._rng)
        return [("Connection", "close")], data

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
    """Bytes of a file: noise behind the magic, or a text that repeats every `_PERIOD` bytes."""
    if not tiled:
        return (magic + rng.randbytes(size))[:size]
    unit = (magic + b" ".join(rng.choices(_WORDS, k=_PERIOD // 3)))[:_PERIOD]
    return (unit * (size // _PERIOD + 1))[:size]


def _chunked(data: bytes, rng: random.Random) -> bytes:
    """The chunked coding of RFC 9112 section 7.1, with leading zeros, extensions and trailers at times."""
    largest = rng.choice((40, 1_000, 9_000)) if len(data) < 20_000 else rng.choice((4_000, 70_000))
    parts: list[bytes] = []
    start = 0
    while start < len(data):
        chunk = data[start : start + rng.randint(1, largest)]
        start += len(chunk)
        size = rng.choice((f"{len(chunk):x}", f"{len(chunk):X}", f"{len(chunk):05x}"))
        extension = rng.choice(("", "", "", "", "", ";a=1", ';name="b c"'))
        parts += (f"{size}{extension}\r\n".encode("ascii"), chunk, b"\r\n")
    trailer = b"X-Trailer: end\r\n" if rng.random() < 0.2 else b""
    return b"".join((*parts, b"0\r\n", trailer, b"\r\n"))


def _deflate(content: bytes) -> bytes:
    """RFC 1951 by hand: a stored block of one period, then a fixed Huffman block of copies from it.

    A copy of 258 bytes is length symbol 285, distance symbol 20 and 9 extra bits; Huffman codes go into the
    stream from their highest bit, extra bits from their lowest.
    """
    copies = max(0, (len(content) - _PERIOD) // 258)
    stored = content[: len(content) - 258 * copies]
    copy = "11000101" + "10100" + f"{_PERIOD - 1_025:09b}"[::-1]
    bits = "110" + copy * copies + "0000000"
    block = struct.pack("<BHH", 0, len(stored), len(stored) ^ 0xFFFF) + stored
    return block + int(bits[::-1], 2).to_bytes((len(bits) + 7) // 8, "little")


def _gzip(content: bytes) -> bytes:
    """RFC 1952."""
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return head + _deflate(content) + struct.pack("<II", zlib.crc32(content), len(content))


def _zlib(content: bytes) -> bytes:
    """RFC 1950."""
    return b"\x78\x9c" + _deflate(content) + zlib.adler32(content).to_bytes(4, "big")


def _brotli(content: bytes) -> bytes:
    """RFC 7932 in uncompressed meta-blocks; the very first bit, 0, asks for a window of 64 KiB."""
    parts: list[bytes] = []
    for start in range(0, len(content), 0x10000):
        block = content[start : start + 0x10000]
        head = (len(block) - 1) << 3 | 1 << 19
        parts += ((head << (start == 0)).to_bytes(3, "little"), block)
    return b"".join((*parts, b"\x03" if content else b"\x06"))


_CODERS: dict[str, Callable[[bytes], bytes]] = {"gzip": _gzip, "zlib": _zlib, "raw": _deflate, "br": _brotli}
_TOKENS = {"zlib": "deflate", "raw": "deflate"}  # servers send both under one name
