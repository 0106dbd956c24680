"""TCP reassembly: every way in which segments can come, and not come."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.values.config import CaptureLimits
from tests.capture.packets import ACK, CLIENT, FIN, RST, SERVER, SYN, Record, handshake, pcap, run, tcp

C, S = 1000, 5000  # initial sequence numbers


def from_client(offset: int, data: bytes = b"", flags: int = ACK, time: float = 0.1, ack: int = 0) -> Record:
    return time, tcp(CLIENT, SERVER, C + 1 + offset, data, flags, S + 1 + ack)


def from_server(offset: int, data: bytes = b"", flags: int = ACK, time: float = 0.1, ack: int = 0) -> Record:
    return time, tcp(SERVER, CLIENT, S + 1 + offset, data, flags, C + 1 + ack)


def connection(*records: Record, shake: bool = True, limits: CaptureLimits | None = None):
    return run(pcap((handshake(C, S) if shake else []) + list(records)), limits)


def test_request_and_response_keep_their_order_and_are_joined() -> None:
    got = connection(from_client(0, b"one "), from_client(4, b"two"), from_server(0, b"yes"), from_client(7, b"more"))
    assert got.told[1] == [
        ("OPEN", 0, 0),
        ("DATA", 0, b"one two"),
        ("DATA", 1, b"yes"),
        ("DATA", 0, b"more"),
        ("CLOSE", 0, 0),
    ]
    assert got.roles == {1: True}
    assert got.keys == {1: b"06A:0A.00.00.01:p-9C40_0A.00.00.02:p-0050"}


def test_data_of_interleaved_streams_is_joined_per_stream() -> None:
    other = ("10.0.0.1", 40001)
    records: list[Record] = []
    for seq in range(0, 30, 10):
        records += [(0.1, tcp(CLIENT, SERVER, seq, b"a" * 10, ack=1)), (0.1, tcp(other, SERVER, seq, b"b" * 10, ack=1))]
    told = run(pcap(records)).told
    assert [len(each) for each in told.values()] == [3, 3]
    assert sorted(each[1][2] for each in told.values()) == [b"a" * 30, b"b" * 30]


def test_segments_out_of_order_wait() -> None:
    got = connection(from_client(6, b"789"), from_client(3, b"456"), from_client(0, b"123"))
    assert got.data() == b"123456789"
    assert got.gaps() == []
    assert got.stats.out_of_order == 2


def test_the_first_copy_of_a_byte_wins() -> None:
    got = connection(
        from_client(4, b"EFGH"), from_client(2, b"xxxxxxxx"), from_client(0, b"ABCD"), from_client(8, b"later")
    )
    assert got.data() == b"ABxxEFGHxxter"
    assert got.stats.overlapping >= 2


def test_retransmissions_and_keep_alives_add_nothing() -> None:
    got = connection(
        from_client(0, b"abc"), from_client(0, b"abc"), from_client(2, b"?"), from_client(2), from_client(3, b"d")
    )
    assert got.data() == b"abcd"
    assert got.stats.retransmitted == 2


def test_a_zero_window_probe_counts_once() -> None:
    got = connection(from_client(0, b"ab"), from_client(2, b"c"), from_client(2, b"c"), from_client(2, b"cde"))
    assert got.data() == b"abcde"


def test_data_in_a_syn_is_data() -> None:
    syn: Record = (0.0, tcp(CLIENT, SERVER, C, b"fast", SYN))
    got = run(pcap([syn, (0.0, tcp(SERVER, CLIENT, S, flags=SYN | ACK, ack=C + 5)), from_client(4, b" open")]))
    assert got.data() == b"fast open"
    assert got.roles == {1: True}


def test_a_hole_becomes_a_gap_after_its_time() -> None:
    got = connection(
        from_client(0, b"ab"),
        from_client(5, b"fg", time=1.0),
        from_server(0, b"x", time=3.9),
        from_server(1, b"y", time=4.1),
    )
    assert got.told[1][1:-1] == [
        ("DATA", 0, b"ab"),
        ("DATA", 1, b"x"),
        ("GAP", 0, 3),
        ("DATA", 0, b"fg"),
        ("DATA", 1, b"y"),
    ]


def test_packets_of_other_flows_move_the_time_on() -> None:
    other: Record = (9.0, tcp(("10.9.9.9", 999), SERVER, 1, flags=ACK))
    got = connection(from_client(5, b"fg", time=1.0), other, from_client(0, b"abcde", time=9.5))
    assert got.gaps() == [(0, 5)]
    assert got.data() == b"fg"


def test_a_second_hole_waits_from_when_it_appeared() -> None:
    got = connection(
        from_client(2, b"c", time=1.0),  # holes at 0 and, seen at 2.0, at 3
        from_client(5, b"f", time=2.0),
        from_client(0, b"ab", time=3.0),
        from_server(0, b"x", time=4.5),
        from_server(1, b"y", time=5.1),
    )
    assert got.told[1][1:-1] == [
        ("DATA", 0, b"abc"),
        ("DATA", 1, b"x"),
        ("GAP", 0, 2),
        ("DATA", 0, b"f"),
        ("DATA", 1, b"y"),
    ]


@pytest.mark.parametrize("limits", [CaptureLimits(out_of_order_bytes=10), CaptureLimits(out_of_order_bytes_total=10)])
def test_a_hole_becomes_a_gap_when_too_much_waits_behind_it(limits: CaptureLimits) -> None:
    held = connection(from_client(5, b"x" * 10), from_client(0, b"abcde"), limits=limits)
    assert (held.data(), held.gaps(), held.stats.held_over) == (b"abcde" + b"x" * 10, [], 0)
    over = connection(from_client(5, b"x" * 11), from_client(0, b"abcde"), limits=limits)
    assert (over.data(), over.gaps(), over.stats.held_over) == (b"x" * 11, [(0, 5)], 1)


def test_tiny_segments_behind_a_hole_are_bounded_in_number() -> None:
    records = [from_client(2 * i + 1, b"x") for i in range(200)]
    got = connection(*records, from_client(0, b"abc"), limits=CaptureLimits(out_of_order_bytes=1000))
    assert got.gaps()[0] == (0, 1)
    assert len(got.data()) == 200


def test_the_end_of_the_capture_shows_what_is_missing() -> None:
    got = connection(from_client(3, b"de"), from_client(9, b"jk"))
    assert got.told[1] == [
        ("OPEN", 0, 0),
        ("GAP", 0, 3),
        ("DATA", 0, b"de"),
        ("GAP", 0, 4),
        ("DATA", 0, b"jk"),
        ("CLOSE", 0, 0),
    ]


def test_a_fin_shows_that_the_last_bytes_are_missing() -> None:
    got = connection(from_client(0, b"ab"), from_client(5, flags=FIN | ACK))
    assert got.gaps() == [(2, 3)]


def test_fins_of_both_sides_end_the_stream_at_once() -> None:
    got = connection(
        from_client(0, b"ab", FIN | ACK),
        from_server(0, b"cd", FIN | ACK),
        from_client(3),
        from_client(0, b"ab"),
        (9.0, tcp(("1.1.1.1", 1), SERVER, 0, b"z", ack=5)),
    )
    kinds = [(event.kind, event.stream) for event in got.events]
    assert kinds == [(0, 1), (1, 1), (1, 1), (3, 1), (0, 2), (1, 2), (3, 2)]


def test_what_was_under_way_at_a_reset_still_comes() -> None:
    got = connection(
        from_client(0, b"ab"),
        from_client(2, flags=RST),
        from_server(0, b"late", time=1.0),
        (4.5, tcp(("1.1.1.1", 1), SERVER, 0, b"z", ack=5)),
        from_server(4, b"too late", time=5.0),
    )
    assert got.told[1] == [("OPEN", 0, 0), ("DATA", 0, b"ab"), ("DATA", 1, b"late"), ("CLOSE", 0, 0)]
    assert got.stats.streams == 2


def test_a_reset_far_from_the_window_is_forged() -> None:
    got = connection(from_client(0, b"ab"), from_client(2**29, flags=RST), from_client(2, b"cd", time=9.0))
    assert got.data() == b"abcd"


def test_a_new_syn_makes_a_new_stream() -> None:
    again = [(r[0] + 1, r[1]) for r in handshake(C + 70000, S + 90000)]
    got = connection(
        from_client(0, b"first"), from_client(9, b"held"), *again, (1.0, tcp(CLIENT, SERVER, C + 70001, b"second"))
    )
    assert got.told[1][-2:] == [("DATA", 0, b"held"), ("CLOSE", 0, 0)]
    assert got.data(2) == b"second"
    assert len(got.flows) == 1


def test_repeated_handshake_segments_change_nothing() -> None:
    got = connection(*handshake(C, S), from_client(0, b"a"), *handshake(C, S), from_client(1, b"b"))
    assert got.told[1] == [("OPEN", 0, 0), ("DATA", 0, b"ab"), ("CLOSE", 0, 0)]


def test_an_idle_connection_ends_and_may_go_on_as_another() -> None:
    got = connection(from_client(0, b"a", time=1), from_server(0, b"b", time=400, ack=1))
    assert got.told[1] == [("OPEN", 0, 0), ("DATA", 0, b"a"), ("CLOSE", 0, 0)]
    assert got.told[2] == [("OPEN", 0, 0), ("DATA", 0, b"b"), ("CLOSE", 0, 0)]
    assert not got.roles[2]
    assert len(got.flows) == 2


def test_joined_midway_the_first_sender_is_direction_0() -> None:
    got = connection(from_server(0, b"answer", ack=0), from_client(0, b"ask"), shake=False)
    assert (got.data(1, 0), got.data(1, 1)) == (b"answer", b"ask")
    assert got.roles == {1: False}


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_joined_midway_a_disordered_start_loses_nothing(order: tuple[int, ...]) -> None:
    parts = [from_client(3 * i, bytes([65 + i]) * 3) for i in order]
    got = connection(*parts, from_server(0, b"ok", ack=9), shake=False)
    assert got.told[1][1:-1] == [("DATA", 0, b"AAABBBCCC"), ("DATA", 1, b"ok")]


def test_a_syn_ack_alone_tells_the_roles_and_both_bases() -> None:
    got = connection(
        (0.0, tcp(SERVER, CLIENT, S, flags=SYN | ACK, ack=C + 1)),
        from_client(3, b"d"),
        from_client(0, b"abc"),
        shake=False,
    )
    assert got.roles == {1: True}
    assert (got.data(), got.gaps()) == (b"abcd", [])


def test_bytes_cut_by_the_snap_length_are_gaps() -> None:
    time, frame = from_client(0, b"abcdefgh")
    got = connection((time, frame[:-5], len(frame)), from_client(8, b"ij"), from_client(3, b"defgh"))
    assert got.told[1][1:-1] == [("DATA", 0, b"abc"), ("GAP", 0, 5), ("DATA", 0, b"ij")]
    assert got.stats.cut == 1


def test_too_many_streams_are_refused_and_counted() -> None:
    records: list[Record] = [(0.0, tcp(("10.0.0.1", 1000 + i), SERVER, 1, b"x", ack=1)) for i in range(5)]
    got = run(pcap(records), CaptureLimits(streams=3))
    assert (got.stats.streams, got.stats.streams_rejected, got.stats.flows) == (3, 2, 5)


def test_small_steps_give_the_same_bytes() -> None:
    records = [*handshake(C, S), from_client(4, b"efgh"), from_client(0, b"abcd"), from_server(0, b"x")]
    assert run(pcap(records), step=1).data() == run(pcap(records)).data() == b"abcdefgh"


def test_more_payload_than_one_batch_holds() -> None:
    size = 60_000
    records = [from_client(i * size, bytes([i]) * size) for i in range(1, 100)]
    limits = CaptureLimits(out_of_order_bytes=16 << 20)
    got = connection(*records, from_client(0, b"\0" * size), limits=limits)
    assert got.data() == b"".join(bytes([i]) * size for i in range(100))


@st.composite
def disorder(draw: st.DrawFn) -> tuple[bytes, int, list[tuple[int, int]]]:
    """A byte stream, its first sequence number, and pieces of it that come in a disorder of at most a few places."""
    stream = draw(st.randoms(use_true_random=False)).randbytes(draw(st.integers(1, 400)))
    cuts = sorted({0, len(stream), *draw(st.lists(st.integers(0, len(stream)), max_size=12))})
    parts = list(itertools.pairwise(cuts))
    extra = st.tuples(st.integers(0, len(stream)), st.integers(0, len(stream))).map(lambda p: (min(p), max(p)))
    parts += [part for part in draw(st.lists(extra, max_size=6)) if part[0] < part[1]]
    return stream, draw(st.integers(2**32 - 300, 2**32 + 50)) % 2**32, draw(st.permutations(parts))


@settings(max_examples=60, deadline=None)
@given(disorder(), st.booleans(), st.integers(0, 2**16))
def test_any_disorder_gives_the_stream(case: tuple[bytes, int, list[tuple[int, int]]], lose: bool, seed: int) -> None:
    stream, first, parts = case
    if lose:
        parts = [part for part in parts if random.Random(seed + part[0]).random() < 0.7]
    records: list[Record] = [(0.0, tcp(CLIENT, SERVER, first - 1, flags=SYN))]
    records += [(0.1, tcp(CLIENT, SERVER, first + a, stream[a:b])) for a, b in parts]
    records.append((0.2, tcp(CLIENT, SERVER, first + len(stream), flags=FIN | ACK)))
    got = run(pcap(records), step=1 + seed % 7)
    known = {i for a, b in parts for i in range(a, b)}
    gaps = got.gaps()
    assert sum(length for _, length in gaps) == len(stream) - len(known)
    assert not known & {i for position, length in gaps for i in range(position, position + length)}
    assert got.data() == bytes(stream[i] for i in sorted(known))
