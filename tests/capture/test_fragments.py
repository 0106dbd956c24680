"""Fragments of IP datagrams: put together, bounded, counted; and their payload in flows and streams."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.values.config import CaptureLimits
from tests.capture.frames import dissect, outer_udp, udp_header
from tests.capture.packets import ACK, CLIENT, SERVER, SYN, Record, ethernet, ip, pcap, run

TEXT = bytes(range(256)) * 8
Ends = tuple[str, str]
FOUR: Ends = ("10.0.0.1", "10.0.0.2")
SIX: Ends = ("fd00::1", "fd00::2")
VXLAN = b"\x08" + bytes(7)


def part(ends: Ends, data: bytes, offset: int, *, more: bool, ident: int = 9, proto: int = 17) -> bytes:
    """A frame with one fragment."""
    if ":" in ends[0]:
        return ethernet(ip(*ends, 44, struct.pack(">BBHI", proto, 0, offset | more, ident) + data))
    return ethernet(ip(*ends, proto, data, fragment=offset >> 3 | more << 13, ident=ident))


def cut(ends: Ends, data: bytes, size: int, *, ident: int = 9, proto: int = 17) -> list[bytes]:
    """A datagram as frames of fragments of `size` bytes."""
    return [
        part(ends, data[at : at + size], at, more=at + size < len(data), ident=ident, proto=proto)
        for at in range(0, len(data), size)
    ]


def together(frames: list[bytes], limits: CaptureLimits | None = None, *, times: list[float] | None = None):
    return dissect(pcap([(times[i] if times else 0.0, frame) for i, frame in enumerate(frames)]), limits)


@pytest.mark.parametrize("ends", [FOUR, SIX])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_datagram_in_any_order(ends: Ends, order: tuple[int, ...]) -> None:
    frames = cut(ends, udp_header(TEXT), 696)
    got = together([frames[i] for i in order])
    *before, last = got.frames
    assert [seen.frame.fragment for seen in got.frames] == [1, 1, 0]
    assert [seen.names[-1] for seen in before] == ["IPv6 fragment" if ends is SIX else "IPv4"] * 2
    assert (last.names[-1], last.payload, last.frame.reassembled) == ("UDP", TEXT, 1)
    [flow] = got.flows
    assert (flow.a_packets, flow.a_bytes) == (1, len(frames[order[-1]]))
    stats = got.stats
    assert (stats.fragments, stats.fragments_reassembled, stats.datagrams) == (3, 3, 1)


def test_other_headers_come_with_the_datagram() -> None:
    frames = [b"\2" * 12 + b"\x81\0\0\7" + frame[12:] for frame in cut(FOUR, udp_header(TEXT), 1024)]
    last = together(frames).frames[-1]
    assert last.layers == [("Ethernet", 0, 14), ("VLAN", 14, 4), ("IPv4", 18, 20), ("UDP", 38, 8)]
    assert last.data == frames[-1][:38] + udp_header(TEXT)
    assert (last.frame.captured, last.frame.wire) == (38 + 8 + len(TEXT), len(frames[-1]))


@pytest.mark.parametrize("other", [{"ident": 10}, {"proto": 1}])
def test_fragments_of_other_datagrams_stay_apart(other: dict[str, int]) -> None:
    one, two = cut(FOUR, udp_header(TEXT), 1024), cut(FOUR, udp_header(TEXT[::-1]), 1024, **other)
    got = together([one[0], two[0], two[1], two[2], one[1], one[2]])
    assert got.stats.datagrams == 2
    assert got.frames[-1].payload == TEXT


def test_a_fragment_that_comes_twice_changes_nothing() -> None:
    frames = cut(SIX, udp_header(TEXT), 1024)
    got = together([frames[0], frames[0], frames[2], frames[2], frames[1]])
    assert got.frames[-1].payload == TEXT
    assert (got.stats.fragments_dropped, got.stats.fragments_reassembled) == (2, 3)


def test_of_an_overlap_the_first_copy_wins_in_ipv4() -> None:
    data = udp_header(TEXT)
    frames = [part(FOUR, data[:800], 0, more=True), part(FOUR, data[1600:], 1600, more=False)]
    frames.append(part(FOUR, b"\0" * 400 + data[800:1600] + b"\0" * 160, 400, more=True))
    got = together(frames)
    assert (got.frames[-1].payload, got.stats.datagrams) == (TEXT, 1)


def test_an_overlap_drops_the_datagram_in_ipv6() -> None:
    data = udp_header(TEXT)
    frames = [part(SIX, data[:800], 0, more=True), part(SIX, data[400:1600], 400, more=True)]
    got = together([*frames, part(SIX, data[1600:], 1600, more=False)])
    assert (got.stats.datagrams, got.flows) == (0, [])
    assert (got.stats.fragments_dropped, got.stats.fragments_timed_out) == (2, 1)


@pytest.mark.parametrize(
    ("first", "second"), [((800, 800, False), (0, 2000, True)), ((0, 2000, True), (800, 800, False))]
)
def test_ends_that_contradict_drop_the_datagram(first: tuple[int, int, bool], second: tuple[int, int, bool]) -> None:
    frames = [part(FOUR, bytes(length), offset, more=more) for offset, length, more in (first, second)]
    stats = together(frames).stats
    assert (stats.fragments_dropped, stats.datagrams) == (2, 0)


def test_fragments_that_lie_are_malformed() -> None:
    odd = part(FOUR, bytes(9), 8, more=True)
    too_far = part(FOUR, bytes(16), 65528, more=False)
    stats = together([odd, too_far, part(FOUR, b"", 8, more=True)]).stats
    assert (stats.malformed, stats.fragments_dropped) == (2, 3)


def test_the_longest_datagram() -> None:
    data = udp_header(bytes(65535 - 8), length=0)
    frames = cut(FOUR, data, 60000)
    got = together(frames)
    assert got.frames[-1].payload == data[8:]


def test_a_cut_fragment_ends_what_is_there_of_the_datagram() -> None:
    data, frames = udp_header(TEXT), cut(FOUR, udp_header(TEXT), 1024)
    records: list[Record] = [(0, frames[0]), (0, frames[1][:134], len(frames[1])), (0, frames[2])]
    got = dissect(pcap(records))
    last = got.frames[-1]
    assert (last.payload, last.frame.payload_length) == (data[8:1124], len(TEXT))
    assert len(got.flows) == 1


def test_too_many_datagrams_make_the_oldest_go() -> None:
    limits = CaptureLimits(fragmented_datagrams=3)
    pairs = [cut(FOUR, udp_header(TEXT), 1032, ident=i) for i in range(5)]
    got = together([first for first, _ in pairs] + [second for _, second in pairs], limits)
    # Each second one whose first had to go makes another go in turn.
    assert got.stats.datagrams == 0
    assert (got.stats.fragments_dropped, got.stats.fragments_timed_out) == (7, 3)
    few = together([pairs[i][0] for i in range(4)] + [pairs[3][1], pairs[2][1], pairs[1][1]], limits)
    assert (few.stats.datagrams, few.stats.fragments_dropped, few.stats.fragments_timed_out) == (3, 1, 0)


def test_too_many_bytes_make_the_oldest_go() -> None:
    limits = CaptureLimits(fragment_bytes=3000)
    pairs = [cut(FOUR, udp_header(TEXT), 1032, ident=i) for i in range(4)]
    got = together([first for first, _ in pairs] + [pairs[3][1], pairs[2][1]], limits)
    assert (got.stats.datagrams, got.stats.fragments_dropped) == (2, 2)


def test_time_ends_a_datagram() -> None:
    frames = cut(FOUR, udp_header(TEXT), 1032)
    other = cut(FOUR, udp_header(TEXT), 1032, ident=77)
    assert together(frames, times=[0.0, 29.0]).stats.datagrams == 1
    late = together([frames[0], other[0], frames[1]], times=[0.0, 31.0, 31.0])
    assert (late.stats.datagrams, late.stats.fragments_timed_out) == (0, 3)
    assert together(frames, CaptureLimits(fragment_seconds=1), times=[0.0, 2.0]).stats.datagrams == 0


def test_places_are_used_again() -> None:
    rng = random.Random(1)
    frames = []
    for ident in range(300):
        size = rng.randrange(1, 400) * 8
        frames += cut(FOUR, udp_header(rng.randbytes(rng.randrange(3000))), size, ident=ident)
    stats = together(frames, CaptureLimits(fragmented_datagrams=1)).stats
    assert (stats.fragments_dropped, stats.fragments_timed_out) == (0, 0)


def test_a_batch_ends_when_its_memory_is_full() -> None:
    frames = [frame for ident in range(200) for frame in cut(FOUR, udp_header(bytes(64_000)), 32_008, ident=ident)]
    got = together(frames)
    assert (got.stats.datagrams, got.stats.packets, len(got.frames)) == (200, 400, 400)


def wrapped_in_vxlan(frame: bytes, ident: int) -> list[bytes]:
    packet = outer_udp(4789, VXLAN + frame)[14:]
    return cut(FOUR, packet[20:], max(8, len(packet) // 16 * 8), ident=ident)


def segment(seq: int, data: bytes, flags: int = ACK, *, reply: bool = False) -> bytes:
    (source, source_port), (target, target_port) = (SERVER, CLIENT) if reply else (CLIENT, SERVER)
    head = struct.pack(">HHIIBBHHH", source_port, target_port, seq, 2 if not reply else 1, 5 << 4, flags, 8192, 0, 0)
    return ip(source, target, 6, head + data)


def in_two(packet: bytes, ident: int) -> list[bytes]:
    return cut(("10.0.0.1", "10.0.0.2"), packet[20:], 24, ident=ident, proto=6)


@pytest.mark.parametrize("wrap", [in_two, lambda packet, ident: wrapped_in_vxlan(ethernet(packet), ident)])
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_tcp_in_fragments_reaches_the_stream(wrap: Callable[[bytes, int], list[bytes]], step: int) -> None:
    """In order, out of order (held over many batches), and repeated."""
    rng, size = random.Random(step), 700
    data = rng.randbytes(size * 40)
    starts = [at for at in range(0, len(data), size) for _ in range(rng.choice((1, 1, 2)))]
    starts.sort(key=lambda at: at + rng.randrange(6 * size))
    packets = [segment(99, b"", SYN), *(segment(100 + at, data[at : at + size]) for at in starts)]
    frames = [frame for ident, packet in enumerate(packets) for frame in wrap(packet, ident)]
    got = run(pcap([(0.0, frame) for frame in frames]), step=step)
    assert (got.data(), got.gaps()) == (data, [])
    assert got.stats.out_of_order > 0


def test_a_long_segment_in_fragments_is_held_in_pieces() -> None:
    data = random.Random(2).randbytes(30_000)
    packets = [segment(99, b"", SYN), segment(100 + 20_000, data[20_000:]), segment(100, data[:20_000])]
    frames = [
        frame for ident, packet in enumerate(packets) for frame in cut(FOUR, packet[20:], 1480, ident=ident, proto=6)
    ]
    assert run(pcap([(0.0, frame) for frame in frames]), step=5).data() == data


def test_what_cannot_be_held_is_a_gap() -> None:
    """Copies are bounded as all held bytes are: here there is room for one."""
    limits = CaptureLimits(out_of_order_bytes=100_000, out_of_order_bytes_total=2048)
    data = random.Random(3).randbytes(3000)
    packets = [segment(99, b"", SYN), *(segment(100 + at, data[at : at + 1000]) for at in (1000, 2000, 0))]
    frames = [
        frame for ident, packet in enumerate(packets) for frame in cut(FOUR, packet[20:], 512, ident=ident, proto=6)
    ]
    got = run(pcap([(0.0, frame) for frame in frames]), limits, step=1)
    assert len(got.data()) + sum(length for _, length in got.gaps()) == 3000
    assert got.data().startswith(data[:1000])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 25), st.booleans(), st.integers(0, 2), st.booleans()), max_size=40
    ),
    st.booleans(),
)
def test_any_fragments_are_counted_once(parts: list[tuple[int, int, bool, int, bool]], is_six: bool) -> None:
    """`dissect` checks that the counts close."""
    frames = [
        part(SIX if is_six else FOUR, bytes(units * 8 + (3 if odd else 0)), offset * 8, more=more, ident=ident)
        for offset, units, more, ident, odd in parts
    ]
    limits = CaptureLimits(fragmented_datagrams=2, fragment_bytes=600)
    stats = together(frames, limits, times=[float(i) for i in range(len(frames))]).stats
    assert stats.fragments <= len(frames)


def wrapped(packet: bytes, ident: int, rng: random.Random) -> list[bytes]:
    """A TCP packet as it is, in fragments, in fragments of a tunnel, or in fragments in fragments of one."""
    kind = rng.randrange(4)
    if kind == 0:
        return [ethernet(packet)]
    if kind == 1:
        return wrapped_in_vxlan(ethernet(packet), ident)
    parts = cut(FOUR, packet[20:], rng.choice((24, 504, 1480)), ident=ident, proto=6)
    if kind == 2:
        return parts
    return [frame for each in parts for frame in wrapped_in_vxlan(each, rng.randrange(65536))]


def damaged(frame: bytes, rng: random.Random) -> bytes:
    changed = bytearray(frame)
    for _ in range(rng.randrange(1, 5)):
        changed[rng.randrange(min(len(changed), 140))] = rng.randrange(256)
    return bytes(changed[: rng.choice((len(changed), rng.randrange(len(changed))))])


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_mixture_never_harms(seed: int) -> None:
    """Small limits, small batches, everything at once: counts close, frames are sound, and nothing is raised."""
    rng, data = random.Random(seed), random.Random(seed).randbytes(15_000)
    size = rng.choice((300, 1400, 5000))
    starts = sorted(range(0, len(data), size), key=lambda at: at + rng.randrange(6 * size))
    packets = [segment(99, b"", SYN), *(segment(100 + at, data[at : at + size]) for at in starts)]
    frames = [frame for ident, packet in enumerate(packets) for frame in wrapped(packet, ident, rng)]
    records: list[Record] = []
    for i, frame in enumerate(frames):
        records.append((i * 0.01, damaged(frame, rng) if rng.random() < 0.1 else frame, len(frame)))
    limits = CaptureLimits(
        fragmented_datagrams=rng.choice((1, 4, 1000)),
        fragment_bytes=rng.choice((3000, 50_000)),
        out_of_order_bytes_total=rng.choice((2048, 20_000)),
        tunnels=rng.choice((0, 1, 8)),
        flows=rng.choice((1, 1000)),
    )
    step = rng.choice((1, 7, 1000))
    assert run(pcap(records), limits, step=step).stats == dissect(pcap(records), limits, step=step).stats
