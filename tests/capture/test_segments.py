"""What a flow record says of TCP segments: payload, repeated segments, the time of the handshake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.values.records import Flow
from tests.capture.packets import ACK, CLIENT, FIN, RST, SERVER, SYN, Record, pcap, run, tcp, udp

DATA = Path(__file__).parents[2].parent / "shared" / "data"
FAR = 2**31 + 5


def flow_of(records: list[Record], *, streams: bool = False) -> Flow:
    (flow,) = run(pcap(records), streams=streams).flows
    return flow


def sent(seq: int, data: bytes = b"", flags: int = ACK, time: float = 1.0, ack: int = 0) -> Record:
    return time, tcp(CLIENT, SERVER, seq, data, flags, ack)


def answered(seq: int, data: bytes = b"", flags: int = ACK, time: float = 1.0, ack: int = 0) -> Record:
    return time, tcp(SERVER, CLIENT, seq, data, flags, ack)


def opening(times: tuple[float, float, float], seq: int = 100, answer: int = 900) -> list[Record]:
    return [
        sent(seq, flags=SYN, time=times[0]),
        answered(answer, flags=SYN | ACK, time=times[1], ack=seq + 1),
        sent(seq + 1, time=times[2], ack=answer + 1),
    ]


@pytest.mark.parametrize("streams", [False, True])
def test_the_handshake_takes_from_the_syn_to_the_ack_of_its_answer(streams: bool) -> None:
    opened = opening((1000.0, 1000.02, 1000.050125))
    flow = flow_of([*opened, sent(101, b"x" * 10, time=1001.0), answered(901, b"y" * 30, time=1001.5)], streams=streams)
    assert (flow.setup_rtt, flow.retransmissions) == (50125, 0)
    assert {flow.a_payload, flow.z_payload} == {10, 30}


def test_the_last_syn_before_the_answer_counts_and_its_repetition_is_one() -> None:
    flow = flow_of([sent(100, flags=SYN, time=997.0), *opening((1000.0, 1000.25, 1000.5))])
    assert (flow.setup_rtt, flow.retransmissions) == (500_000, 1)


def test_a_handshake_that_was_not_seen_whole_has_no_time() -> None:
    asked, reply, acknowledged = opening((1000.0, 1000.25, 1000.5))
    wrong = sent(101, time=1000.5, ack=5)
    reset = sent(101, flags=RST, time=1000.5)
    for records in (
        [asked, acknowledged],
        [reply, acknowledged],
        [asked, reply, wrong],
        [asked, reply, reset],
        [asked],
    ):
        assert flow_of(records).setup_rtt == 0
    earlier = opening((1000.0, 1000.0, 999.0))
    assert flow_of(earlier).setup_rtt == 0
    assert flow_of(opening((1000.0, 1000.0, 1000.0))).setup_rtt == 1


def test_what_brings_no_new_byte_was_sent_again() -> None:
    first, second = sent(10, b"a" * 100), sent(110, b"b" * 100)
    assert flow_of([first, second, first, second, second]).retransmissions == 3
    assert flow_of([first, second, sent(60, b"c" * 300)]).retransmissions == 1
    assert flow_of([first, sent(110), sent(110), sent(109)]).retransmissions == 0
    assert flow_of([first, sent(110, flags=FIN | ACK), sent(110, flags=FIN | ACK)]).retransmissions == 1


def test_what_comes_late_for_the_first_time_was_not_sent_again() -> None:
    parts = [sent(10 + at * 100, b"x" * 100) for at in range(5)]
    for order in ((0, 2, 1, 3, 4), (0, 4, 1, 2, 3), (0, 4, 3, 2, 1)):
        assert flow_of([parts[at] for at in order]).retransmissions == 0
    assert flow_of([parts[at] for at in (0, 2, 1, 1, 3)]).retransmissions == 1


def test_numbers_far_from_the_others_are_where_counting_begins_anew() -> None:
    assert (
        flow_of([sent(10, b"a"), sent(FAR, b"b"), sent(FAR, b"b"), sent(11, b"c"), sent(12, b"d")]).retransmissions == 1
    )
    assert flow_of([sent(2**32 - 50, b"x" * 100), sent(50, b"y" * 10), sent(50, b"y" * 10)]).retransmissions == 1


def test_a_connection_of_the_same_ports_begins_anew() -> None:
    over = [*opening((1000.0, 1000.1, 1000.2)), sent(101, b"x" * 50, time=1000.3), sent(151, flags=RST, time=1000.4)]
    again = [*opening((1001.0, 1001.1, 1001.2), seq=90, answer=800), sent(91, b"z" * 50, time=1001.3)]
    flow = flow_of([*over, *again])
    assert (flow.retransmissions, flow.setup_rtt) == (0, 200_000)


def test_datagrams_have_nothing_of_it() -> None:
    flow = flow_of([(1.0, udp(CLIENT, SERVER, b"x" * 10))] * 2)
    assert (flow.a_payload, flow.z_payload, flow.retransmissions, flow.setup_rtt) == (0, 0, 0, 0)


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(0, 3)), min_size=1, max_size=20),
    st.integers(0, 2**32 - 1),
)
def test_each_repetition_counts_once_wherever_numbers_wrap(parts: list[tuple[int, int]], seq: int) -> None:
    records, repeated = [], 0
    for length, times in parts:
        records += [sent(seq, b"x" * length)] * (times + 1)
        seq, repeated = seq + length, repeated + times
    flow = flow_of(records)
    assert flow.retransmissions == repeated
    assert flow.a_payload + flow.z_payload == sum(length * (times + 1) for length, times in parts)


@pytest.mark.skipif(not DATA.is_dir(), reason="captures are not here")
@pytest.mark.parametrize("name", ["ftp", "http-100-continue-chunked", "http-get", "http-pipelined", "raw-ip-tls"])
def test_payload_is_what_streams_are_put_together_from(name: str) -> None:
    """In captures without repeated or missing bytes, both are the same."""
    known = json.loads((DATA / "expected" / f"{name}.json").read_text(encoding="utf-8"))["tcp_streams"]
    found = {}
    for flow in run(DATA / "pcap" / f"{name}.pcap", streams=False).flows:
        found[frozenset([(flow.a_ip, flow.a_port, flow.a_payload), (flow.z_ip, flow.z_port, flow.z_payload)])] = flow
    assert known
    for each in known:
        assert not any(each.get(f"{side}_{what}") for side in "az" for what in ("flags", "missing")), name
        ends = ((each[f"{side}_ip"], each[f"{side}_port"], each[f"{side}_payload"]) for side in "az")
        assert found[frozenset(ends)].retransmissions == 0
