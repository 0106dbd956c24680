"""Flows by 5-tuple with dpkt: python dpkt_flows.py CAPTURE; prints packets, flows and seconds as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import dpkt


def main(path: Path) -> None:
    """Count packets and bytes of each flow, both directions together."""
    began = time.perf_counter()
    packets, flows = 0, {}
    with path.open("rb") as file:
        for _, data in dpkt.pcap.Reader(file):
            packets += 1
            frame = dpkt.ethernet.Ethernet(data)
            network = frame.data
            if not isinstance(network, dpkt.ip.IP | dpkt.ip6.IP6):
                continue
            transport = network.data
            if not isinstance(transport, dpkt.tcp.TCP | dpkt.udp.UDP):
                continue
            ends = sorted(((network.src, transport.sport), (network.dst, transport.dport)))
            key = (network.p, *ends[0], *ends[1])
            flow = flows.get(key)
            if flow is None:
                flow = flows[key] = [0, 0]
            flow[0] += 1
            flow[1] += len(data)
    seconds = time.perf_counter() - began
    print(json.dumps({"packets": packets, "flows": len(flows), "seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
