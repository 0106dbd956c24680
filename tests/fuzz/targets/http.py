"""HTTP through the doors that a run uses: a capture, the decoder, streams, and the extractor with its hooks."""

from __future__ import annotations

import gzip
import hashlib
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engine.capture.batches import StreamEvent
from engine.capture.extract import FileExtractor
from engine.capture.ramfs import Ramfs
from engine.pipeline.streams import Streams
from engine.values.config import CaptureLimits
from engine.values.records import File, Http
from tests.capture.guard_page import GuardedRoom
from tests.capture.packets import ACK, FIN, RST, SYN, Decoded, Record, pcap, tcp
from tests.fuzz import corpus
from tests.fuzz.pieces import pack, unpack
from tests.fuzz.reading import Reader, features

_BACK, _GAP, _ENDS, _RESETS = 1, 2, 4, 8
_ENDPOINTS = (("10.0.0.1", 40_000), ("10.0.0.2", 80))
_CHUNK_BYTES = 1_000
_LIMITS = CaptureLimits(header_bytes=4_000, decoded_bytes=100_000, decoded_ratio=100, flows=1_000)
_METHODS = (b"GET ", b"POST ", b"HEAD ", b"CONNECT ", b"PUT ", b"OPTIONS ", b"HTTP/1")
_TOKENS = (
    *_METHODS, b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 ", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 X\r\n",
    b"HTTP/1.1 204 X\r\n", b"HTTP/1.1 304 X\r\n", b"HTTP/1.1 206 X\r\n", b"\r\n", b"\r\n\r\n", b"\n\n", b" ", b"\t",
    b"\r\nContent-Length: 5", b"\r\nContent-Length: 99999999999999999999", b"\r\nContent-Length: -1",
    b"\r\nContent-Length: 5, 5", b"\r\nTransfer-Encoding: chunked", b"\r\nTransfer-Encoding: gzip, chunked",
    b"\r\nConnection: close", b"\r\nConnection: upgrade", b"\r\nUpgrade: websocket", b"\r\nExpect: 100-continue",
    b"\r\nContent-Encoding: gzip", b"\r\nContent-Encoding: deflate", b"\r\nContent-Encoding: br",
    b"\r\nContent-Encoding: zstd", b"\r\nContent-Encoding: gzip, br", b"\r\nContent-Type: text/html",
    b"0\r\n\r\n", b"5\r\nhello\r\n", b"ffffffffffffffff\r\n", b"5;ext=1\r\n", b"\x1f\x8b\x08", b"x" * 70, b":", b"\0",
)  # fmt: skip
Talk = list[tuple[int, bytes]]


