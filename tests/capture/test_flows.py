"""When flows are over: how long they may be silent, what goes with them, and that batches have no part in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.capture.decoder import Decoder
from engine.capture.source import open_capture
from engine.values.config import CaptureLimits
from engine.values.records import Flow
from tests.capture.packets import (
    ACK,
    CLIENT,
    FIN,
    RST,
    SERVER,
    SYN,
    Decoded,
    Record,
    ethernet,
    handshake,
    ip,
    pcap,
    run,
    tcp,
    udp,
)

LIMITS = CaptureLimits()
OTHER = ("10.0.0.99", 999)


def later(time: float) -> Record:
    """A packet of another flow, for time to go on."""
    return time, udp(OTHER, SERVER)


def spans(got: Decoded) -> list[tuple[float, float]]:
    """Start and end of each flow but those of `later`."""
    return sorted((flow.start, flow.end) for flow in got.flows if OTHER[0] not in (flow.a_ip, flow.z_ip))


def closing(time: float) -> list[Record]:
    """FINs both ways, after `handshake(1, 2)`."""
    return [
        (time, tcp(CLIENT, SERVER, 2, flags=FIN | ACK, ack=3)),
        (time, tcp(SERVER, CLIENT, 3, flags=FIN | ACK, ack=3)),
    ]


def silence(limit: float, first: list[Record], again: bytes) -> None:
    """A packet in the second before the limit goes on with the flow; one in the second after is of another."""
    start = first[-1][0]
    assert len(spans(run(pcap([*first, (start + limit - 0.5, again)])))) == 1
    assert len(spans(run(pcap([*first, later(start + limit - 0.5), (start + limit - 0.5, again)])))) == 1
    two = spans(run(pcap([*first, (start + limit + 1, again)])))
    assert two == [(first[0][0], start), (start + limit + 1, start + limit + 1)]


DATA = tcp(CLIENT, SERVER, 2, b"x", ack=3)


def test_udp_flows_are_over_after_their_time() -> None:
    silence(LIMITS.datagram_seconds, [(0.0, udp(CLIENT, SERVER))], udp(SERVER, CLIENT))


def test_established_connections_are_over_after_theirs() -> None:
    silence(LIMITS.idle_seconds, handshake(1, 2), DATA)


def test_sctp_associations_likewise() -> None:
    packet = ethernet(ip(CLIENT[0], SERVER[0], 132, bytes([0x13, 0x88, 0, 80]) + bytes(8)))
    silence(LIMITS.idle_seconds, [(0.0, packet)], packet)


@pytest.mark.parametrize("answered", [False, True])
def test_connections_that_never_came_about_are_over_sooner(answered: bool) -> None:
    syn = tcp(CLIENT, SERVER, 1, flags=SYN)
    silence(LIMITS.attempt_seconds, handshake(1, 2)[: 1 + answered], syn)


def test_closed_connections_leave_soon() -> None:
    silence(LIMITS.closed_seconds, [*handshake(1, 2), *closing(0.0)], DATA)


def test_reset_connections_leave_soon() -> None:
    silence(LIMITS.closed_seconds, [*handshake(1, 2), (0.0, tcp(SERVER, CLIENT, 3, flags=RST))], DATA)


def test_refused_connections_leave_soon() -> None:
    refused = [(0.0, tcp(CLIENT, SERVER, 1, flags=SYN)), (0.0, tcp(SERVER, CLIENT, 0, flags=RST | ACK, ack=2))]
    silence(LIMITS.closed_seconds, refused, tcp(CLIENT, SERVER, 1, flags=SYN))


def test_half_closed_connections_stay() -> None:
    silence(LIMITS.idle_seconds, [*handshake(1, 2), *closing(0.0)[:1]], DATA)


def test_a_forged_reset_closes_nothing() -> None:
    forged = (0.0, tcp(SERVER, CLIENT, 2**29, flags=RST))
    silence(LIMITS.idle_seconds, [*handshake(1, 2), forged], DATA)


def test_a_new_handshake_on_a_closed_connection_opens_the_flow_again() -> None:
    again = [(each[0], each[1]) for each in handshake(70_000, 90_000, 1.0)]
    silence(LIMITS.idle_seconds, [*handshake(1, 2), *closing(0.0), *again], tcp(CLIENT, SERVER, 70_001, b"x", ack=3))


def test_the_times_are_settings() -> None:
    frames = [(0.0, udp(CLIENT, SERVER)), (3.0, udp(CLIENT, SERVER))]
    assert len(run(pcap(frames)).flows) == 1
    assert len(run(pcap(frames), CaptureLimits(datagram_seconds=2)).flows) == 2


def test_counts_tell_why_flows_are_over() -> None:
    frames = [*handshake(1, 2), *closing(0.0), (0.0, udp(CLIENT, SERVER)), later(30.0), later(80.0), later(100.0)]
    stats = run(pcap(frames)).stats
    assert (stats.flows, stats.flows_live, stats.flows_closed, stats.flows_timed_out) == (3, 1, 1, 1)


def test_the_stream_of_a_flow_that_is_over_ends_with_it() -> None:
    hole = (0.0, tcp(CLIENT, SERVER, 7, b"behind a hole", ack=3))
    limits = CaptureLimits(gap_wait_seconds=1_000, idle_seconds=50)
    got = run(pcap([*handshake(1, 2), hole, later(50.5), later(51.5), (52.0, DATA)]), limits)
    assert got.told[1] == [("OPEN", 0, 0), ("GAP", 0, 5), ("DATA", 0, b"behind a hole"), ("CLOSE", 0, 0)]
    assert got.told[2] == [("OPEN", 0, 0), ("DATA", 0, b"x"), ("CLOSE", 0, 0)]
    assert len(spans(got)) == 2


def test_a_connection_past_the_stream_limit_has_another_chance_as_another_flow() -> None:
    first = (0.0, tcp(("10.0.0.7", 1), SERVER, 1, b"a", ack=1))
    frames = [first, (0.0, DATA), later(200.0), later(301.0), (302.0, DATA)]
    got = run(pcap(frames), CaptureLimits(streams=1))
    assert got.stats.streams_rejected == 1
    assert got.data(2) == b"x"


def test_flows_give_room_to_others_when_they_are_over() -> None:
    def sent(time: float, hosts: range) -> list[Record]:
        return [(time, udp((f"10.1.0.{host}", 5000), SERVER)) for host in hosts]

    frames = [*sent(0.0, range(1, 6)), *sent(61.0, range(11, 14))]
    stats = run(pcap(frames), CaptureLimits(flows=3)).stats
    assert (stats.flows, stats.flows_rejected, stats.flows_timed_out) == (6, 2, 3)


def test_more_flows_end_at_once_than_a_batch_leaves() -> None:
    number = 5_000
    frames: list[Record] = [(0.0, udp((f"10.{at >> 8}.{at & 255}.1", 5000), SERVER)) for at in range(number)]
    frames += [(100.0 + at, udp((f"10.{at >> 8}.{at & 255}.1", 5000), SERVER)) for at in range(2)]
    got = run(pcap(frames))
    assert Counter(flow.id for flow in got.flows).total() == number + 2
    assert got.stats.flows_timed_out == number


@pytest.mark.parametrize("last", [1e4, 2.0**32 - 1])
def test_time_may_jump(last: float) -> None:
    got = run(
        pcap([(0.0, udp(CLIENT, SERVER)), *handshake(1, 2), later(last), (last, udp(CLIENT, SERVER)), later(5.0)])
    )
    assert len(spans(got)) == 3


def test_flows_go_while_no_packets_come(tmp_path: Path) -> None:
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap([*handshake(1, 2), (0.0, udp(CLIENT, SERVER))]))
    decoder, flows = Decoder(LIMITS), []
    with open_capture(path) as capture:
        decoder.begin(capture)
        while not decoder.step(10).done:
            pass
    for time in (59.0, 60.0, 299.0, 300.0):
        batch = decoder.pass_time(time)
        assert batch.done
        flows.append([flow.proto for flow in decoder.flows_over(batch)])
    assert flows == [[], ["udp"], [], ["tcp"]]
    assert decoder.stats().flows_live == 0
    decoder.close()


@st.composite
def traffic(draw: st.DrawFn) -> list[Record]:
    """Packets of a few flows, with pauses around the times after which flows are over; some come late."""
    time, frames = 0.0, []
    for _ in range(draw(st.integers(1, 60))):
        time += draw(st.sampled_from([0.0, 0.0, 0.1, 0.3, 1.0, 4.5, 6.0, 59.5, 61.0, 299.0, 302.0, 9000.0]))
        client = f"10.0.0.{draw(st.integers(1, 4))}", 5000
        ends = draw(st.sampled_from([(client, SERVER), (SERVER, client)]))
        flags = draw(st.sampled_from([ACK, ACK, SYN, SYN | ACK, FIN | ACK, RST]))
        sequence = draw(st.integers(0, 40))
        packet = tcp(*ends, sequence, b"x" * draw(st.integers(0, 30)), flags, ack=draw(st.integers(0, 40)))
        frames.append(
            (max(0.0, time - draw(st.sampled_from([0, 0, 0, 2]))), draw(st.sampled_from([packet, udp(*ends)])))
        )
    return frames


def totals(flows: list[Flow]) -> tuple[int, int]:
    packets = sum(flow.a_packets + flow.z_packets for flow in flows)
    return packets, sum(flow.a_bytes + flow.z_bytes for flow in flows)


@settings(max_examples=80, deadline=None)
@given(traffic(), st.integers(1, 9))
def test_flows_add_up_and_batches_have_no_part_in_them(frames: list[Record], step: int) -> None:
    whole, cut = run(pcap(frames)), run(pcap(frames), step=step)
    assert totals(whole.flows) == (len(frames), sum(len(each[1]) for each in frames))
    assert cut.flows == whole.flows
    assert cut.stats == whole.stats
    assert {stream: told[0] for stream, told in cut.told.items()} == {s: told[0] for s, told in whole.told.items()}
    for stream in whole.told:
        for direction in (0, 1):
            assert cut.data(stream, direction) == whole.data(stream, direction)
            assert sum(n for _, n in cut.gaps(stream, direction)) == sum(n for _, n in whole.gaps(stream, direction))
    stats = whole.stats
    assert stats.flows == len(whole.flows) == stats.flows_live + stats.flows_closed + stats.flows_timed_out


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9_000), st.integers(0, 3)), min_size=1, max_size=40), st.integers(1, 300))
def test_the_index_finds_each_flow_while_others_come_and_go(rounds: list[tuple[int, int]], many: int) -> None:
    """Against a dictionary: flows of 1-second life, thousands of keys, so that the index grows and shrinks."""
    frames: list[Record] = []
    for time, (first, pause) in enumerate(rounds):
        for at in range(first, first + many):
            frames.append((float(time * 2 + pause // 2), udp((f"10.2.{at >> 8}.{at & 255}", 5000), SERVER)))
    got = run(pcap(frames), CaptureLimits(datagram_seconds=1))
    expected, seen, now = Counter[str](), dict[str, float](), 0.0
    for time, frame, *_ in frames:
        now = max(now, time)
        key = frame[26:30].hex(".").upper()
        # Over in the first whole second in which it was silent for one.
        if key in seen and now >= seen[key] + 1:
            expected[key] += 1
        seen[key] = now
    expected.update(seen.keys())
    assert Counter(flow.id[4:15] for flow in got.flows) == expected
