"""Packets inside of packets: which flow they count to, and how far they are followed."""

from __future__ import annotations

import struct

import pytest

from engine.values.config import CaptureLimits
from tests.capture.frames import INNER_ENDS, PAYLOAD, dissect, dissect_one, inner_ip, inner_ipv6, outer, outer_udp
from tests.capture.packets import ethernet, handshake, ip, pcap, run, tcp

OUTER = ["Ethernet", "IPv4"]
OUTER_ENDS = (bytes([10, 0, 0, 1]), 50000, bytes([10, 0, 0, 2]))


def gre(kind: int, *, flags: int = 0, extra: bytes = b"") -> bytes:
    return struct.pack(">HH", flags, kind) + extra


@pytest.mark.parametrize(
    ("flags", "length"), [(0, 4), (0x8000, 8), (0x2000, 8), (0x1000, 8), (0xA000, 12), (0xB000, 16)]
)
def test_gre_with_each_option(flags: int, length: int) -> None:
    seen = dissect_one(outer(47, gre(0x0800, flags=flags, extra=bytes(length - 4)) + inner_ip()))
    assert seen.layers[2:] == [("GRE", 34, length), ("IPv4", 34 + length, 20), ("UDP", 54 + length, 8)]
    assert (seen.ends, seen.payload, seen.frame.tunnels) == (INNER_ENDS, PAYLOAD, 1)


def test_what_gre_may_carry() -> None:
    assert dissect_one(outer(47, gre(0x86DD) + inner_ipv6())).names == [*OUTER, "GRE", "IPv6", "UDP"]
    assert dissect_one(outer(47, gre(0x6558) + ethernet(inner_ip()))).names == [*OUTER, "GRE", *OUTER, "UDP"]
    mpls = struct.pack(">I", 1 << 12 | 0x140) + inner_ip()
    assert dissect_one(outer(47, gre(0x8847) + mpls)).names == [*OUTER, "GRE", "MPLS", "IPv4", "UDP"]
    keepalive = dissect_one(outer(47, gre(0)))
    assert (keepalive.names, keepalive.verdict, keepalive.frame.tunnels) == ([*OUTER, "GRE"], "decoded", 0)
    routed = dissect_one(outer(47, gre(0x0800, flags=0x4000) + inner_ip()))
    assert (routed.names, routed.verdict) == ([*OUTER, "GRE"], "decoded")
    assert dissect_one(outer(47, gre(0x0800, flags=7) + inner_ip())).names == OUTER


def test_erspan() -> None:
    frame = ethernet(inner_ip())
    assert dissect_one(outer(47, gre(0x88BE) + frame)).names == [*OUTER, "GRE", *OUTER, "UDP"]
    second = dissect_one(outer(47, gre(0x88BE, flags=0x1000, extra=bytes(4)) + b"\x10" + bytes(7) + frame))
    assert second.layers[2:5] == [("GRE", 34, 8), ("ERSPAN", 42, 8), ("Ethernet", 50, 14)]
    third = gre(0x22EB, flags=0x1000, extra=bytes(4)) + b"\x20" + bytes(10)
    assert dissect_one(outer(47, third + b"\0" + frame)).layers[3:5] == [("ERSPAN", 42, 12), ("Ethernet", 54, 14)]
    longer = dissect_one(outer(47, third + b"\1" + bytes(8) + frame))
    assert (longer.layers[3], longer.ends) == (("ERSPAN", 42, 20), INNER_ENDS)
    with_ip = gre(0x22EB, flags=0x1000, extra=bytes(4)) + b"\x20" + bytes(9) + b"\x08\0" + inner_ip()
    assert dissect_one(outer(47, with_ip)).names == [*OUTER, "GRE", "ERSPAN", "IPv4", "UDP"]


def test_pptp() -> None:
    ppp = b"\xff\3\0\x21" + inner_ip()
    head = gre(0x880B, flags=0x3081, extra=struct.pack(">HHII", len(ppp), 1, 1, 1))
    seen = dissect_one(outer(47, head + ppp))
    assert seen.layers[2:5] == [("GRE", 34, 16), ("PPP", 50, 4), ("IPv4", 54, 20)]
    assert seen.ends == INNER_ENDS
    acknowledgment = gre(0x880B, flags=0x2081, extra=struct.pack(">HHI", 0, 1, 1))
    assert dissect_one(outer(47, acknowledgment)).layers[2:] == [("GRE", 34, 12)]
    assert dissect_one(outer(47, head + ppp[:-1])).verdict == "malformed"


