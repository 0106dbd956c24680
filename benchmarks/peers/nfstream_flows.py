"""Flows with nfstream, without its DPI: python nfstream_flows.py CAPTURE; prints packets, flows and seconds as JSON.

Its flows are never ended by time, as those of the engine are not.
"""

from __future__ import annotations

import json
import sys
import time

from nfstream import NFStreamer


def main(path: str) -> None:
    """Count packets and flows."""
    began = time.perf_counter()
    never = 1 << 30
    packets = flows = 0
    streamer = NFStreamer(source=path, n_dissections=0, idle_timeout=never, active_timeout=never, n_meters=1)
    for flow in streamer:
        flows += 1
        packets += flow.bidirectional_packets
    seconds = time.perf_counter() - began
    print(json.dumps({"packets": packets, "flows": flows, "seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1])
