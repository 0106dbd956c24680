"""Opening captures: formats, byte orders, compression, and what is refused."""

from __future__ import annotations

import gzip
import os
import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from engine.capture.compression import Decompressor
from engine.capture.source import open_capture
from engine.values.errors import CaptureError
from tests.capture.packets import (
    CLIENT,
    SERVER,
    block,
    enhanced,
    interface,
    ip,
    pcap,
    run,
    section,
    simple,
    udp,
)

FRAME = udp(CLIENT, SERVER, b"hello")


def write(tmp_path: Path, data: bytes, name: str = "some.pcap") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_pcap_in_every_order_and_resolution(tmp_path: Path, order: str, nano: bool) -> None:
    path = write(tmp_path, pcap([(1700000000.25, FRAME), (1700000001.5, FRAME)], order=order, nano=nano, link=1))
    with open_capture(path) as capture:
        assert capture.format.name == "pcap"
        assert capture.format.big_endian == (order == ">")
        assert capture.format.ticks == (10**9 if nano else 10**6)
        assert capture.size == path.stat().st_size
        assert capture.address
    assert capture.closed
    [flow] = run(path).flows
    assert (flow.start, flow.end, flow.a_packets) == (1700000000.25, 1700000001.5, 2)


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_sections_and_interfaces(tmp_path: Path, order: str) -> None:
    nano = struct.pack(order + "HHB3x", 9, 1, 9)
    binary = struct.pack(order + "HHB3xHHqHH", 9, 1, 0x80 | 10, 14, 8, 1000, 0, 0)
    other = "<" if order == ">" else ">"
    data = (
        section(order)
        + interface(1, order)
        + interface(101, order, options=nano)
        + interface(1, order, options=binary)
        + block(5, bytes(8), order)  # interface statistics: nothing to us
        + block(2, bytes(32), order)  # the packet block of old
        + enhanced(FRAME, 5_500_000, 0, order)
        + enhanced(FRAME[14:], 6_000_000_000, 1, order)
        + enhanced(FRAME, 3 * 1024, 2, order)
        + section(other)
        + interface(1, other)
        + enhanced(FRAME, 1_000_000, 0, other)
        + simple(FRAME, other)
        + enhanced(FRAME, 1_000_000, 1, other)  # of the section before
    )
    got = run(write(tmp_path, data))
    assert (got.packets, got.stats.decoded, got.stats.malformed) == (6, 5, 1)
    assert min(flow.start for flow in got.flows) == 1.0
    assert max(flow.end for flow in got.flows) == 1003.0
    assert sum(flow.a_packets for flow in got.flows) == 5


def test_a_simple_packet_is_cut_at_the_snap_length(tmp_path: Path) -> None:
    cut = block(3, struct.pack("<I", 500) + FRAME[:44])
    got = run(write(tmp_path, section() + interface(snaplen=44) + cut))
    assert (got.stats.captured_bytes, got.stats.wire_bytes, got.stats.cut) == (44, 500, 1)


def test_pcapng_goes_on_behind_a_block_that_lies_inside(tmp_path: Path) -> None:
    lying = block(6, struct.pack("<IIIII", 0, 0, 0, 4000, 4000) + FRAME)
    short = block(6, bytes(8))
    data = section() + interface() + lying + short + block(1, b"") + enhanced(FRAME, 1)
    got = run(write(tmp_path, data))
    assert (got.packets, got.stats.decoded, got.stats.malformed) == (4, 1, 3)


@pytest.mark.parametrize("length", [0, 4, 11, 13, 1 << 20, 0xFFFFFFFC])
def test_pcapng_stops_at_a_block_whose_length_lies(tmp_path: Path, length: int) -> None:
    bad = struct.pack("<II", 6, length) + bytes(40)
    got = run(write(tmp_path, section() + interface() + enhanced(FRAME, 1) + bad + enhanced(FRAME, 2)))
    assert (got.packets, got.stats.decoded, got.stats.malformed) == (2, 1, 1)


@pytest.mark.parametrize("captured", [100, 262_145, 0x7FFFFFFF, 0xFFFFFFFF])
def test_pcap_stops_at_a_record_whose_length_lies(tmp_path: Path, captured: int) -> None:
    bad = struct.pack("<IIII", 1, 0, captured, 60) + bytes(60)
    got = run(write(tmp_path, pcap([(0, FRAME)]) + bad))
    assert (got.packets, got.stats.decoded, got.stats.malformed) == (2, 1, 1)


def test_a_capture_without_packets_is_fine(tmp_path: Path) -> None:
    assert run(write(tmp_path, pcap([]))).packets == 0
    assert run(write(tmp_path, section() + interface())).packets == 0


def test_gzip_is_undone(tmp_path: Path) -> None:
    plain = pcap([(0, FRAME)] * 100)
    path = write(tmp_path, gzip.compress(plain[:50], mtime=0) + gzip.compress(plain[50:]), "some.pcap.gz")
    with open_capture(path) as capture:
        assert (capture.compressed, capture.cut_off, capture.size) == ("gzip", False, len(plain))
    assert run(path).packets == 100


