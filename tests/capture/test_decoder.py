"""Packets to flows; broken input; and the shared captures against what others found in them."""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.capture.batches import EventKind
from engine.capture.decoder import Decoder
from engine.capture.source import open_capture
from engine.values.config import CaptureLimits
from tests.capture.packets import (
    ACK,
    CLIENT,
    FIN,
    SERVER,
    Decoded,
    Record,
    enhanced,
    ethernet,
    handshake,
    interface,
    ip,
    pcap,
    run,
    section,
    summed,
    tcp,
    udp,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

# Streams that differ, by client port, and why.
STREAMS = {
    ("trisul-16minutes", 1063): "silent for 900 seconds: past idle_seconds the rest is another stream",
}

PORTS = struct.pack(">HHHH", 1000, 53, 8, 0)


def flow_of(packet: bytes) -> tuple[str, str]:
    got = run(pcap([(0, ethernet(packet))]))
    assert got.stats.malformed == 0
    [flow] = got.flows
    return flow.id, flow.proto


def test_flow_rows_are_oriented_as_their_keys() -> None:
    frames: list[Record] = [
        (2.0, udp(("10.0.0.1", 53), ("10.0.0.9", 4000), b"abc")),
        (1.0, udp(("10.0.0.9", 4000), ("10.0.0.1", 53))),
    ]
    [flow] = run(pcap(frames)).flows
    assert flow.id == "11A:0A.00.00.09:p-0FA0_0A.00.00.01:p-0035"
    assert (flow.a_ip, flow.a_port, flow.z_ip, flow.z_port) == ("10.0.0.9", 4000, "10.0.0.1", 53)
    assert (flow.a_packets, flow.z_packets, flow.a_bytes, flow.z_bytes) == (1, 1, 42, 45)
    assert (flow.start, flow.end) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("one", "two"), [("10.0.0.9", "9.255.0.1"), ("fe80::2", "fe80::1"), ("200.0.0.1", "100.0.0.1")]
)
def test_equal_ports_put_the_lower_address_first(one: str, two: str) -> None:
    frames: list[Record] = [(0, udp((one, 5353), (two, 5353))), (0, udp((two, 5353), (one, 5353)))]
    [flow] = run(pcap(frames)).flows
    assert (flow.a_ip, flow.z_ip) == (two, one)


def test_ipv6_key() -> None:
    key, proto = flow_of(ip("fe80::1", "ff02::fb", 132, struct.pack(">HHII", 5000, 80, 0, 0)))
    assert key == f"84B:FE80{1:028X}:p-1388_FF02{0xFB:028X}:p-0050"
    assert proto == "sctp"


def test_ipv4_options_padding_and_missing_total_length() -> None:
    head = bytearray(ip("1.1.1.1", "2.2.2.2", 17, b"")[:20])
    head[0], head[3] = 0x46, 24 + 8
    assert flow_of(bytes(head) + b"\1\1\1\1" + PORTS)[1] == "udp"
    data = struct.pack(">HHIIBBHHH", 1000, 80, 1, 1, 0x50, ACK, 0, 0, 0) + b"data"
    padded = ethernet(ip("1.1.1.1", "2.2.2.2", 6, data)) + b"\0" * 9
    offloaded = ethernet(ip("1.1.1.1", "2.2.2.2", 6, data, total=0))
    assert run(pcap([(0, padded)])).data() == run(pcap([(0, offloaded)])).data() == b"data"