def test_ip_in_ip() -> None:
    assert dissect_one(outer(4, inner_ip())).names == [*OUTER, "IPv4", "UDP"]
    assert dissect_one(outer(41, inner_ipv6())).names == [*OUTER, "IPv6", "UDP"]
    sixes = ip("::1", "::2", 41, inner_ipv6()), ip("::1", "::2", 4, inner_ip())
    assert [dissect_one(ethernet(each)).names[2:] for each in sixes] == [["IPv6", "UDP"], ["IPv4", "UDP"]]
    label = struct.pack(">I", 1 << 12 | 0x140)
    assert dissect_one(outer(137, label + inner_ip())).names == [*OUTER, "MPLS", "IPv4", "UDP"]
    assert dissect_one(outer(4, inner_ip()[:-1])).verdict == "malformed"


VXLAN = b"\x08" + bytes(7)


@pytest.mark.parametrize("port", [4789, 8472])
@pytest.mark.parametrize("head", [VXLAN, b"\x88\0\0\7\0\0\1\0"])
def test_vxlan(port: int, head: bytes) -> None:
    seen = dissect_one(outer_udp(port, head + ethernet(inner_ip())))
    assert seen.layers[2:5] == [("UDP", 34, 8), ("VXLAN", 42, 8), ("Ethernet", 50, 14)]
    assert (seen.ends, seen.payload, seen.verdict) == (INNER_ENDS, PAYLOAD, "decoded")


def test_geneve() -> None:
    head = struct.pack(">BBHI", 2, 0, 0x6558, 7 << 8) + bytes(8)
    seen = dissect_one(outer_udp(6081, head + ethernet(inner_ip())))
    assert (seen.layers[3], seen.ends) == (("GENEVE", 42, 16), INNER_ENDS)
    plain = struct.pack(">BBHI", 0, 0, 0x86DD, 7 << 8)
    assert dissect_one(outer_udp(6081, plain + inner_ipv6())).names == [*OUTER, "UDP", "GENEVE", "IPv6", "UDP"]


def gtp(flags: int, extra: bytes, data: bytes) -> bytes:
    return struct.pack(">BBHI", flags, 255, len(extra + data), 1) + extra + data


@pytest.mark.parametrize(
    ("flags", "extra"),
    [
        (0x30, b""),
        (0x32, b"\0\1\0\0"),
        (0x31, bytes(4)),
        (0x34, b"\0\0\0\x85" + b"\1\x10\0\0"),
        (0x37, b"\0\0\0\x85" + b"\1\0\0\xc0" + b"\2" + bytes(7)),
    ],
)
def test_gtp_u(flags: int, extra: bytes) -> None:
    seen = dissect_one(outer_udp(2152, gtp(flags, extra, inner_ip())))
    assert (seen.layers[3], seen.ends) == (("GTP-U", 42, 8 + len(extra)), INNER_ENDS)
    assert dissect_one(outer_udp(2152, gtp(flags, extra, inner_ipv6()))).names[4:] == ["IPv6", "UDP"]


@pytest.mark.parametrize(
    ("port", "data"),
    [
        (4789, bytes(8) + ethernet(inner_ip())),
        (4789, VXLAN[:7]),
        (4789, VXLAN + ethernet(inner_ip())[:30]),
        (4789, VXLAN + ethernet(b"\x45\0\0\x10" + bytes(16))),
        (6081, b"\xc0" + bytes(40)),
        (6081, b"\x3f\0\x65\x58" + bytes(40)),
        (2152, struct.pack(">BBHI", 0x30, 1, 35, 1) + inner_ip()),
        (2152, struct.pack(">BBHI", 0x30, 255, 36, 1) + inner_ip()),
        (2152, gtp(0x34, b"\0\0\0\x85\0", inner_ip())),
        (2152, gtp(0x34, b"\0\0\0\x85\xff", inner_ip())),
        (2152, gtp(0x30, b"", inner_ip()[:-1])),
    ],
)
def test_what_only_has_the_port_of_a_tunnel_counts_as_udp(port: int, data: bytes) -> None:
    got = dissect(pcap([(0, outer_udp(port, data))]))
    [seen] = got.frames
    assert (seen.names, seen.verdict) == ([*OUTER, "UDP"], "decoded")
    assert (seen.ends, seen.payload) == ((*OUTER_ENDS, port), data)
    assert [flow.z_port for flow in got.flows] == [port]


