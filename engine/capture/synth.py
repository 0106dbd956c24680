"""Captures of HTTP downloads whose every file is known beforehand: the measure of tests and benchmarks.

All variety comes from one seed. Nothing may depend on the machine: no clock, and no compressor, since their
output differs between versions of a library; the content codings are written out here instead.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from engine.capture.packets import Endpoint, PcapWriter, Segment, TcpConversation
from engine.capture.synth_http import HOSTS, Download, Exchange, Http, SynthFile
from engine.capture.turns import CHECKSUM, FAULTS, LOSS, Timed, Turns

START_NS = 1_700_000_000 * 1_000_000_000  # 2023-11-14 22:13:20 UTC
BIG_FILE_BYTES = 6_000_000  # beyond the default size at which bodies are handed on in parts
BIG_FILE_FROM = 20  # files in a capture that make room for a big one

_FAULT_CARDS = (*FAULTS, *FAULTS, "", "", "", "", "", "")
_EXTRA_CARDS = ("", "", "", "HEAD", "304", "204", "POST", "100")
_SHAPE_CARDS = (
    *[("length", "")] * 6,
    *[("chunked", "")] * 3,
    *[("close", "")] * 2,
    *[(framing, coding) for framing in ("length", "chunked") for coding in ("gzip", "zlib", "raw", "br")],
    ("close", "gzip"),
)
_SIZES = ((0.05, 1, 1), (0.55, 2, 2_000), (0.90, 2_000, 20_000), (0.98, 20_000, 100_000))
_LARGE = (100_000, 400_000)

Card = TypeVar("Card")


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


class _Plan(NamedTuple):
    """A connection before it is made. Its own seed keeps it apart from how connections interleave."""

    number: int
    start_ns: int
    seed: int
    fault: str
    extra: str
    downloads: list[Download]


def _plan(files: int, rng: random.Random, faults: bool) -> list[_Plan]:
    shapes, extras = _deal(_SHAPE_CARDS, rng), _deal(_EXTRA_CARDS, rng)
    troubles = _deal(_FAULT_CARDS if faults else ("",), rng)
    big = rng.randrange(files) if files >= BIG_FILE_FROM else -1
    plans: list[_Plan] = []
    start_ns, number = START_NS, 0
    while number < files:
        # The first connections take each fault once, so that small captures have them too.
        trouble = FAULTS[len(plans)] if faults and len(plans) < len(FAULTS) else next(troubles)
        downloads: list[Download] = []
        for _ in range(min(rng.choice((1, 2, 3, 4, 6)), files - number)):
            download = Download(number, _size(rng), *next(shapes))
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
        self._rng = rng = random.Random(plan.seed)
        self._found = found
        trip_ns = rng.randrange(2_000_000, 30_000_000)
        self._turns = Turns(_conversation(plan, rng), rng, plan.fault, trip_ns, plan.start_ns - trip_ns)
        self._http = Http(plan.number, rng)

    def frames(self) -> Timed:
        """Every frame with its time; fills the list of files on the way."""
        turns = self._turns
        yield from turns.open()
        if self.plan.extra:
            yield from self._converse([self._http.without_download(self.plan.extra)])
        rest = list(self.plan.downloads)
        while rest:
            pipelined = min(self._rng.choice((1, 1, 1, 2, 3)), len(rest))
            yield from self._converse([self._http.download(rest.pop(0)) for _ in range(pipelined)])
        closing = self.plan.downloads[-1].framing == "close"
        yield from turns.timed(turns.tcp.close(client_first=not closing and self._rng.random() < 0.5))

    def _converse(self, exchanges: list[Exchange]) -> Timed:
        """Requests together, then responses together: pipelining when there is more than one."""
        turns = self._turns
        yield from turns.timed(turns.segments(True, b"".join(each.request for each in exchanges)))
        for each in exchanges:
            if each.awaited:
                yield from turns.timed(turns.segments(False, b"HTTP/1.1 100 Continue\r\n\r\n"))
                yield from turns.timed(turns.segments(True, each.awaited))
        first_seq = turns.tcp.server_seq
        segments = turns.segments(False, b"".join(each.response for each in exchanges))
        start = 0
        for each in exchanges:
            if each.upload:
                self._found.append(each.upload)
            if each.file:
                body = range(start + each.body.start, start + each.body.stop)
                lost = self._lose(segments, first_seq, body) if self.plan.fault == LOSS else False
                self._found.append(replace(each.file, complete=not lost))
            start += len(each.response)
        yield from turns.timed(segments)

    def _lose(self, segments: list[Segment], first_seq: int, body: range) -> bool:
        """From the first file always."""
        first = all(each.direction == "request" for each in self._found)
        if not first and self._rng.random() < 0.6:
            return False
        return self._turns.lose(segments, first_seq, body)


def _conversation(plan: _Plan, rng: random.Random) -> TcpConversation:
    """Addresses and sequence numbers: every fourth connection is IPv6, every eighth wraps past 2**32."""
    number = plan.number
    net, far = ("2001:db8:1::", "2001:db8:80::") if number % 4 == 3 else ("10.0.0.", "198.51.100.")
    host = number % len(HOSTS)
    port = int(HOSTS[host].partition(":")[2] or 80)
    client = Endpoint(f"{net}{2 + (number + number // 40_000) % 8}", 20_000 + number % 40_000, b"\2\0\0\0\0\1")
    return TcpConversation(
        client,
        Endpoint(f"{far}{10 + host}", port, b"\2\0\0\0\0\2"),
        client_seq=rng.getrandbits(32),
        server_seq=2**32 - 5_000 if number % 8 == 1 else rng.getrandbits(32),
        # A host that leaves checksums to its card leaves the cutting into segments to it as well.
        mss=rng.choice((1_460, 11_680) if plan.fault == CHECKSUM else (1_440, 1_440, 1_360, 536)),
        seen_at_server=rng.random() < 0.5,
    )
