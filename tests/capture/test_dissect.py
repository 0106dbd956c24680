"""Protocols, one by one: which layers a packet has, where they lie, and what it counts as."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.values.config import CaptureLimits
from tests.capture.frames import (
    INNER,
    INNER_ENDS,
    PAYLOAD,
    FrameReader,
    dissect,
    dissect_one,
    inner_ip,
    inner_ipv6,
    outer,
    udp_header,
)
from tests.capture.packets import ACK, Record, ethernet, ip, pcap

SNAP = b"\xaa\xaa\3\0\0\0"


def carries_inner(link: int, head: bytes, *layers: tuple[str, int, int], tail: bytes = b"") -> None:
    """Headers in front of an IPv4 packet: their layers, then its own, and its flow."""
    seen = dissect_one(head + inner_ip() + tail, link=link)
    at = len(head)
    assert seen.layers == [*layers, ("IPv4", at, 20), ("UDP", at + 20, 8)]
    assert (seen.verdict, seen.ends, seen.payload) == ("decoded", INNER_ENDS, PAYLOAD)


def test_ethernet() -> None:
    carries_inner(1, ethernet(b"", 0x0800), ("Ethernet", 0, 14))
    carries_inner(1, ethernet(b"", 0x0800), ("Ethernet", 0, 14), tail=bytes(11))
    assert dissect_one(ethernet(b"", 0x0800)[:13]).verdict == "malformed"
    assert dissect_one(ethernet(bytes(40), 0x88CC)).layers == [("Ethernet", 0, 14)]


def test_8023_with_llc_and_snap() -> None:
    length = len(SNAP) + 2 + len(inner_ip())
    carries_inner(1, ethernet(SNAP + b"\x08\0", length), ("Ethernet", 0, 14), ("LLC", 14, 8), tail=bytes(9))
    spanning_tree = dissect_one(ethernet(b"\x42\x42\3" + bytes(35), 38))
    assert (spanning_tree.layers, spanning_tree.verdict) == ([("Ethernet", 0, 14), ("LLC", 14, 3)], "undecoded")
    numbered = dissect_one(ethernet(b"\xf0\xf0\0\1" + bytes(14), 18))
    assert numbered.layers == [("Ethernet", 0, 14), ("LLC", 14, 4)]
    cisco = dissect_one(ethernet(b"\xaa\xaa\3\0\0\x0c\x20\0" + bytes(30), 38))
    assert (cisco.names, cisco.verdict) == (["Ethernet", "LLC"], "undecoded")
    novell = dissect_one(ethernet(b"\xff\xff" + bytes(28), 30))
    assert (novell.names, novell.verdict) == (["Ethernet"], "undecoded")


@pytest.mark.parametrize("tags", [[0x8100], [0x88A8, 0x8100], [0x9100, 0x8100, 0x8100]])
def test_vlan_tags(tags: list[int]) -> None:
    types = [*tags[1:], 0x0800]
    head = ethernet(b"".join(struct.pack(">HH", 7, following) for following in types), tags[0])
    carries_inner(1, head, ("Ethernet", 0, 14), *(("VLAN", 14 + 4 * i, 4) for i in range(len(tags))))


def test_a_vlan_tag_before_8023() -> None:
    head = ethernet(struct.pack(">HH", 7, 8 + len(inner_ip())) + SNAP + b"\x08\0", 0x8100)
    carries_inner(1, head, ("Ethernet", 0, 14), ("VLAN", 14, 4), ("LLC", 18, 8))


def label(value: int, *, bottom: bool = False) -> bytes:
    return struct.pack(">I", value << 12 | bottom << 8 | 64)


def test_mpls_with_ip_inside() -> None:
    head = ethernet(label(100) + label(200, bottom=True), 0x8847)
    layers = [("Ethernet", 0, 14), ("MPLS", 14, 4), ("MPLS", 18, 4)]
    carries_inner(1, head, *layers)
    assert dissect_one(head + inner_ipv6()).names[3:] == ["IPv6", "UDP"]
    assert dissect_one(ethernet(label(2, bottom=True) + inner_ipv6(), 0x8848)).names[2:] == ["IPv6", "UDP"]
    carries_inner(1, ethernet(label(0, bottom=True), 0x8847), *layers[:2])


@pytest.mark.parametrize("first", [0x00, 0x02, 0x1C, 0x45, 0x60, 0xA0])
@pytest.mark.parametrize("control", [b"", bytes(4), b"\0\0\x12\x34"])
def test_an_ethernet_pseudowire(first: int, control: bytes) -> None:
    frame = bytes([first]) + ethernet(inner_ip())[1:]
    seen = dissect_one(ethernet(label(16, bottom=True) + control + frame, 0x8847))
    assert seen.names == ["Ethernet", "MPLS", *["PW control word"] * bool(control), "Ethernet", "IPv4", "UDP"]
    assert (seen.ends, seen.frame.tunnels) == (INNER_ENDS, 1)


def test_mpls_with_what_nobody_knows_inside() -> None:
    seen = dissect_one(ethernet(label(16, bottom=True) + b"\x10\0\0\x21" + bytes(30), 0x8847))
    assert (seen.names, seen.verdict) == (["Ethernet", "MPLS"], "undecoded")


def test_pppoe() -> None:
    head = ethernet(struct.pack(">BBHHH", 0x11, 0, 1, 2 + len(inner_ip()), 0x0021), 0x8864)
    layers = [("Ethernet", 0, 14), ("PPPoE", 14, 6), ("PPP", 20, 2)]
    carries_inner(1, head, *layers, tail=bytes(5))
    assert dissect_one(head + inner_ip()[:-1]).verdict == "malformed"
    carries_inner(51, head[14:], ("PPPoE", 0, 6), ("PPP", 6, 2))
    discovery = dissect_one(ethernet(struct.pack(">BBHH", 0x11, 9, 0, 4) + b"\1\1\0\0" + bytes(20), 0x8863))
    assert (discovery.layers, discovery.verdict) == ([("Ethernet", 0, 14), ("PPPoE", 14, 10)], "undecoded")


@pytest.mark.parametrize("link", [9, 50])
@pytest.mark.parametrize("prefix", [b"\xff\3", b""])
@pytest.mark.parametrize("number", [b"\0\x21", b"\x21"])
def test_ppp(link: int, prefix: bytes, number: bytes) -> None:
    head = prefix + number
    carries_inner(link, head, ("PPP", 0, len(head)))


def test_ppp_with_other_things_inside() -> None:
    assert dissect_one(b"\xff\3\0\x57" + inner_ipv6(), link=9).names == ["PPP", "IPv6", "UDP"]
    assert dissect_one(b"\2\x81" + label(9, bottom=True) + inner_ip(), link=9).names == ["PPP", "MPLS", "IPv4", "UDP"]
    assert dissect_one(b"\xff\3\xc0\x21" + bytes(20), link=9).verdict == "undecoded"
    assert dissect_one(b"\0", link=9).verdict == "malformed"


def test_cooked_captures() -> None:
    carries_inner(113, bytes(14) + b"\x08\0", ("SLL", 0, 16))
    carries_inner(276, b"\x08\0" + bytes(18), ("SLL2", 0, 20))
    assert dissect_one(bytes(14) + b"\0\4\x42\x42\3" + bytes(20), link=113).names == ["SLL", "LLC"]
    assert dissect_one(bytes(15), link=113).verdict == dissect_one(bytes(19), link=276).verdict == "malformed"


@pytest.mark.parametrize("link", [0, 108])
@pytest.mark.parametrize("order", ["<", ">"])
def test_loopback(link: int, order: str) -> None:
    carries_inner(link, struct.pack(order + "I", 2), ("Loopback", 0, 4))
    assert dissect_one(struct.pack(order + "I", 30) + inner_ipv6(), link=link).names == ["Loopback", "IPv6", "UDP"]


@pytest.mark.parametrize("link", [12, 14, 101, 228])
def test_raw_ip(link: int) -> None:
    carries_inner(link, b"")
    assert dissect_one(inner_ipv6(), link=link).names == ["IPv6", "UDP"]


def wlan(flags: int, *, subtype: int = 0, extra: bytes = b"", fragment: int = 0) -> bytes:
    """A data frame up to LLC."""
    head = bytes([subtype << 4 | 8, flags]) + bytes(20) + struct.pack("<H", fragment)
    return head + bytes(6) * (flags & 3 == 3) + extra


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_80211_data(flags: int) -> None:
    plain = wlan(flags)
    carries_inner(105, plain + SNAP + b"\x08\0", ("802.11", 0, len(plain)), ("LLC", len(plain), 8))
    quality = wlan(flags, subtype=8, extra=bytes(2))
    carries_inner(105, quality + SNAP + b"\x08\0", ("802.11", 0, len(quality)), ("LLC", len(quality), 8))
    ordered = wlan(flags | 0x80, subtype=8, extra=bytes(6))
    carries_inner(105, ordered + SNAP + b"\x08\0", ("802.11", 0, len(ordered)), ("LLC", len(ordered), 8))


def test_80211_aggregate() -> None:
    head = wlan(1, subtype=8, extra=b"\x80\0")
    part = bytes(12) + struct.pack(">H", 8 + len(inner_ip()))
    layers = [("802.11", 0, 26), ("A-MSDU", 26, 14), ("LLC", 40, 8)]
    carries_inner(105, head + part + SNAP + b"\x08\0", *layers, tail=bytes(50))


@pytest.mark.parametrize(
    "frame", [wlan(0x40), wlan(4), wlan(0, fragment=1), wlan(0, subtype=4), b"\x80\0" + bytes(40), b"\xd4\0" + bytes(8)]
)
def test_80211_without_readable_data(frame: bytes) -> None:
    seen = dissect_one(frame + SNAP + b"\x08\0" + inner_ip(), link=105)
    assert (seen.names, seen.verdict) == (["802.11"], "undecoded")


def test_radiotap() -> None:
    frame = wlan(2) + SNAP + b"\x08\0"
    layers = [("802.11", 8, 24), ("LLC", 32, 8)]
    carries_inner(127, struct.pack("<BBHI", 0, 0, 8, 0) + frame, ("Radiotap", 0, 8), *layers)
    # Time, flags: a frame check sequence; two words of bitmap, so that the time is aligned behind four bytes.
    head = struct.pack("<BBHII", 0, 0, 25, 0x80000003, 0) + bytes(4) + bytes(8) + b"\x10"
    carries_inner(127, head + frame, ("Radiotap", 0, 25), ("802.11", 25, 24), ("LLC", 49, 8), tail=b"\xff\xff\xff\xff")
    # A header of 26 bytes, padded to 28.
    padded = wlan(1, subtype=8, extra=bytes(2)) + bytes(2) + SNAP + b"\x08\0"
    head = struct.pack("<BBHIB", 0, 0, 9, 2, 0x20)
    carries_inner(127, head + padded, ("Radiotap", 0, 9), ("802.11", 9, 28), ("LLC", 37, 8))
    assert dissect_one(struct.pack("<BBHI", 0, 0, 7, 0), link=127).verdict == "malformed"
    assert dissect_one(struct.pack("<BBHI", 0, 0, 99, 0), link=127).verdict == "malformed"


def test_arp() -> None:
    seen = dissect_one(ethernet(struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + bytes(20) + bytes(18), 0x0806))
    assert (seen.layers, seen.verdict) == ([("Ethernet", 0, 14), ("ARP", 14, 28)], "decoded")
    assert dissect_one(ethernet(struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1), 0x0806)).verdict == "malformed"


def test_ipv4_options_belong_to_its_layer() -> None:
    packet = bytearray(ip("1.1.1.1", "2.2.2.2", 17, bytes(4) + udp_header(PAYLOAD)))
    packet[0] = 0x46
    assert dissect_one(ethernet(bytes(packet))).layers == [("Ethernet", 0, 14), ("IPv4", 14, 24), ("UDP", 38, 8)]


def test_ipv6_extension_headers_are_layers() -> None:
    chain = struct.pack(">BB6x", 60, 0) + struct.pack(">BB14x", 43, 1) + struct.pack(">BB6x", 44, 0)
    chain += struct.pack(">BBHI", 135, 0, 0, 7) + struct.pack(">BB6x", 139, 0) + struct.pack(">BB6x", 140, 0)
    chain += struct.pack(">BB6x", 51, 0) + struct.pack(">BBHII", 17, 2, 0, 1, 1) + bytes(4)
    seen = dissect_one(ethernet(ip("::1", "::2", 0, chain + udp_header(b""))))
    assert seen.layers == [
        ("Ethernet", 0, 14),
        ("IPv6", 14, 40),
        ("IPv6 hop-by-hop", 54, 8),
        ("IPv6 destination options", 62, 16),
        ("IPv6 routing", 78, 8),
        ("IPv6 fragment", 86, 8),
        ("IPv6 mobility", 94, 8),
        ("HIP", 102, 8),
        ("Shim6", 110, 8),
        ("AH", 118, 16),
        ("UDP", 134, 8),
    ]
    assert (seen.verdict, seen.frame.fragment) == ("decoded", 0)


def test_transport() -> None:
    tcp = struct.pack(">HHIIBBHHH", 1000, 80, 7, 8, 0x80, ACK, 0, 0, 0) + bytes(12)
    seen = dissect_one(outer(6, tcp + PAYLOAD))
    assert seen.layers[2:] == [("TCP", 34, 32)]
    assert (seen.frame.seq, seen.frame.ack, seen.frame.flags, seen.payload) == (7, 8, ACK, PAYLOAD)
    sctp = dissect_one(outer(132, struct.pack(">HHII", 5, 6, 0, 0) + PAYLOAD))
    assert (sctp.layers[2:], sctp.payload) == ([("SCTP", 34, 12)], PAYLOAD)
    short = dissect_one(outer(17, udp_header(PAYLOAD, length=10)))
    assert (short.layers[2:], short.payload) == ([("UDP", 34, 8)], PAYLOAD[:2])
    assert dissect_one(outer(17, udp_header(PAYLOAD, length=7))).verdict == "malformed"
    assert dissect_one(outer(17, udp_header(PAYLOAD, length=0))).payload == PAYLOAD
    assert dissect_one(outer(17, udp_header(PAYLOAD, length=99))).payload == PAYLOAD


@pytest.mark.parametrize(("proto", "name"), [(1, "ICMP"), (2, "IGMP"), (50, "ESP"), (58, "ICMPv6")])
def test_what_swallows_the_rest(proto: int, name: str) -> None:
    packet = ip("::1", "::2", proto, bytes(30)) if proto == 58 else ip("1.1.1.1", "2.2.2.2", proto, bytes(30))
    seen = dissect_one(ethernet(packet) + bytes(6))
    at = 14 + len(packet) - 30
    assert (seen.layers[2:], seen.verdict, seen.frame.proto) == ([(name, at, 30)], "decoded", proto)
    cut = dissect_one(ethernet(packet)[: at + 9], wire=at + 30)
    assert (cut.layers[2:], cut.verdict) == ([(name, at, 9)], "decoded")
    assert dissect_one(ethernet(packet)[:at], wire=at + 30).names == seen.names[:2]


def test_a_header_that_the_snap_length_cut_has_what_is_there() -> None:
    tcp = struct.pack(">HHIIBBHHH", 1000, 80, 7, 8, 0x80, ACK, 0, 0, 0) + bytes(12)
    packet = outer(6, tcp)
    for captured, length in ((34, 0), (37, 3), (38, 4), (53, 19), (60, 26), (66, 32)):
        seen = dissect_one(packet[:captured], wire=len(packet))
        assert seen.layers[2:] == [("TCP", 34, length)][: bool(length)]
        assert (seen.frame.has_ports, seen.frame.has_tcp) == (captured >= 38, captured >= 54)


def test_more_layers_than_are_listed_still_lead_to_the_flow() -> None:
    tags = b"".join(struct.pack(">HH", 7, 0x8100) for _ in range(17)) + struct.pack(">HH", 7, 0x0800)
    got = dissect(pcap([(0, ethernet(tags + inner_ip(), 0x8100))]))
    [seen] = got.frames
    assert seen.names == ["Ethernet", *["VLAN"] * 15]
    assert (seen.ends, seen.frame.too_deep, got.stats.too_deep) == (INNER_ENDS, 1, 1)
    assert [flow.a_ip for flow in got.flows] == [INNER[0]]


def test_a_frame_says_what_the_record_and_the_flow_said() -> None:
    records = [(1.5, outer(17, udp_header(b"a"))), (2.5, ethernet(b"", 0x88CC)), (3.5, b"x")]
    got = dissect(pcap(records), step=1)
    assert [seen.frame.time for seen in got.frames] == [1.5, 2.5, 3.5]
    assert [seen.data for seen in got.frames] == [data for _, data in records]
    assert [seen.frame.row for seen in got.frames] == [1, 0, 0]
    assert [seen.verdict for seen in got.frames] == ["decoded", "undecoded", "malformed"]
    back = outer(17, udp_header(b"b", (53, 1000)))
    assert [seen.frame.side for seen in dissect(pcap([records[0], (2.0, back)])).frames] == [0, 1]


def samples() -> list[tuple[int, bytes]]:
    """A packet of most kinds, with link types."""
    gre = struct.pack(">HHII", 0x3000, 0x6558, 1, 1) + ethernet(inner_ip())
    vxlan = udp_header(b"\x08" + bytes(7) + ethernet(inner_ipv6()), (9, 4789))
    geneve = udp_header(struct.pack(">BBHI", 2, 0, 0x6558, 0) + bytes(8) + ethernet(inner_ip()), (9, 6081))
    gtp = udp_header(struct.pack(">BBHIHBB", 0x34, 255, 43, 1, 0, 0, 0x85) + b"\1\0\0\0" + inner_ip(), (9, 2152))
    chain = struct.pack(">BB6x", 44, 0) + struct.pack(">BBHI", 17, 0, 1, 7) + bytes(16)
    return [
        *((1, outer(proto, data)) for proto, data in ((47, gre), (17, vxlan), (17, geneve), (17, gtp))),
        (1, outer(41, inner_ipv6())),
        (1, ethernet(ip("::1", "::2", 0, chain))),
        (1, ethernet(ip("1.1.1.1", "2.2.2.2", 17, bytes(24), fragment=0x2000))),
        (1, ethernet(ip("1.1.1.1", "2.2.2.2", 17, bytes(24), fragment=3))),
        (1, ethernet(label(3) + label(4, bottom=True) + bytes(4) + ethernet(inner_ip()), 0x8847)),
        (1, ethernet(struct.pack(">BBHHH", 0x11, 0, 1, 37, 0x0021) + inner_ip(), 0x8864)),
        (127, struct.pack("<BBHIB", 0, 0, 9, 2, 0x30) + wlan(3, subtype=8, extra=b"\x80\0") + bytes(70)),
        (113, bytes(14) + b"\x08\0" + inner_ip()),
    ]


Mutated = tuple[tuple[int, bytes], list[tuple[int, int]], int]


@pytest.fixture(scope="module")
def reader() -> Iterator[FrameReader]:
    reader = FrameReader(CaptureLimits(tunnels=3, fragmented_datagrams=4))
    yield reader
    reader.close()


@settings(max_examples=250, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(samples()),
            st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
            st.integers(0, 250),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_mutated_packets_never_harm(reader: FrameReader, packets: list[Mutated]) -> None:
    """One verdict of three, and layers in order within the captured bytes: the reader checks every frame."""
    for link in {link for (link, _), _, _ in packets}:
        records: list[Record] = []
        for (kind, packet), changes, captured in packets:
            data = bytearray(packet)
            for place, value in changes:
                data[place % len(data)] = value
            if kind == link:
                records.append((0.0, bytes(data[:captured]), len(data)))
        assert len(reader.read(pcap(records, link=link))) == len(records)


@settings(max_examples=250, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([0, 1, 9, 50, 51, 101, 105, 108, 113, 127, 276]))
def test_random_bytes_never_harm(reader: FrameReader, packet: bytes, link: int) -> None:
    assert len(reader.read(pcap([(0, packet)], link=link))) == 1
