"""What is stored and counted of flows that end while their source goes on: rows of the flow table are used again."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Config
from engine.capture.decoder import Decoder
from engine.capture.source import open_capture
from engine.values.config import CaptureLimits
from engine.values.flowkeys import canonical
from engine.values.records import Flow
from tests.capture.packets import ACK, CLIENT, FIN, SERVER, SYN, Record, handshake, pcap, tcp, udp
from tests.lua_api.packet_rig import GUIDS
from tests.pipeline.test_storage import Stored, stored
from tests.scripts import Collector, plugin, run_capture, write

GROUP = "{AAAAAAAA-0000-4000-8000-000000000001}"
ROUNDS = 6
SIZES = (12, 9)
"""Datagrams of a round from the first port, and from the second."""


def on_udp(body: str) -> str:
    return plugin(
        f'simplecounter = {{ protocol_guid = "{GUIDS["UDP"]}", onpacket = function(engine, layer) {body} end }}'
    )


def rounds() -> list[Record]:
    """In each round two flows of ports of their own, which are silent for longer than a flow may be."""
    records: list[Record] = []
    for number in range(ROUNDS):
        for side, packets in enumerate(SIZES):
            client = ("10.0.0.1", 20_000 + 2 * number + side)
            sent = [udp(client, ("10.0.0.2", 53), bytes([number, side]) * (500 + at)) for at in range(packets)]
            records += [(1000.0 * number + side + at / 100, data) for at, data in enumerate(sent)]
    return sorted(records, key=lambda record: record[0])


async def run(tmp_path: Path, records: list[Record], *bodies: str) -> tuple[list[Stored], Collector]:
    """What is stored of a capture, whose flow table has a hundred rows."""
    (tmp_path / "in.pcap").write_bytes(pcap(records))
    scripts = [write(tmp_path, body, f"s{number}.lua") for number, body in enumerate(bodies)]
    config = Config(store=tmp_path / "out", limits=CaptureLimits(flows=100))
    collector, _ = await run_capture(tmp_path / "in.pcap", scripts, config)
    assert collector.logged("ERROR") == []
    return list(stored(tmp_path / "out")), collector


def test_the_rounds_use_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "in.pcap").write_bytes(pcap(rounds()))
    decoder, highest = Decoder(CaptureLimits(), frames=True), 0
    with open_capture(tmp_path / "in.pcap") as capture:
        decoder.begin(capture)
        while not (batch := decoder.step(100)).done:
            highest = max([highest, *(decoder.flow_row(flow.id.encode()) for flow in _there(decoder))])
            assert batch.flows == 0 or batch.frame_count == 0
    decoder.close()
    assert highest == len(SIZES)


def _there(decoder: Decoder) -> list[Flow]:
    return [flow for each in decoder.flow_records() for flow in each]


async def test_counters_and_stored_packets_are_those_of_their_own_flow(tmp_path: Path) -> None:
    """Odd ports are stored but for half of the rounds; of even ones so many bytes as the round says."""
    votes = """filter = function(engine, time, flow)
      local port = tonumber(flow:porta_readable())
      local round = math.floor((port - 20000) / 2)
      if port % 2 == 0 then return ({ [0] = 5, 0, 2 })[round % 3] end
      return round % 2
    end"""
    silent = "filter = function() return -1 end"
    counts = f"engine:add_flow_counter(layer:flowkey(), '{GROUP}', layer:packet():flowid():porta_readable(), 0, 0)"
    storage = [plugin(f"packet_storage = {{ {body} }}") for body in (silent, votes, silent)]
    records = rounds()
    found, collector = await run(tmp_path, records, *storage, on_udp(counts))

    expected: list[bytes] = []
    counted: dict[str, int] = {}
    of_flow: dict[int, int] = {}
    for _, data in records:
        port = int.from_bytes(data[34:36], "big")
        number = (port - 20_000) // 2
        rank = number % 2 and "all" if port % 2 else ("10 KB", "", "headers")[number % 3]
        before = of_flow.get(port)
        if before is not None:
            counted[str(port)] = counted.get(str(port), 0) + len(data)
        of_flow[port] = (before or 0) + len(data)
        if rank == "all" or (rank == "10 KB" and (before or 0) < 10 * 1024):
            expected.append(data)
        elif rank == "headers":
            expected.append(data[:42])
    assert [each.data for each in found] == expected
    assert {each.key: each.value for each in collector.of("counter") if each.group == GROUP} == counted


async def test_the_answer_to_payload_is_not_that_of_the_flow_before(tmp_path: Path) -> None:
    """The first flow of the row is stored for its payload; those after it say something else."""
    body = "filter = function() return 0 end, filter_payload = function(engine, time, flow, direction, seek, data) "
    body += "return data:hval_8(0) == 121 and 1 or 0 end"
    says = (b"y", b"n", b"y", b"n")
    records = [(100.0 * n, udp(("10.0.0.1", 20_000 + n), SERVER, each)) for n, each in enumerate(says)]
    found, _ = await run(tmp_path, records, plugin(f"packet_storage = {{ {body} }}"))
    assert [each.data[42:] for each in found] == [b"y", b"y"]


async def test_a_key_that_comes_again_is_another_flow(tmp_path: Path) -> None:
    """Its counters and tags end with the first; counters of the second are its own."""
    body = f"""n = (n or 0) + 1
      if n == 1 then
        engine:add_flow_counter(layer:flowkey(), '{GROUP}', 'first', 0, 0)
        engine:tag_flow(layer:flowkey(), 'first')
      end
      if n == 4 then engine:add_flow_counter(layer:flowkey(), '{GROUP}', 'second', 0, 0) end"""
    records = [(time, udp(CLIENT, SERVER, b"x" * 8)) for time in (0.0, 1.0, 2.0, 500.0, 501.0)]
    _, collector = await run(tmp_path, records, on_udp(body))
    counters = {each.key: each.value for each in collector.of("counter") if each.group == GROUP}
    assert counters == {"first": 100, "second": 50}
    assert [(each.start, each.tags) for each in collector.of("flow")] == [(0.0, "first"), (500.0, "")]


@pytest.mark.parametrize("again", [False, True])
async def test_a_counter_that_begins_when_its_flow_ends_counts_nothing(tmp_path: Path, again: bool) -> None:
    hook = f"engine:add_flow_counter(flow:id(), '{GROUP}', 'late', 0, 0)"
    script = plugin(f"reassembly_handler = {{ onterminateflow = function(engine, time, flow) {hook} end }}")
    records: list[Record] = [
        *handshake(1, 2),
        (0.0, tcp(CLIENT, SERVER, 2, b"x" * 100, ack=3)),
        *[(700.0, tcp(CLIENT, SERVER, 2, ack=3)) for _ in range(again)],
        (900.0, udp(CLIENT, SERVER)),
    ]
    _, collector = await run(tmp_path, records, script)
    assert [each for each in collector.of("counter") if each.group == GROUP] == []


async def test_out_is_still_known_when_a_flow_is_over(tmp_path: Path) -> None:
    client, server = ("10.0.0.1", 22), ("10.0.0.2", 50_000)
    calls = "".join(f"engine:add_flow_counter(layer:flowkey(), '{GROUP}', {d}, 0, {d}) " for d in (1, 2))
    hook = f"onpacket = function(engine, layer) if not asked then asked = true {calls} end end"
    script = plugin(f'simplecounter = {{ protocol_guid = "{GUIDS["TCP"]}", {hook} }}')
    reader = plugin("reassembly_handler = { onpayload = function() end }")
    opening = [
        (0.0, tcp(client, server, 1, flags=SYN)),
        (0.1, tcp(server, client, 1, flags=SYN | ACK, ack=2)),
    ]
    talk = [
        (0.2, tcp(client, server, 2, b"a" * 100, ack=2)),
        (0.3, tcp(server, client, 2, b"b" * 1000, ack=102)),
        (0.4, tcp(client, server, 102, flags=FIN | ACK, ack=1002)),
        (0.5, tcp(server, client, 1002, flags=FIN | ACK, ack=103)),
    ]
    _, collector = await run(tmp_path, [*opening, *talk, (900.0, udp(CLIENT, SERVER))], script, reader)
    counters = {each.key: each.value for each in collector.of("counter") if each.group == GROUP}
    assert counters == {"1": 154 + 54, "2": 54 + 1054 + 54}


def test_a_key_is_written_as_the_decoder_writes_it() -> None:
    v4, v6 = b"06A:0A.00.00.01:p-9C40_0A.00.00.02:p-0050", b"11B:%b:p-0035_%b:p-0035" % (b"0" * 32, b"F" * 32)
    assert canonical(v4) == canonical(b"06a:0a.00.00.02:p-0050_0A.00.00.01:p-9c40") == v4
    assert canonical(v6) == canonical(b"11B:%b:p-0035_%b:p-0035" % (b"F" * 32, b"0" * 32)) == v6
    assert canonical(b"no key") == b"no key"
