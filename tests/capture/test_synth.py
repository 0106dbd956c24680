"""Synthetic captures against a reader of their own: slow, naive, and sharing no code with what it checks."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import brotli
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.capture.synth import BIG_FILE_BYTES, Synthesis, SynthFile, manifest, synthesize

BODILESS = {204, 304}


@dataclass
class Connection:
    """Both directions of one connection as they stand in the capture: (relative seq, payload) by side."""

    sides: dict[bool, list[tuple[int, bytes]]] = field(default_factory=lambda: {True: [], False: []})
    first_seq: dict[bool, int] = field(default_factory=dict)
    handshake: bool = False
    bad_checksums: int = 0
    times: list[float] = field(default_factory=list)

    def stream(self, from_client: bool) -> tuple[bytes, list[range]]:
        """The bytes in order of sequence number, zeros where none came, and where that was."""
        data = bytearray()
        gaps: list[range] = []
        for seq, payload in sorted(self.sides[from_client]):
            if seq > len(data):
                gaps.append(range(len(data), seq))
                data += bytes(seq - len(data))
            seen = len(data) - seq
            assert data[seq : seq + len(payload)] == payload[:seen], "overlapping bytes differ"
            data += payload[seen:]
        return bytes(data), gaps


def words_sum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def read(path: Path) -> list[Connection]:
    """Every connection of a little-endian microsecond Ethernet capture, in order of first packet."""
    data = path.read_bytes()
    assert struct.unpack_from("<IHHiIII", data) == (0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)
    found: dict[tuple[bytes, int, bytes, int], Connection] = {}
    at, last = 24, 0.0
    while at < len(data):
        seconds, micros, captured, wire = struct.unpack_from("<IIII", data, at)
        assert captured == wire
        now = seconds + micros / 1e6
        assert now >= last
        last = now
        add_packet(found, now, data[at + 16 + 14 : at + 16 + captured])
        at += 16 + captured
    return list(found.values())


def add_packet(found: dict[tuple[bytes, int, bytes, int], Connection], now: float, packet: bytes) -> None:
    if packet[0] >> 4 == 4:
        assert words_sum(packet[:20]) == 0xFFFF
        source, target = packet[12:16], packet[16:20]
        tcp = packet[20 : int.from_bytes(packet[2:4])]
        pseudo = source + target + struct.pack(">HH", 6, len(tcp))
    else:
        source, target = packet[8:24], packet[24:40]
        tcp = packet[40 : 40 + int.from_bytes(packet[4:6])]
        pseudo = source + target + struct.pack(">II", len(tcp), 6)
    source_port, target_port, seq = struct.unpack_from(">HHI", tcp)
    from_client = source_port >= 20_000
    key = (source, source_port, target, target_port)
    connection = found.setdefault(key if from_client else (target, target_port, source, source_port), Connection())
    connection.bad_checksums += words_sum(pseudo + tcp) != 0xFFFF
    connection.times.append(now)
    payload = tcp[(tcp[12] >> 4) * 4 :]
    if tcp[13] & 2:
        connection.handshake = True
        connection.first_seq[from_client] = seq + 1
    if payload:
        first = connection.first_seq.setdefault(from_client, seq)
        connection.sides[from_client].append((seq - first & 0xFFFFFFFF, payload))


class Messages:
    """Cuts one direction of a connection into HTTP/1 messages."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def head(self) -> tuple[list[str], dict[str, str]]:
        end = self.data.index(b"\r\n\r\n", self.at)
        first, *lines = self.data[self.at : end].decode("ascii").split("\r\n")
        self.at = end + 4
        return first.split(" ", 2), {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }

    def take(self, size: int) -> bytes:
        self.at += size
        assert self.at <= len(self.data)
        return self.data[self.at - size : self.at]

    def body(self, headers: dict[str, str], *, until_close: bool) -> tuple[bytes, str, range]:
        start = self.at
        if "transfer-encoding" in headers:
            return self.chunks(), "chunked", range(start, self.at)
        framing = "length" if "content-length" in headers else "close"
        size = int(headers.get("content-length", len(self.data) - start if until_close else 0))
        return self.take(size), framing, range(start, self.at)

    def chunks(self) -> bytes:
        parts = []
        while size := int(self.line().split(b";")[0], 16):
            parts.append(self.take(size))
            assert self.take(2) == b"\r\n"
        while self.line():
            pass
        return b"".join(parts)

    def line(self) -> bytes:
        end = self.data.index(b"\r\n", self.at)
        line = self.data[self.at : end]
        self.at = end + 2
        return line


