"""Records of flows that are over: they come at once, with what scripts said of their flow and of no other."""

from __future__ import annotations

from pathlib import Path

from engine import Capture, Engine
from tests.capture.packets import ACK, CLIENT, FIN, SERVER, Record, handshake, pcap, tcp, udp

ENDS = """
TrisulPlugin = { id = { name = "ends" },
  reassembly_handler = {
    onterminateflow = function(engine, time, flow) engine:tag_flow(flow:id(), "ended") end,
  },
}
"""


async def flows_of(tmp_path: Path, frames: list[Record], script: str = "") -> list[tuple[float, int, str]]:
    """Start, packets and tags of each flow record, in their order."""
    capture, scripts = tmp_path / "some.pcap", []
    capture.write_bytes(pcap(frames))
    if script:
        scripts = [tmp_path / "script.lua"]
        scripts[0].write_text(script)
    async with Engine(scripts) as engine:
        records = engine.subscribe("flow", "log")
        await engine.run(Capture(capture))
    found = [each async for each in records]
    return [(each.start, each.a_packets + each.z_packets, each.tags) for each in found if each.kind == "flow"]


async def test_each_flow_gives_a_record_when_it_is_over(tmp_path: Path) -> None:
    frames = [(float(time), udp(CLIENT, SERVER)) for time in (0, 1, 100, 101, 102, 300)]
    assert await flows_of(tmp_path, frames) == [(0.0, 2, ""), (100.0, 3, ""), (300.0, 1, "")]


async def test_tags_go_to_the_flow_that_was_there_when_they_were_given(tmp_path: Path) -> None:
    close = [
        (0.0, tcp(CLIENT, SERVER, 2, flags=FIN | ACK, ack=3)),
        (0.0, tcp(SERVER, CLIENT, 3, flags=FIN | ACK, ack=3)),
    ]
    frames = [
        *handshake(1, 2),
        (0.0, tcp(CLIENT, SERVER, 2, b"x", ack=3)),
        *close,
        (50.0, tcp(CLIENT, SERVER, 9, ack=9)),
    ]
    assert await flows_of(tmp_path, frames, ENDS) == [(0.0, 6, "ended"), (50.0, 1, "")]