def test_ipv6_extension_headers() -> None:
    atomic = struct.pack(">BBHI", 51, 0, 0, 7)
    ah = struct.pack(">BBHII", 17, 2, 0, 1, 1) + bytes(4)
    chain = struct.pack(">BB6x", 60, 0) + struct.pack(">BB14x", 43, 1) + struct.pack(">BB6x", 44, 0) + atomic + ah
    assert flow_of(ip("::1", "::2", 0, chain + PORTS))[1] == "udp"
    assert flow_of(ip("1.1.1.1", "2.2.2.2", 51, ah + PORTS))[1] == "udp"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_fragment_that_completes_a_datagram_counts(order: tuple[int, ...]) -> None:
    parts = [
        ip("1.1.1.1", "2.2.2.2", 17, PORTS + bytes(16), fragment=0x2000, ident=9),
        ip("1.1.1.1", "2.2.2.2", 17, bytes(16), fragment=0x2003, ident=9),
        ip("1.1.1.1", "2.2.2.2", 17, bytes(5), fragment=5, ident=9),
    ]
    frames = [ethernet(parts[i]) for i in order]
    got = run(pcap([(0, frame) for frame in frames]))
    [flow] = got.flows
    assert (got.stats.fragments, flow.a_packets, flow.a_bytes) == (3, 1, len(frames[-1]))


def test_what_is_not_decoded_is_counted() -> None:
    lldp, gre = ethernet(bytes(28), 0x88CC), ethernet(ip("1.1.1.1", "2.2.2.2", 47, bytes(8)))
    icmp = ethernet(ip("1.1.1.1", "2.2.2.2", 1, bytes(8)))
    stats = run(pcap([(0, lldp), (0, gre), (0, icmp), (0, ethernet(b"", 0x0800))])).stats
    assert (stats.undecoded, stats.decoded, stats.malformed, stats.flows) == (1, 2, 1, 0)
    assert run(pcap([(0, icmp)], link=147)).stats.undecoded == 1


def lies() -> Iterable[bytes]:
    yield ip("1.1.1.1", "2.2.2.2", 17, PORTS, total=29)
    yield ip("1.1.1.1", "2.2.2.2", 17, PORTS, total=19)
    yield ip("1.1.1.1", "2.2.2.2", 17, PORTS, total=27)
    yield b"\x44" + ip("1.1.1.1", "2.2.2.2", 17, PORTS)[1:]
    yield ip("1.1.1.1", "2.2.2.2", 6, struct.pack(">HHIIBBHHH", 1, 2, 0, 0, 0x40, 0, 0, 0, 0))
    yield ip("1.1.1.1", "2.2.2.2", 6, struct.pack(">HHIIBBHHH", 1, 2, 0, 0, 0x60, 0, 0, 0, 0))
    yield ip("::1", "::2", 17, PORTS, total=9)
    yield ip("::1", "::2", 0, struct.pack(">BB6x", 17, 1))
    yield ip("::1", "::2", 0, b"\x11")


@pytest.mark.parametrize("packet", list(lies()))
def test_packets_whose_lengths_lie_are_malformed(packet: bytes) -> None:
    ethertype = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    stats = run(pcap([(0, ethernet(packet, ethertype))])).stats
    assert (stats.malformed, stats.flows) == (1, 0)


def test_many_flows_keep_their_counts() -> None:
    number, frames = 30_000, []
    for i in range(number):
        frames.append((0, udp((f"10.{i >> 14}.0.1", 1024 + i % 16384), ("10.0.0.2", 53))))
    got = run(pcap(frames + frames[::-1]))
    assert got.stats.flows == len({flow.id for flow in got.flows}) == number
    assert {flow.a_packets for flow in got.flows} == {2}
    full = run(pcap(frames), CaptureLimits(flows=1000)).stats
    assert (full.flows, full.flows_rejected) == (1000, number - 1000)


def test_flows_without_streams() -> None:
    got = run(pcap([*handshake(1, 2), (0, tcp(CLIENT, SERVER, 2, b"x"))]), streams=False)
    assert (got.events, len(got.flows)) == ([], 1)


def test_one_decoder_takes_one_capture_after_another(tmp_path: Path) -> None:
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap([(0, tcp(CLIENT, SERVER, 2, b"x", ack=1))]))
    decoder = Decoder(CaptureLimits())
    for turn in (1, 2):
        with open_capture(path) as capture:
            decoder.begin(capture)
            with pytest.raises(RuntimeError, match="not finished"):
                decoder.begin(capture)
            assert decoder.step(10).done
            events = decoder.finish().events
            assert [(event.kind, event.stream) for event in events] == [(0, turn), (1, turn), (3, turn)]
            assert decoder.flow_key(turn).startswith(b"06A:")
    assert [flow.a_packets for part in decoder.flow_records() for flow in part] == [2]
    decoder.close()
    decoder.close()
    assert decoder.stats().packets == 2