def test_a_gzip_stream_that_breaks_off_gives_what_came_before(tmp_path: Path) -> None:
    packed = gzip.compress(pcap([(0, FRAME)] * 100), compresslevel=0)
    path = write(tmp_path, packed[:2000])
    with open_capture(path) as capture:
        assert capture.cut_off
    got = run(path)
    assert 0 < got.stats.decoded < 100
    assert got.stats.malformed == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\xd4\xc3", "is neither pcap nor pcapng, it starts with d4 c3"),
        (b"hello world, this is text", "is neither pcap nor pcapng, it starts with 68 65 6c 6c"),
        (pcap([])[:20], "ends within the pcap file header, after 20 bytes"),
        (section()[:8], "starts like pcapng but has no byte-order mark"),
        (section()[:8] + bytes(20), "starts like pcapng but has no byte-order mark"),
        (b"\x1f\x8b", "the gzip stream in it is empty or broken"),
        (b"\x1f\x8b" + bytes(100), "the gzip stream in it is empty or broken"),
        (gzip.compress(b"", mtime=0), "the gzip stream in it is empty or broken"),
        (gzip.compress(b"no capture", mtime=0), "is neither pcap nor pcapng, it starts with 6e 6f 20 63"),
    ],
)
def test_what_is_no_capture_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(CaptureError) as caught:
        open_capture(path)
    assert (caught.value.path, caught.value.reason) == (str(path), reason)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="No such file"):
        open_capture(tmp_path / "absent")
    with pytest.raises(CaptureError, match="is a folder"):
        open_capture(tmp_path)
    with pytest.raises(CaptureError, match="is not a regular file"):
        open_capture("/dev/null")


@pytest.mark.parametrize(
    ("link", "head"),
    [
        (1, bytes(12) + b"\x08\0"),
        (1, bytes(12) + b"\x88\xa8\0\x05\x81\0\0\x07\x08\0"),
        (12, b""),
        (14, b""),
        (101, b""),
        (0, b"\2\0\0\0"),
        (0, b"\0\0\0\2"),
        (108, b"\0\0\0\2"),
        (113, bytes(14) + b"\x08\0"),
        (276, b"\x08\0" + bytes(18)),
    ],
)
def test_every_link_type(tmp_path: Path, link: int, head: bytes) -> None:
    packet = ip("10.0.0.1", "10.0.0.2", 17, struct.pack(">HHHH", 1000, 53, 8, 0))
    records = [(0, head + packet), *((0, (head + packet)[:cut]) for cut in range(len(head)))]
    got = run(write(tmp_path, pcap(records, link=link)))
    assert len(got.flows) == 1
    assert got.stats.decoded == 1
    assert got.stats.malformed == len(head)


def test_zstd_is_undone_whatever_the_name(tmp_path: Path) -> None:
    plain = pcap([(0, FRAME)] * 100)
    skipped = b"\x50\x2a\x4d\x18\4\0\0\0abcd"
    frames = skipped + zstandard.compress(plain[:50]) + skipped + zstandard.compress(plain[50:]) + skipped
    path = write(tmp_path, frames, "some.pcap")
    with open_capture(path) as capture:
        assert (capture.compressed, capture.cut_off, capture.size) == ("zstd", False, len(plain))
    assert run(path).packets == 100


@pytest.mark.parametrize("end", [-1, -7, -2000])
def test_a_zstd_stream_that_breaks_off_gives_what_came_before(tmp_path: Path, end: int) -> None:
    noise = random.Random(1).randbytes(100_000)
    frames = [(0, udp(CLIENT, SERVER, noise[at : at + 1000])) for at in range(0, 100_000, 1000)]
    packed = zstandard.ZstdCompressor(write_content_size=False).compressobj(size=-1)
    data = b"".join(packed.compress(pcap([frame])[24 * bool(at) :]) + packed.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
                    for at, frame in enumerate(frames)) + packed.flush()  # fmt: skip
    path = write(tmp_path, data[:end])
    with open_capture(path) as capture:
        assert capture.cut_off
    got = run(path)
    assert 90 <= got.stats.decoded <= 100


@pytest.mark.parametrize("rest", [b"what is this", zstandard.compress(b"x" * 100)[:-3]])
def test_what_follows_a_frame_and_is_none_is_told(tmp_path: Path, rest: bytes) -> None:
    path = write(tmp_path, zstandard.compress(pcap([(0, FRAME)] * 3)) + rest)
    with open_capture(path) as capture:
        assert capture.cut_off
    assert run(path).stats.decoded == 3


def test_zstd_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, zstandard.compress(pcap([(0, FRAME)])))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(CaptureError, match=r"pip install 'offpath\[zstd\]'"):
        open_capture(path)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_decompression_stops_when_asked_to(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(CaptureError, match="stopped while"):
        open_capture(write(tmp_path, pack(pcap([(0, FRAME)] * 100))), stopped=lambda: True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_bomb_is_undone_in_small_pieces() -> None:
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(200 << 20))
    sizes = [len(piece) for piece in Decompressor("zstd", "bomb").feed(bomb)]
    assert sum(sizes) == 200 << 20
    assert max(sizes) <= 64 << 20
    assert max(len(piece) for piece in Decompressor("gzip", "bomb").feed(gzip.compress(bytes(10 << 20)))) <= 1 << 18


def test_a_file_that_is_shortened_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, pcap([(0, FRAME)] * 10))
    with open_capture(path) as capture:
        assert not capture.shortened
        with path.open("ab") as file:
            file.write(b"more")
        assert not capture.shortened
        os.truncate(path, 24)
        assert capture.shortened
    assert not capture.shortened