def decoded(data: bytes, coding: str) -> bytes:
    if coding == "gzip":
        return zlib.decompress(data, 31)
    if coding == "br":
        return brotli.decompress(data)
    if coding == "deflate":
        wrapped = data[:2] == b"\x78\x9c"
        return zlib.decompress(data, 15 if wrapped else -15)
    assert coding == ""
    return data


@dataclass
class Body:
    host: str
    content_type: str
    framing: str
    coding: str
    data: bytes | None
    """Undone of its coding; None when part of it is missing."""


def bodies(connection: Connection) -> dict[tuple[str, str, str], Body]:
    """Every body by (uri, direction, method)."""
    asked, asked_gaps = connection.stream(True)
    assert not asked_gaps
    answered, gaps = connection.stream(False)
    requests, responses = Messages(asked), Messages(answered)
    result: dict[tuple[str, str, str], Body] = {}
    while requests.at < len(asked):
        (method, uri, _), headers = requests.head()
        data, framing, _ = requests.body(headers, until_close=False)
        if method == "POST":
            result[uri, "request", method] = Body(headers["host"], headers["content-type"], framing, "", data)
        (_, status, _), reply = responses.head()
        if status == "100":
            assert headers["expect"] == "100-continue"
            (_, status, _), reply = responses.head()
        if method == "HEAD" or int(status) in BODILESS:
            continue
        raw, framing, where = responses.body(reply, until_close=True)
        coding = reply.get("content-encoding", "")
        lost = any(gap.start < where.stop and gap.stop > where.start for gap in gaps)
        content = None if lost else decoded(raw, coding)
        result[uri, "response", method] = Body(headers["host"], reply["content-type"], framing, coding, content)
    assert responses.at == len(answered)
    for gap in gaps:
        assert set(answered[gap.start : gap.stop]) == {0}
    return result


def check(made: Synthesis) -> list[Connection]:
    """The capture holds what the manifest says, no more and no less."""
    connections = read(made.path)
    assert len(connections) == made.connections
    assert sum(len(each.times) for each in connections) == made.packets
    expected: dict[int, dict[tuple[str, str, str], SynthFile]] = defaultdict(dict)
    for each in made.files:
        expected[each.connection][each.uri, each.direction, each.method] = each
    for number, connection in enumerate(connections):
        found = bodies(connection)
        assert list(found) == list(expected[number])
        for key, body in found.items():
            check_body(body, expected[number][key])
    return connections


def check_body(body: Body, file: SynthFile) -> None:
    assert (body.host, body.content_type, body.framing, body.coding) == (
        file.host,
        file.content_type,
        file.framing,
        file.encoding,
    )
    assert (body.data is not None) == file.complete
    if body.data is not None:
        assert len(body.data) == file.size
        assert hashlib.sha1(body.data).hexdigest() == file.sha1
        assert hashlib.sha256(body.data).hexdigest() == file.sha256
        assert hashlib.sha512(body.data).hexdigest() == file.sha512


@pytest.mark.parametrize("faults", [False, True])
def test_same_arguments_same_capture(tmp_path: Path, faults: bool) -> None:
    first = synthesize(tmp_path / "a.pcap", files=15, seed=5, faults=faults)
    second = synthesize(tmp_path / "b.pcap", files=15, seed=5, faults=faults)
    other = synthesize(tmp_path / "c.pcap", files=15, seed=6, faults=faults)
    assert first.path.read_bytes() == second.path.read_bytes() != other.path.read_bytes()
    assert first.files == second.files