def test_a_capture_closed_too_early_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap([(0, tcp(CLIENT, SERVER, 2, b"x", ack=1))]))
    decoder = Decoder(CaptureLimits())
    with open_capture(path) as capture:
        decoder.begin(capture)
    with pytest.raises(RuntimeError, match="was closed before"):
        decoder.step(1)
    decoder.close()


def test_an_ignored_stream_is_silent_until_a_new_syn(tmp_path: Path) -> None:
    path = tmp_path / "some.pcap"
    data = [(0.0, tcp(CLIENT, SERVER, 2 + i, b"x", ack=3)) for i in range(5)]
    end = (0.0, tcp(CLIENT, SERVER, 7, flags=FIN | ACK))
    path.write_bytes(pcap([*handshake(1, 2), *data, end, *handshake(99, 98), (0.0, tcp(CLIENT, SERVER, 100, b"y"))]))
    decoder = Decoder(CaptureLimits())
    with open_capture(path) as capture:
        decoder.begin(capture)
        first = decoder.step(5).events
        decoder.ignore(1)
        assert decoder.flow_key(1)
        rest = decoder.step(100).events + decoder.finish().events
    assert [event.kind for event in first] == [EventKind.OPEN, EventKind.DATA]
    assert [(event.kind, event.stream) for event in rest] == [(0, 2), (1, 2), (3, 2)]
    decoder.close()


def test_what_is_ignored_has_no_more_events_in_its_batch(tmp_path: Path) -> None:
    path = tmp_path / "some.pcap"
    data = [(0.0, tcp(CLIENT, SERVER, 2, b"x", ack=3)), (0.0, tcp(SERVER, CLIENT, 3, b"y", ack=3))]
    other = [(0.0, tcp(SERVER, ("10.0.0.3", 9), 2, b"z", ack=3)), (0.0, tcp(SERVER, CLIENT, 4, b"y", ack=3))]
    path.write_bytes(pcap([*handshake(1, 2), *data, *other]))
    decoder = Decoder(CaptureLimits())
    told = []
    with open_capture(path) as capture:
        decoder.begin(capture)
        for event in decoder.step(100).each_event():
            told.append((event.kind, event.stream, event.data))
            if event.data == b"x":
                decoder.ignore(event.stream)
        told += [(event.kind, event.stream, event.data) for event in decoder.finish().each_event()]
    assert [each for each in told if each[0] == EventKind.DATA] == [(1, 1, b"x"), (1, 2, b"z")]
    assert [each[:2] for each in told if each[0] == EventKind.CLOSE] == [(3, 2)]
    decoder.close()


def test_of_a_muted_stream_only_the_end_is_told(tmp_path: Path) -> None:
    path = tmp_path / "some.pcap"
    data = [(0.0, tcp(CLIENT, SERVER, 2 + i, b"x", ack=3)) for i in range(5)]
    gap = (0.0, tcp(CLIENT, SERVER, 17, b"behind a hole", ack=3))
    ends = [(4.0, tcp(CLIENT, SERVER, 30, flags=FIN | ACK)), (4.0, tcp(SERVER, CLIENT, 3, flags=FIN | ACK))]
    path.write_bytes(pcap([*handshake(1, 2), *data, gap, *ends, (9.0, tcp(CLIENT, SERVER, 31, ack=4))]))
    decoder = Decoder(CaptureLimits())
    with open_capture(path) as capture:
        decoder.begin(capture)
        assert decoder.step(5).events
        decoder.mute(1)
        rest, done = [], False
        while not done:
            batch = decoder.step(100)
            rest, done = rest + batch.events, batch.done
        assert [(event.kind, event.position) for event in rest] == [(EventKind.CLOSE, 3)]
        assert decoder.finish().events == []
    assert decoder.stats().gap_bytes == 10
    decoder.close()


