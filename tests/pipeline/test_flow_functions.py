"""What scripts say of flows: in the flow's record, in counters, and to messagemonitors."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from engine import Capture, Engine
from engine.capture.decoder import Decoder
from engine.capture.source import open_capture
from engine.values.config import CaptureLimits, Config
from tests.capture.packets import ACK, CLIENT, SERVER, SYN, Record, handshake, pcap, tcp, udp
from tests.lua_api.packet_rig import GUIDS
from tests.scripts import Collector, on_event, plugin, run_capture, write

GROUP = "{AAAAAAAA-0000-4000-8000-000000000001}"
FLOW = "06A:0A.00.00.01:p-9C40_0A.00.00.02:p-0050"
OTHER = "06A:0A.00.00.07:p-0400_0A.00.00.08:p-0050"


def on_packet(body: str) -> str:
    """A simplecounter on TCP; `n` counts its packets from 1."""
    hook = f"onpacket = function(engine, layer) n = (n or 0) + 1 {body} end"
    return plugin(f'simplecounter = {{ protocol_guid = "{GUIDS["TCP"]}", {hook} }}')


def talk(length: int = 1000) -> list[Record]:
    """A handshake of three packets, then turns: packets of 54 + 10, 20, 30... bytes, the client first."""
    sent: list[Record] = list(handshake(100, 200))
    seqs = [101, 201]
    for n in range(length):
        side, data = n % 2, b"x" * (10 + n % 50)
        ends = (SERVER, CLIENT) if side else (CLIENT, SERVER)
        sent.append((1.0 + n / 1000, tcp(*ends, seqs[side], data, ack=seqs[1 - side])))
        seqs[side] += len(data)
    return sent


async def counted(tmp_path: Path, packets: list[Record], *scripts: str) -> tuple[dict[str, float], Collector]:
    """The counters of GROUP by key after a run."""
    (tmp_path / "in.pcap").write_bytes(pcap(packets))
    paths = [write(tmp_path, body, f"s{number}.lua") for number, body in enumerate(scripts)]
    collector, _ = await run_capture(tmp_path / "in.pcap", paths)
    assert collector.logged("ERROR") == []
    return {each.key: each.value for each in collector.of("counter") if each.group == GROUP}, collector


def sizes(packets: list[Record], side: int | None = None) -> list[int]:
    """Bytes of packets; of a side only those that it sent, others count 0."""
    source = None if side is None else struct.pack(">H", (CLIENT, SERVER)[side][1])
    return [len(each[1]) if source in (None, each[1][34:36]) else 0 for each in packets]


@pytest.mark.parametrize("at", [1, 2, 3, 17, 500, 1003])
async def test_a_flow_counter_counts_every_packet_after_the_one_of_the_call(tmp_path: Path, at: int) -> None:
    packets = talk()
    calls = "".join(
        f"engine:add_flow_counter(layer:flowkey(), '{GROUP}', 'd{direction}', 0, {direction}) "
        for direction in range(3)
    )
    found, _ = await counted(tmp_path, packets, on_packet(f"if n == {at} then {calls} end"))
    expected = {f"d{d}": sum(sizes(packets, side)[at:]) for d, side in ((0, None), (1, 0), (2, 1))}
    assert found == {key: value for key, value in expected.items() if value}


async def test_out_is_the_direction_of_the_syn(tmp_path: Path) -> None:
    """The client has the lower port: it is Z of the flow key, and still what it sends is OUT."""
    client, server = ("10.0.0.1", 22), ("10.0.0.2", 50000)
    packets: list[Record] = [
        (0.0, tcp(client, server, 1, flags=SYN)),
        (0.1, tcp(server, client, 1, flags=SYN | ACK, ack=2)),
        (0.2, tcp(client, server, 2, b"a" * 100, ack=2)),
        (0.3, tcp(server, client, 2, b"b" * 1000, ack=102)),
    ]
    calls = "".join(f"engine:add_flow_counter(layer:flowkey(), '{GROUP}', {d}, 0, {d}) " for d in (1, 2))
    found, _ = await counted(tmp_path, packets, on_packet(f"if n == 1 then {calls} end"))
    assert found == {"1": 154, "2": 54 + 1054}


async def test_the_same_counter_counts_once_and_a_reset_ends_it(tmp_path: Path) -> None:
    packets = talk(100)
    add = f"engine:add_flow_counter(layer:flowkey(), '{GROUP}', 'k', 0, 0)"
    reset = f"engine:reset_flow_counter(layer:flowkey(), '{GROUP}')"
    replace = f"engine:reset_flow_counter(layer:flowkey(), '{GROUP}', 'other', 1)"
    bytes_of = sizes(packets)
    assert (await counted(tmp_path, packets, on_packet(add)))[0] == {"k": sum(bytes_of[1:])}
    found, _ = await counted(tmp_path, packets, on_packet(f"if n == 5 then {add} elseif n == 50 then {reset} end"))
    assert found == {"k": sum(bytes_of[5:50])}
    found, _ = await counted(tmp_path, packets, on_packet(f"if n == 5 then {add} elseif n == 50 then {replace} end"))
    assert found == {"k": sum(bytes_of[5:50]), "other": sum(bytes_of[50:])}


async def test_a_counter_from_a_hook_of_streams_begins_at_its_time(tmp_path: Path) -> None:
    request, answer = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"
    packets: list[Record] = [*handshake(100, 200), (1.0, tcp(CLIENT, SERVER, 101, request, ack=201))]
    for n in range(9):
        packets.append((2.0 + n, tcp(SERVER, CLIENT, 201 + 1000 * n, answer.ljust(1000), ack=101 + len(request))))
    body = (
        "filex_monitor = { filter_flow = function(engine, ts, flow) "
        f"engine:add_flow_counter(flow:id(), '{GROUP}', 'k', 0, 0) return true end }}"
    )
    found, _ = await counted(tmp_path, packets, plugin(body))
    assert found == {"k": sum(sizes(packets)[4:])}


async def test_a_counter_on_a_flow_that_comes_later_and_one_that_never_does(tmp_path: Path) -> None:
    packets = [*talk(10), *[(5.0 + n, tcp(("10.0.0.7", 1024), ("10.0.0.8", 80), n, b"y")) for n in range(5)]]
    calls = "".join(
        f"engine:add_flow_counter('{key}', '{GROUP}', '{name}', 0, 0) "
        for key, name in ((OTHER, "later"), (OTHER.replace("0400", "0401"), "never"), ("no key", "broken"))
    )
    found, _ = await counted(tmp_path, packets, on_packet(f"if n == 1 then {calls} end"))
    assert found == {"later": 55 * 5}


async def test_counters_do_not_reach_into_the_next_source(tmp_path: Path) -> None:
    (tmp_path / "in.pcap").write_bytes(pcap(talk(20)))
    add = f"if n == 20 then engine:add_flow_counter(layer:flowkey(), '{GROUP}', 'k', 0, 0) end"
    collector = Collector()
    async with Engine([write(tmp_path, on_packet(add))], sinks=[collector]) as engine:
        await engine.run(Capture(tmp_path / "in.pcap"))
        await engine.run(Capture(tmp_path / "in.pcap"))
    assert [each.value for each in collector.of("counter")] == [sum(sizes(talk(20))[20:])]


async def test_flow_keys_are_those_of_the_source_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(pcap(handshake(1, 2)))
    (tmp_path / "two").write_bytes(pcap([(1.0, tcp(("10.0.0.7", 1024), ("10.0.0.8", 80), 1))]))
    collector = Collector()
    async with Engine([write(tmp_path, on_packet("T.loginfo(layer:flowkey())"))], sinks=[collector]) as engine:
        await engine.run(Capture(tmp_path / "one"))
        await engine.run(Capture(tmp_path / "two"))
    assert collector.logged() == [FLOW] * 3 + [OTHER]


async def test_a_flow_is_found_by_its_key(tmp_path: Path) -> None:
    v6 = ("fd00::1", 50000), ("fd00::2", 443)
    frames = [
        tcp(*v6, 1, b"abc"),
        udp(("10.0.0.1", 5353), ("10.0.0.2", 5353), b"q"),
        udp(("10.0.0.2", 5353), ("10.0.0.1", 5353)),
    ]
    (tmp_path / "in.pcap").write_bytes(pcap([(1.0, frame) for frame in frames]))
    decoder = Decoder(CaptureLimits(), frames=True)
    with open_capture(tmp_path / "in.pcap") as capture:
        decoder.begin(capture)
        while not decoder.step(10).done:
            pass
        flows = [flow for each in decoder.flow_records() for flow in each]
        for number, flow in enumerate(flows, 1):
            assert decoder.flow_row(flow.id.encode()) == number
            found = decoder.flow_bytes(flow.id.encode())
            assert found is not None
            assert (found.a_bytes, found.z_bytes) == (flow.a_bytes, flow.z_bytes)
        head, a, z = flows[1].id[:4], flows[1].id[4:22], flows[1].id[23:]
        swapped = decoder.flow_bytes(f"{head}{z}_{a}".encode())
        assert swapped is not None
        assert (swapped.a_bytes, swapped.z_bytes) == (flows[1].z_bytes, flows[1].a_bytes)
        for key in (b"", b"x", OTHER.encode(), FLOW.encode() + b"_0A.00.00.01_00000001_00000002", FLOW[:20].encode()):
            assert decoder.flow_bytes(key) is None
            assert decoder.flow_row(key) == 0
        while not decoder.finish().done:
            pass
    decoder.close()


# ---- records and monitors


async def said(tmp_path: Path, calls: str, *others: str) -> Collector:
    """Records after calls at the first packet of FLOW."""
    return (await counted(tmp_path, talk(4), on_packet(f"if n == 1 then {calls} end"), *others))[1]


async def test_what_scripts_say_of_a_flow_is_in_its_record(tmp_path: Path) -> None:
    collector = await said(
        tmp_path,
        f"engine:tag_flow('{FLOW}', 'one') engine:tag_flow('{FLOW}', 'two') engine:tag_flow('{FLOW}', 'one') "
        f"engine:add_flow_attribute('{FLOW}', 'user', 'x') engine:add_flow_attribute('{FLOW}', 'user', 'y') "
        f"engine:add_flow_attribute('{FLOW}', 'a:b', 7) engine:set_flow_duration('{FLOW}', '2.5') "
        f"engine:update_flow('{FLOW}', 4, 10) engine:update_flow_raw('{FLOW}', 4, 5) "
        f"engine:update_flow('{FLOW}', 6, 300) engine:update_flow('{FLOW}', 6, 200) "
        f"engine:update_flow('{FLOW}', 0, 1000) "
        f"engine:update_flow('{FLOW}', 3, 2) engine:terminate_flow('{FLOW}')",
    )
    plain = (await said(tmp_path, "")).of("flow")[0]
    (flow,) = collector.of("flow")
    assert (flow.tags, flow.attributes, flow.duration) == ("one|two", {"user": "y", "a:b": "7"}, 2.5)
    assert (flow.meters, flow.terminated) == ({"4": 15.0, "6": 200.0}, True)
    assert (flow.a_bytes, flow.z_bytes) == (plain.a_bytes + 1000, plain.z_bytes)
    assert (flow.a_packets, flow.z_packets) == (plain.a_packets, plain.z_packets + 2)
    assert (plain.tags, plain.attributes, plain.meters, plain.duration, plain.terminated) == ("", {}, {}, None, False)


async def test_meters_make_a_flow_that_no_packet_made_and_nothing_else_does(tmp_path: Path) -> None:
    v6 = "11B:" + "FD00" + "0" * 27 + "1:p-0800_" + "FD00" + "0" * 27 + "2:p-0035"
    collector = await said(
        tmp_path,
        f"engine:update_flow_raw('{OTHER}', 0, 500) engine:update_flow_raw('{OTHER}', 2, 3) "
        f"engine:update_flow_raw('{v6}', 1, 7) engine:update_flow_raw('no key', 1, 8) "
        f"engine:tag_flow('{OTHER[:-1]}1', 'x') engine:terminate_flow('{OTHER[:-1]}2')",
    )
    _, first, second, third = collector.of("flow")
    assert (first.id, first.proto, first.a_ip, first.a_port, first.z_ip, first.z_port) == (
        OTHER,
        "tcp",
        "10.0.0.7",
        1024,
        "10.0.0.8",
        80,
    )
    assert (first.a_bytes, first.z_bytes, first.a_packets, first.z_packets) == (500, 0, 3, 0)
    assert (second.proto, second.a_ip, second.z_bytes) == ("udp", "fd00::1", 7)
    assert (third.id, third.proto, third.a_ip, third.z_bytes) == ("no key", "", "", 8)


MONITOR = plugin("""messagemonitor = {
  onnewflowrecord = function(engine, flow, az, za, paz, pza)
    T.loginfo(table.concat({ flow:id(), az, za, paz, pza }, " "))
  end,
  onflowmetric = function(engine, flow, meter, value)
    T.logwarning(flow:ipa_readable() .. " " .. meter .. " " .. value)
  end }""")


async def test_message_monitors_hear_of_records_and_metrics(tmp_path: Path) -> None:
    calls = (
        f"engine:new_flow_record('{OTHER}', 1, '2', 3, 4) engine:update_flow('{FLOW}', 7, 2) "
        f"engine:update_flow_raw('{OTHER}', 6, 1500)"
    )
    collector = await said(tmp_path, calls, MONITOR)
    flow, made = collector.of("flow")
    assert collector.logged() == [
        f"{OTHER} 1 2 3 4",
        f"{FLOW} {flow.a_bytes} {flow.z_bytes} {flow.a_packets} {flow.z_packets}",
        f"{OTHER} 0 0 0 0",
    ]
    assert made.id == OTHER
    assert [line for line in collector.logged("WARN") if "held the loop" not in line] == [
        "10.0.0.1 7 2",
        "10.0.0.7 6 1500",
    ]


async def test_monitors_get_all_records_however_many(tmp_path: Path) -> None:
    frames = [udp(("10.0.0.1", 1024 + n), ("10.0.0.2", 53), b"q") for n in range(5_000)]
    (tmp_path / "in.pcap").write_bytes(pcap([(1.0, frame) for frame in frames]))
    hook = f"onnewflowrecord = function(engine, flow, az) engine:update_counter('{GROUP}', az, 0, 1) end"
    counts = plugin(f"messagemonitor = {{ {hook} }}")
    scripts = [write(tmp_path, counts, f"{name}.lua") for name in "abc"]
    collector, stats = await run_capture(tmp_path / "in.pcap", scripts, Config(message_limit=600))
    assert stats.messages.dropped == 0
    assert [(each.key, each.value) for each in collector.of("counter")] == [("43", 15_000)]


async def test_without_a_source_they_reach_records_and_monitors_too(tmp_path: Path) -> None:
    calls = f"engine:new_flow_record('{FLOW}', 5, 6, 7, 8) engine:update_flow('{FLOW}', 9, 1)"
    event = on_event(f"{calls} engine:tag_flow('{FLOW}', 't')")
    collector = Collector()
    async with Engine([write(tmp_path, event), write(tmp_path, MONITOR, "m.lua")], sinks=[collector]) as engine:
        await engine.emit("t", "go")
    assert collector.logged() == [f"{FLOW} 5 6 7 8"]
    assert [each.name for each in collector.of("flow_update")] == ["record", "tag"]


async def test_what_is_past_the_limits_is_counted(tmp_path: Path) -> None:
    body = (
        f"for i = 1, 70 do engine:add_flow_attribute('{FLOW}', i, i) end "
        f"for i = 1, 20 do engine:update_flow('made ' .. i, 1, 1) end engine:update_flow('{FLOW}', 4, 1 / 0)"
    )
    (tmp_path / "in.pcap").write_bytes(pcap(talk(4)))
    config = Config(limits=CaptureLimits(flows=10))
    collector, stats = await run_capture(
        tmp_path / "in.pcap", [write(tmp_path, on_packet(f"if n == 1 then {body} end"))], config
    )
    assert len(collector.of("flow")[0].attributes) == 64
    assert len(collector.of("flow")) == 10
    assert stats.flow_updates_dropped == 6 + 11 + 1
