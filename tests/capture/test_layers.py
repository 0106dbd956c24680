"""The shared captures: in how many packets each layer is, as tshark counted them; and what every frame must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.capture.frames import dissect
from tests.capture.packets import run

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

OURS = {
    "ether": "Ethernet",
    "llc": "LLC",
    "vlan": "VLAN",
    "mpls": "MPLS",
    "pppoes": "PPPoE",
    "ppp": "PPP",
    "sll": "SLL",  # version 2 has the same name there
    "null": "Loopback",
    "arp": "ARP",
    "ipv4": "IPv4",
    "ipv6": "IPv6",
    "ipv6.hopopts": "IPv6 hop-by-hop",
    "ipv6.dstopts": "IPv6 destination options",
    "ipv6.routing": "IPv6 routing",
    "ipv6.fraghdr": "IPv6 fragment",
    "tcp": "TCP",
    "udp": "UDP",
    "icmp": "ICMP",
    "icmpv6": "ICMPv6",
    "igmp": "IGMP",
    "gre": "GRE",
    "vxlan": "VXLAN",
}
"""Our names of what tshark calls otherwise. Its names that are not here are of no layer of ours: `raw` has no bytes,
`loop` is the payload of Ethernet, and the rest are applications and what is behind LLC."""

DIFFERENT = {
    ("trisul-tutorial1", "IPv4"): (1, "tshark counts one with LLC's number for IP, version 0 and noise in it"),
}
"""Packets that tshark counts in addition, and why."""


def captures() -> list[Any]:
    found = sorted((SHARED / "expected").glob("*.json"))
    if not found:
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no captures in {SHARED}"))]
    return [pytest.param(path, id=path.stem) for path in found]


@pytest.mark.parametrize("path", captures())
def test_the_layers_are_those_that_tshark_counts(path: Path) -> None:
    expected = json.loads(path.read_text())
    wanted = {OURS[name]: packets for name, packets in expected["protocols"].items() if name in OURS}
    for name in wanted:
        wanted[name] -= DIFFERENT.get((path.stem, name), (0, ""))[0]
    got = dissect(SHARED / "pcap" / expected["capture"], step=100)
    if "SLL2" in got.layers:
        got.layers["SLL"] = got.layers.pop("SLL2")
    assert got.layers == wanted
    assert len(got.frames) == expected["packets"]


@pytest.mark.parametrize("path", captures())
def test_frames_change_nothing_else(path: Path) -> None:
    capture = SHARED / "pcap" / json.loads(path.read_text())["capture"]
    with_frames, without = dissect(capture), run(capture)
    assert with_frames.flows == without.flows
    assert with_frames.stats == without.stats
    numbers = {seen.frame.flow for seen in with_frames.frames if seen.frame.flow}
    assert len(numbers) == len(with_frames.flows)
    packets = sum(flow.a_packets + flow.z_packets for flow in with_frames.flows)
    assert packets == sum(1 for seen in with_frames.frames if seen.frame.row)