def sample() -> bytes:
    frames = [*handshake(1, 2), (0.1, tcp(CLIENT, SERVER, 2, b"request", ack=3)), (0.2, udp(CLIENT, SERVER, b"x"))]
    frames += [(0.3, tcp(SERVER, CLIENT, 9, b"hole", FIN | ACK))]
    return pcap([*frames, (1.0, ethernet(ip("::1", "::2", 0, bytes(8) + PORTS)))])


def test_a_capture_cut_anywhere() -> None:
    data = sample()
    whole = run(data)
    for end in range(24, len(data)):
        got = run(data[:end])
        assert got.stats.malformed <= 1
        assert got.packets <= whole.packets


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1000), st.binary(min_size=1, max_size=4)), max_size=8), st.booleans())
def test_mutated_captures_never_harm(changes: list[tuple[int, bytes]], pcapng: bool) -> None:
    data = bytearray(sample())
    if pcapng:
        frames = [enhanced(frame, i) for i, (_, frame, *_) in enumerate(handshake(1, 2))]
        data = bytearray(section() + interface() + b"".join(frames))
    for place, patch in changes:
        start = 24 + place % (len(data) - 24)
        data[start : start + len(patch)] = patch
    run(bytes(data))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=120), max_size=20), st.sampled_from([0, 1, 12, 101, 108, 113, 276, 9999]))
def test_random_packets_never_harm(packets: list[bytes], link: int) -> None:
    assert run(pcap([(0, packet) for packet in packets], link=link)).packets == len(packets)


def captures() -> list[Any]:
    found = sorted((SHARED / "expected").glob("*.json"))
    if not found:
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no captures in {SHARED}"))]
    return [pytest.param(path, id=path.stem) for path in found]


def either_way(proto: str, one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    return (proto, *sorted((one, other)))


@pytest.mark.parametrize("path", captures())
def test_shared_captures(path: Path) -> None:
    expected = json.loads(path.read_text())
    got = run(SHARED / "pcap" / expected["capture"])
    stats = got.stats
    assert (stats.packets, stats.malformed) == (expected["packets"], 0)
    assert (stats.wire_bytes, stats.captured_bytes) == (expected["wire_bytes"], expected["captured_bytes"])
    assert stats.cut == expected.get("cut_packets", 0)
    assert Counter(
        either_way(f.proto, (f.a_ip, f.a_port, f.a_packets, f.a_bytes), (f.z_ip, f.z_port, f.z_packets, f.z_bytes))
        for f in summed(got.flows)
    ) == Counter(
        either_way(
            f["proto"], *(tuple(f[f"{end}_{name}"] for name in ("ip", "port", "packets", "bytes")) for end in "az")
        )
        for f in expected["flows"]
    )
    compare_streams(path.stem, got, expected.get("tcp_streams", []))


def compare_streams(name: str, got: Decoded, expected: list[dict[str, Any]]) -> None:
    """Every expected stream came, with the same payload and the same missing bytes each way."""
    sides = {
        stream: [
            (len(got.data(stream, d)), sum(n for _, n in got.gaps(stream, d)), got.data(stream, d)) for d in (0, 1)
        ]
        for stream in got.keys
    }
    found = Counter(
        tuple(sorted((size, missing, hashlib.sha256(data).hexdigest()) for size, missing, data in both))
        for both in sides.values()
    )
    sizes = Counter(tuple(sorted(each[:2] for each in both)) for both in found.elements())
    for row in expected:
        if (name, row["a_port"]) in STREAMS:
            continue
        ends = [(row[f"{e}_payload"], row.get(f"{e}_missing", 0), row.get(f"{e}_sha256")) for e in "az"]
        assert sizes[tuple(sorted(end[:2] for end in ends))], row
        for size, missing, digest in ends:
            if digest and size:
                assert any((size, missing, digest) in both for both in found), row
