"""Packets by hand-checked examples and by sums done the slow way."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.capture.packets import (
    ACK,
    FIN,
    PSH,
    SYN,
    TCP,
    UDP,
    Endpoint,
    PcapWriter,
    Segment,
    Send,
    TcpConversation,
    checksum,
    ethernet_frame,
    ip_packet,
    ones_complement_sum,
    overlap,
    packed_ip,
    pseudo_header,
    reorder,
    repeat,
    tcp_segment,
    udp_datagram,
)

PAIRS = [
    (Endpoint("10.0.0.1", 40_000), Endpoint("198.51.100.7", 80)),
    (Endpoint("2001:db8::1", 40_000), Endpoint("2001:db8::2", 80)),
]
Change = Callable[[list[Segment], random.Random], list[Segment]]


def slow_sum(data: bytes) -> int:
    total = 0
    for (word,) in struct.iter_unpack("!H", data + b"\0" * (len(data) % 2)):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


@settings(deadline=None)
@given(st.binary(max_size=200) | st.lists(st.sampled_from([0, 1, 254, 255]), max_size=9).map(bytes))
def test_sum_equals_adding_word_by_word(data: bytes) -> None:
    assert ones_complement_sum(data) == slow_sum(data)
    assert ones_complement_sum(memoryview(data)) == slow_sum(data)


def test_checksum_of_the_example_in_rfc_1071() -> None:
    assert ones_complement_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D


@pytest.mark.parametrize(
    ("big_endian", "nanoseconds", "head", "record"),
    [
        (False, False, "d4c3b2a1020004000000000000000000", "0100000006000000"),
        (True, False, "a1b2c3d4000200040000000000000000", "0000000100000006"),
        (False, True, "4d3cb2a1020004000000000000000000", "0100000070170000"),
        (True, True, "a1b23c4d000200040000000000000000", "0000000100001770"),
    ],
)
def test_pcap_variants(big_endian: bool, nanoseconds: bool, head: str, record: str) -> None:
    stream = io.BytesIO()
    writer = PcapWriter(stream, big_endian=big_endian, nanoseconds=nanoseconds)
    writer.write(1_000_006_000, b"frame")
    data = stream.getvalue()
    order = ">" if big_endian else "<"
    assert data[:16].hex() == head
    assert struct.unpack(f"{order}II", data[16:24]) == (262_144, 1)
    assert data[24:32].hex() == record
    assert struct.unpack(f"{order}II", data[32:40]) == (5, 5)
    assert data[40:] == b"frame"
    assert writer.packets == 1


def test_snaplen_cuts_the_frame_but_not_its_length() -> None:
    stream = io.BytesIO()
    PcapWriter(stream, snaplen=3).write(0, b"frame")
    assert stream.getvalue()[32:] == struct.pack("<II", 3, 5) + b"fra"


def test_ipv4_header() -> None:
    packet = ip_packet(b"xyz", protocol=17, source=packed_ip("1.2.3.4"), target=packed_ip("5.6.7.8"), identification=9)
    assert packet[:10].hex() == "45000017000940004011"
    assert packet[12:].hex() == "0102030405060708" + b"xyz".hex()
    assert slow_sum(packet[:20]) == 0xFFFF


def test_ipv6_header() -> None:
    source, target = packed_ip("2001:db8::1"), packed_ip("2001:db8::2")
    packet = ip_packet(b"xyz", protocol=6, source=source, target=target)
    assert packet == bytes.fromhex("6000000000030640") + source + target + b"xyz"


def test_ethernet_names_the_protocol_and_pads() -> None:
    four, six = b"\x45" + bytes(19), b"\x60" + bytes(39)
    mac = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
    assert ethernet_frame(four, source=mac[0], target=mac[1]) == mac[1] + mac[0] + b"\x08\x00" + four
    assert ethernet_frame(six, source=mac[0], target=mac[1])[12:14] == b"\x86\xdd"
    assert len(ethernet_frame(four, source=mac[0], target=mac[1], pad=True)) == 60


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("payload", [b"", b"odd", b"even"])
def test_transport_checksums_verify(source: Endpoint, target: Endpoint, payload: bytes) -> None:
    tcp = tcp_segment(payload, source=source, target=target, seq=1, ack=2, flags=ACK, options=b"\2\4\5\xb4")
    udp = udp_datagram(payload, source=source, target=target)
    assert slow_sum(pseudo_header(TCP, source.packed, target.packed, len(tcp)) + tcp) == 0xFFFF
    assert slow_sum(pseudo_header(UDP, source.packed, target.packed, len(udp)) + udp) == 0xFFFF
    assert tcp[:14].hex() == f"{40_000:04x}{80:04x}00000001000000026010"
    assert struct.unpack("!HHH", udp[:6]) == (40_000, 80, 8 + len(payload))


def test_offloaded_checksum_is_the_sum_over_the_pseudo_header() -> None:
    source, target = PAIRS[0]
    tcp = tcp_segment(b"data", source=source, target=target, seq=1, ack=2, flags=ACK, offloaded=True)
    pseudo = pseudo_header(TCP, source.packed, target.packed, len(tcp))
    assert int.from_bytes(tcp[16:18], "big") == slow_sum(pseudo)
    assert slow_sum(pseudo + tcp) != 0xFFFF


def test_udp_checksum_is_never_sent_as_zero() -> None:
    source, target = PAIRS[0]
    without = udp_datagram(b"\0\0", source=source, target=target)
    # Adding the checksum itself to the data makes the sum full, and the new checksum 0.
    full = udp_datagram(without[6:8], source=source, target=target)
    assert full[6:8] == b"\xff\xff"


def test_conversation_by_the_book() -> None:
    talk = TcpConversation(*PAIRS[0], client_seq=100, server_seq=2**32 - 3, mss=4)
    made = list(talk.play([Send(True, b"hi"), Send(False, b"0123456789")]))
    expected = [
        (True, 100, 0, SYN, b""),
        (False, 2**32 - 3, 101, SYN | ACK, b""),
        (True, 101, 2**32 - 2, ACK, b""),
        (True, 101, 2**32 - 2, ACK | PSH, b"hi"),
        (False, 2**32 - 2, 103, ACK, b""),
        (False, 2**32 - 2, 103, ACK, b"0123"),
        (False, 2, 103, ACK, b"4567"),
        (True, 103, 6, ACK, b""),
        (False, 6, 103, ACK | PSH, b"89"),
        (True, 103, 8, ACK, b""),
        (True, 103, 8, FIN | ACK, b""),
        (False, 8, 104, ACK, b""),
        (False, 8, 104, FIN | ACK, b""),
        (True, 104, 9, ACK, b""),
    ]
    assert [tuple(each)[:5] for each in made] == expected


def test_frames_are_padded_where_they_arrive() -> None:
    for at_server in (False, True):
        talk = TcpConversation(*PAIRS[0], seen_at_server=at_server)
        talk.skip_open()
        request, acknowledgement = talk.send(True, b"x")
        assert (len(talk.frame(request)), len(talk.frame(acknowledgement))) == ((60, 54) if at_server else (55, 60))
        assert talk.frames == 2


def reassembled(segments: list[Segment]) -> bytes:
    """The bytes, whatever the order, by laying each segment where it says."""
    first = min(each.seq for each in segments if each.payload)
    size = max(each.seq + len(each.payload) for each in segments) - first
    data, covered = bytearray(size), bytearray(size)
    for each in segments:
        if each.payload:
            start = each.seq - first
            data[start : start + len(each.payload)] = each.payload
            covered[start : start + len(each.payload)] = b"\1" * len(each.payload)
    assert all(covered)
    return bytes(data)


@pytest.mark.parametrize("change", [reorder, repeat, overlap])
@settings(deadline=None)
@given(data=st.binary(min_size=12, max_size=600), seed=st.integers(0, 1 << 32))
def test_faults_keep_every_byte(change: Change, data: bytes, seed: int) -> None:
    talk = TcpConversation(*PAIRS[0], mss=5)
    plain = talk.send(False, data)
    changed = change(plain, random.Random(seed))
    payloads = [each for each in changed if each.payload]
    assert reassembled(payloads) == data
    assert changed != plain
    assert len(changed) >= len(plain)
    if change is reorder:
        assert any(later.seq < earlier.seq for earlier, later in pairwise(payloads))
        assert all(abs(changed.index(each) - place) < 10 for place, each in enumerate(plain))
    elif change is repeat:
        assert len(payloads) > len({each.seq for each in payloads})
    else:
        whole = {(each.seq, len(each.payload)) for each in plain}
        assert any((each.seq, len(each.payload)) not in whole for each in payloads)


@pytest.mark.parametrize("change", [reorder, repeat, overlap])
def test_faults_on_nothing(change: Change) -> None:
    assert change([], random.Random(1)) == []