def test_capture_stays_the_same_between_versions(tmp_path: Path) -> None:
    """Seeds are quoted in reports: change this hash only together with a note that old seeds are void."""
    made = synthesize(tmp_path / "a.pcap", files=12, seed=1, faults=True)
    assert (
        hashlib.sha256(made.path.read_bytes()).hexdigest()
        == "20f536ae2fc7e8dc237bc8d2156c6e59e5a7b039c5d6013983dc43286f8d52c7"
    )


def test_clean_capture_holds_what_the_manifest_says(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "a.pcap", files=120, seed=3)
    connections = check(made)
    assert all(each.handshake and not each.bad_checksums for each in connections)
    assert all(each.complete for each in made.files)
    assert len(made.downloads) == 120
    assert sum(each.size >= BIG_FILE_BYTES for each in made.files) == 1
    assert max(first.times[-1] - second.times[0] for first, second in pairwise(connections)) > 0


def test_capture_is_varied(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "a.pcap", files=120, seed=3)
    shapes = {(each.framing, each.encoding) for each in made.downloads}
    assert shapes >= {(a, b) for a in ("length", "chunked") for b in ("", "gzip", "deflate", "br")}
    assert shapes >= {("close", ""), ("close", "gzip")}
    sizes = {each.size for each in made.downloads}
    assert 1 in sizes
    assert 0 not in sizes, "an empty body is no file"
    assert {each.direction for each in made.files} == {"request", "response"}
    assert len({each.content_type for each in made.downloads}) == 8
    data = made.path.read_bytes()
    for mark in (b"HEAD /", b" 304 ", b" 204 ", b" 100 Continue", b"\x86\xdd\x60", b"X-Trailer:", b';name="b c"'):
        assert mark in data, mark


def test_faulty_capture_has_every_fault_and_keeps_its_word(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "a.pcap", files=60, seed=7, faults=True)
    connections = check(made)
    assert any(not each.handshake for each in connections)
    assert any(each.bad_checksums for each in connections)
    assert any(each.complete is False for each in made.downloads)
    assert len(made.downloads) == 60
    late = repeated = partial = 0
    for each in connections:
        for segments in each.sides.values():
            starts = [seq for seq, _ in segments]
            ends = [seq + len(payload) for seq, payload in segments]
            repeated += len(segments) != len(set(segments))
            late += starts != sorted(starts)
            partial += any(end not in starts and end != max(ends) for end in ends)
    assert late
    assert repeated
    assert partial


def test_reordering_stays_within_twenty_packets(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "a.pcap", files=60, seed=8, faults=True)
    for connection in read(made.path):
        for segments in connection.sides.values():
            ranks = {seq: rank for rank, seq in enumerate(sorted({seq for seq, _ in segments}))}
            first_seen = list(dict.fromkeys(ranks[seq] for seq, _ in segments))
            assert all(abs(rank - place) < 20 for place, rank in enumerate(first_seen))


def test_no_big_file_in_small_captures(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "a.pcap", files=19, seed=2)
    assert max(each.size for each in made.files) < BIG_FILE_BYTES


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.integers(1, 19), seed=st.integers(0, 2**64), faults=st.booleans())
def test_any_small_capture_keeps_its_word(tmp_path: Path, files: int, seed: int, faults: bool) -> None:
    made = synthesize(tmp_path / "a.pcap", files=files, seed=seed, faults=faults)
    check(made)
    assert len(made.downloads) == files
    assert len({each.uri for each in made.downloads}) == files


def test_manifest_is_plain_json(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "a.pcap", files=5, seed=1)
    listing = json.loads(json.dumps(manifest(made)))
    assert listing["capture"] == "a.pcap"
    assert listing["packets"] == made.packets
    assert [SynthFile(**each) for each in listing["files"]] == list(made.files)


@pytest.mark.parametrize(("files", "seed", "message"), [(0, 1, "files"), (-1, 1, "files"), (1, -1, "seed")])
def test_bad_numbers_are_refused(tmp_path: Path, files: int, seed: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthesize(tmp_path / "a.pcap", files=files, seed=seed)
    assert not (tmp_path / "a.pcap").exists()