class _Hooks:
    """Refuses nothing, and checks that what it is told goes together."""

    wants_files = wants_payload = wants_raw = True

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget the last input."""
        self.payloads: dict[str, int] = {}
        self.done: set[str] = set()
        self.parts: list[tuple[int, bool, str]] = []
        self.raw: dict[int, int] = {}
        self.accepted = self.ended = 0

    def filter_flow(self, time: float, flow: bytes) -> bool:
        self.accepted += 1
        return True

    def filter(self, time: float, flow: bytes, head: bytes, is_request: bool) -> bool:
        assert head
        return True

    def payload_raw(self, time: float, flow: bytes, direction: int, seekpos: int, data: bytes) -> None:
        assert data
        assert seekpos >= self.raw.get(direction, 0)
        self.raw[direction] = seekpos + len(data)

    def payload_http(self, *args: Any) -> None:
        path, seekpos, data = args[2], args[-2], args[-1]
        assert path not in self.done, "bytes of a body that was over"
        assert seekpos == self.payloads.get(path, 0)
        self.payloads[path] = seekpos + len(data)
        if not data:
            self.done.add(path)

    def file(self, *args: Any) -> None:
        path, length, is_partial = args[2], args[-3], args[-2]
        data = Path(path).read_bytes()
        assert len(data) == length
        assert path.endswith(".part") == is_partial
        self.parts.append((length, is_partial, hashlib.sha256(data).hexdigest()))

    def flow_end(self, time: float, flow: bytes) -> None:
        self.ended += 1


class _HttpReader(Reader):
    """A reader with an extractor on its streams."""

    def __init__(self, room: GuardedRoom, ramfs: Ramfs) -> None:
        super().__init__(room, _LIMITS, frames=False)
        self._ramfs = ramfs
        self.hooks = _Hooks()
        self.records: list[Http | File] = []

    def extract(self, capture: bytes) -> tuple[list[object], list[object]]:
        """What came out of a capture, and what was seen of how."""
        self.hooks.begin()
        self.records.clear()
        extractor = FileExtractor(_LIMITS, self._ramfs, self.hooks, self.records.append, chunk_bytes=_CHUNK_BYTES)
        self._streams = Streams([extractor])
        try:
            decoded = self.read(capture).stats
        finally:
            self._streams.close()
        self._check(extractor)
        counts = extractor.stats()
        kinds = [(type(each).__name__, getattr(each, "reason", ""), each.status, each.method) for each in self.records]
        names = [(name, getattr(counts, name).bit_length()) for name in counts.__slots__ if name != "file_bytes"]
        return self._outcome(), [*features(decoded), *names, tuple(kinds[:8])]

    def check(self, result: Decoded) -> None:
        """Streams that nobody wants have no end."""
        stats = result.stats
        assert stats.packets == result.packets == stats.decoded + stats.malformed + stats.undecoded

    def take(self, result: Decoded, events: Iterable[StreamEvent]) -> None:
        """Hands them to the extractor."""
        for event in events:
            self._streams.feed(self.decoder, event)

    def _check(self, extractor: FileExtractor) -> None:
        counts, files = extractor.stats(), [each for each in self.records if isinstance(each, File)]
        assert counts.files == counts.files_complete + counts.files_partial == len(files)
        assert counts.files_complete == sum(each.complete for each in files)
        assert counts.file_bytes == sum(each.size for each in files)
        assert counts.write_errors == 0
        assert self.hooks.accepted == self.hooks.ended
        assert set(self.hooks.payloads) == self.hooks.done, "bodies without an end"
        assert sum(self.hooks.payloads.values()) == sum(length for length, _, _ in self.hooks.parts)
        assert sum(each.size for each in files) == sum(self.hooks.payloads.values())
        assert self._ramfs.leases == self._ramfs.held_bytes == 0
        assert not any(self._ramfs.directory.iterdir())

    def _outcome(self) -> list[object]:
        """Records without their paths and times, and the files.

        How much is decoded of a body that turns out to be broken depends on the pieces that it comes in.
        """
        shown: list[object] = []
        whole = True
        for each in self.records:
            if isinstance(each, Http):
                shown.append((each.method, each.host, each.uri, each.status, each.content_type))
                continue
            broken = each.reason in ("decode", "limit")
            whole = whole and not broken
            shown.append((each.direction, each.uri, -1 if broken else each.size, each.reason, each.content_type))
        return [shown, self.hooks.parts if whole else []]


class HttpBodies:
    """Pieces: a byte that says which side speaks, whether what follows is lost, and whether it ends; then its bytes."""

    tokens = _TOKENS

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="offpath-fuzz-")
        self._ramfs = Ramfs()
        self._reader = _HttpReader(GuardedRoom(), self._ramfs)

    def seeds(self) -> list[bytes]:
        talks = [*_made(), *corpus.conversations(Path(self._folder.name), _METHODS)]
        inputs = [pack(bytes((side,)) + data[:3_000] for side, data in talk) for talk in talks]
        return sorted(Counter(inputs), key=len)

    def execute(self, data: bytes) -> Iterable[object]:
        pieces = [(each[0], each[1:]) for each in unpack(data) if len(each) > 1]
        whole, seen = self._reader.extract(pcap(_packets(pieces, 5_000, self._reader.now)))
        if _is_plain(pieces):
            split, _ = self._reader.extract(pcap(_packets(pieces, 1 + len(data) % 61, self._reader.now)))
            assert split == whole, "it depends on where segments end"
        return seen

    def close(self) -> None:
        self._reader.close()
        self._ramfs.close()
        self._folder.cleanup()


def _is_plain(pieces: Talk) -> bool:
    """Whether where segments end must make no difference. How far a start is looked for goes by segments."""
    sizes = [sum(len(data) for flags, data in pieces if flags & _BACK == side) for side in (0, 1)]
    return max(sizes) < _LIMITS.header_bytes and not any(flags & (_GAP | _ENDS | _RESETS) for flags, _ in pieces)


def _packets(pieces: Talk, most: int, now: float) -> list[Record]:
    """One connection, its segments of so many bytes at most."""
    next_seq = [100, 900]
    handshake = pieces[:1] == [] or not pieces[0][0] & 0x80
    packets = [tcp(*_ENDPOINTS, 99, flags=SYN), tcp(*_ENDPOINTS[::-1], 899, flags=SYN | ACK, ack=100)]
    packets = packets if handshake else []
    for flags, data in pieces:
        side = flags & _BACK
        if flags & _GAP:
            next_seq[side] += len(data)
            continue
        ends = _ENDPOINTS[:: -1 if side else 1]
        for at in range(0, len(data), most):
            part = data[at : at + most]
            packets.append(tcp(*ends, next_seq[side], part, ACK, next_seq[1 - side]))
            next_seq[side] += len(part)
        if flags & (_ENDS | _RESETS):
            packets.append(tcp(*ends, next_seq[side], b"", FIN if flags & _ENDS else RST, next_seq[1 - side]))
    return [(now, packet) for packet in packets]


def _made() -> list[Talk]:
    """What captures have seldom."""
    ask = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
    text = b"hello " * 300
    raw = zlib.compressobj(wbits=-15)
    encoded = {b"gzip": gzip.compress(text, mtime=0), b"deflate": raw.compress(text) + raw.flush(), b"x": text}
    talks: list[Talk] = []
    for coding, body in encoded.items():
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: " + coding
        talks.append([(0, ask), (1, head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)])
        chunks = b"%x\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (len(body), body)
        talks.append([(0, ask), (1, head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)])
        talks.append([(0, ask), (1, head + b"\r\n\r\n" + body), (1 | _ENDS, b"x")])
    upload = b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    talks.append([(0, upload), (1, b"HTTP/1.1 100 Continue\r\n\r\n"), (0, b"hello"), (1, b"HTTP/1.1 204 N\r\n\r\n")])
    talks.append([(0, ask * 3), (1, b"HTTP/1.1 304 N\r\n\r\n" * 2 + b"HTTP/1.1 200 O\r\nContent-Length: 0\r\n\r\n")])
    talks.append([(0, b"CONNECT h:1 HTTP/1.1\r\n\r\n"), (1, b"HTTP/1.1 200 O\r\n\r\n"), (0, b"\x16\3\1")])
    return talks