def test_the_reply_from_the_port_of_a_tunnel_is_none() -> None:
    packet = outer(17, struct.pack(">HHHH", 4789, 50000, 8 + 8 + 49, 0) + VXLAN + ethernet(inner_ip()))
    assert dissect_one(packet).names == [*OUTER, "UDP"]


@pytest.mark.parametrize(
    ("inside", "layers"),
    [
        (ethernet(bytes(28), 0x0806), ["ARP"]),
        (ethernet(ip("1.1.1.1", "2.2.2.2", 1, bytes(8))), ["IPv4", "ICMP"]),
        (ethernet(ip("1.1.1.1", "2.2.2.2", 17, bytes(8), fragment=0x2000)), ["IPv4"]),
    ],
)
def test_a_tunnelled_packet_without_ports_counts_to_the_flow_outside(inside: bytes, layers: list[str]) -> None:
    got = dissect(pcap([(0, outer_udp(4789, VXLAN + inside))]))
    [seen] = got.frames
    assert seen.names == [*OUTER, "UDP", "VXLAN", "Ethernet", *layers]
    assert (seen.ends, seen.payload) == ((*OUTER_ENDS, 4789), VXLAN + inside)
    assert seen.frame.fragment == (layers == ["IPv4"])


def test_a_cut_header_inside_has_no_payload() -> None:
    packet = outer_udp(4789, VXLAN + tcp(("10.1.0.1", 1), ("10.1.0.2", 2), 7, PAYLOAD))
    seen = dissect_one(packet[:-15], wire=len(packet))
    assert (seen.layers[-1], seen.ends[1::2]) == (("TCP", 84, 12), (1, 2))
    assert (seen.payload, seen.frame.has_tcp) == (b"", 0)


def nested(levels: int) -> bytes:
    packet = inner_ip()
    for _ in range(levels):
        packet = ip("10.0.0.1", "10.0.0.2", 4, packet)
    return ethernet(packet)


def test_tunnels_are_followed_up_to_a_limit() -> None:
    limits = CaptureLimits(tunnels=3)
    within, beyond = dissect(pcap([(0, nested(3))]), limits), dissect(pcap([(0, nested(4))]), limits)
    assert within.frames[0].ends == INNER_ENDS
    assert (within.stats.too_deep, beyond.stats.too_deep) == (0, 1)
    [seen] = beyond.frames
    assert (seen.names, seen.verdict, seen.frame.too_deep) == (["Ethernet", *["IPv4"] * 4], "decoded", 1)
    assert beyond.flows == []


def test_a_limit_in_a_udp_tunnel_leaves_the_flow_outside() -> None:
    inside = outer_udp(4789, VXLAN + ethernet(inner_ip()))
    got = dissect(pcap([(0, outer_udp(8472, VXLAN + inside))]), CaptureLimits(tunnels=1))
    assert (got.stats.too_deep, [flow.z_port for flow in got.flows]) == (1, [4789])
    none = dissect(pcap([(0, outer_udp(8472, VXLAN + inside))]), CaptureLimits(tunnels=0))
    assert (none.frames[0].names, none.stats.too_deep) == ([*OUTER, "UDP"], 1)


@pytest.mark.parametrize("tunnels", [0, 16, 1000])
def test_hostile_nesting_ends(tunnels: int) -> None:
    packet = b"x"
    for _ in range(40):
        packet = outer_udp(4789, VXLAN + packet)
    got = dissect(pcap([(0, packet)]), CaptureLimits(tunnels=tunnels))
    assert (got.stats.too_deep, got.stats.decoded, len(got.flows)) == (1, 1, 1)


def test_tcp_in_a_tunnel_is_put_in_order() -> None:
    client, server = ("10.0.0.1", 40000), ("10.0.0.2", 80)
    segments = [(0.0, tcp(client, server, 2, b"abc")), (0.0, tcp(client, server, 8, b"ghi"))]
    records = [*handshake(1, 2), *segments, (0.0, tcp(client, server, 5, b"def"))]
    wrapped = [(time, outer_udp(4789, VXLAN + frame)) for time, frame, *_ in records]
    got = run(pcap(wrapped))
    assert (got.data(), got.roles[1]) == (b"abcdefghi", True)
