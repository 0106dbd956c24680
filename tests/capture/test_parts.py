"""One decoder over several captures, over a capture in parts, and over time without packets."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.capture.batches import Batch, EventKind, StreamEvent
from engine.capture.decoder import Decoder
from engine.capture.source import open_capture, read_format
from engine.values.config import CaptureLimits
from tests.capture.packets import (
    ACK,
    CLIENT,
    FIN,
    SERVER,
    Record,
    block,
    enhanced,
    handshake,
    interface,
    pcap,
    run,
    section,
    tcp,
    udp,
)


def conversation() -> list[Record]:
    """Two hundred segments, some late, over a few seconds."""
    frames, order = handshake(1, 2), list(range(200))
    for at in range(0, 190, 7):
        order[at], order[at + 3] = order[at + 3], order[at]
    for at, number in enumerate(order):
        frames.append((at / 50, tcp(CLIENT, SERVER, 2 + 10 * number, b"%010d" % number, ack=3)))
    return [*frames, (4.5, udp(CLIENT, SERVER, b"x" * 500)), (5.0, tcp(CLIENT, SERVER, 2002, flags=FIN | ACK))]


def as_pcapng(frames: list[Record]) -> bytes:
    """With a block of another kind between the packets, and a second section."""
    head = section() + interface() + block(5, bytes(80))
    packets = [enhanced(each[1], int(each[0] * 1e6)) for each in frames]
    return head + b"".join(packets[:90]) + section(">") + interface(order=">") + b"".join(
        enhanced(each[1], int(each[0] * 1e6), order=">") for each in frames[90:]
    )  # fmt: skip


def decode_parts(data: bytes, cuts: list[int], step: int) -> tuple[list[StreamEvent], list[int], Decoder]:
    """Decode a capture that comes in parts, cut at some places behind its first bytes."""
    decoder = Decoder(CaptureLimits())
    ends = [*sorted({min(max(cut, 24), len(data)) for cut in cuts}), len(data)]
    memory = ctypes.create_string_buffer(data, len(data))  # each part in memory of its own
    decoder.begin_parts(
        "parts", read_format("parts", data[:24]), ctypes.addressof(memory), ends[0], last=len(ends) == 1
    )
    start, parts = 0, ends[1:]
    events, sizes, done = [], [], False
    while not done:
        while not decoder.has(step):
            start += decoder.position
            end = parts.pop(0)
            rest = ctypes.create_string_buffer(data[start:end], end - start)
            decoder.extend(ctypes.addressof(rest), end - start, last=not parts)
            ctypes.memset(memory, 0xFF, len(memory))  # what came before must not be read again
            memory = rest
        batch = decoder.step(step)
        events += batch.events
        sizes.append(batch.packets)
        done = batch.done
    done = False
    while not done:
        batch = decoder.finish()
        events, done = events + batch.events, batch.done
    return events, sizes, decoder


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(24, 30_000), max_size=30), st.sampled_from([1, 7, 64]), st.booleans())
def test_a_capture_in_parts_gives_the_batches_of_the_whole(cuts: list[int], step: int, pcapng: bool) -> None:
    frames = conversation()
    data = as_pcapng(frames) if pcapng else pcap(frames)
    events, sizes, decoder = decode_parts(data, cuts, step)
    whole, whole_sizes, other = decode_parts(data, [], step)
    assert (events, sizes) == (whole, whole_sizes)
    assert events == run(data, step=step).events
    assert decoder.stats() == other.stats()
    assert decoder.stats().malformed == 0
    decoder.close()
    other.close()


@settings(max_examples=40, deadline=None)
@given(st.integers(24, 10_000), st.lists(st.integers(24, 10_000), max_size=10), st.booleans())
def test_a_capture_in_parts_may_end_anywhere(end: int, cuts: list[int], pcapng: bool) -> None:
    data = (as_pcapng(conversation()) if pcapng else pcap(conversation()))[:end]
    events, _, decoder = decode_parts(data, cuts, 16)
    assert decoder.stats().malformed <= 1
    assert events == run(data, step=16).events
    decoder.close()


@pytest.mark.parametrize("length", [262_145, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_record_in_parts_whose_length_lies_ends_it(length: int) -> None:
    bad = pcap([(0, b"x" * 60)]) + length.to_bytes(4, "little") * 4 + bytes(60)
    events, sizes, decoder = decode_parts(bad, [50, 110], 8)
    assert (events, sum(sizes), decoder.stats().malformed) == ([], 2, 1)
    decoder.close()


def test_a_packet_longer_than_its_block_is_broken_though_more_comes() -> None:
    lying = block(6, bytes(12) + (4000).to_bytes(4, "little") * 2 + bytes(8))
    data = section() + interface() + lying + enhanced(udp(CLIENT, SERVER), 1)
    _, sizes, decoder = decode_parts(data, [len(data) - 4], 8)
    assert (sum(sizes), decoder.stats().malformed, decoder.stats().decoded) == (2, 1, 1)
    decoder.close()


def read_all(decoder: Decoder, path: Path) -> list[StreamEvent]:
    """One capture to its end, closed before this returns."""
    events, done = [], False
    with open_capture(path) as mapped:
        decoder.begin(mapped)
        while not done:
            batch = decoder.step(10)
            events, done = events + batch.events, batch.done
    return events


def test_streams_and_what_they_hold_go_on_in_the_next_capture(tmp_path: Path) -> None:
    frames = conversation()
    decoder = Decoder(CaptureLimits())
    events = []
    for number, at in enumerate(range(0, len(frames), 20)):
        path = tmp_path / f"{number}.pcap"
        path.write_bytes(pcap(frames[at : at + 20]))
        events += read_all(decoder, path)
    events += decoder.finish().events
    data = [event for event in events if event.kind == EventKind.DATA]
    assert b"".join(event.data for event in data) == b"".join(b"%010d" % at for at in range(200))
    assert [event.kind for event in events if event.kind != EventKind.DATA] == [EventKind.OPEN, EventKind.CLOSE]
    assert [flow.a_packets for part in decoder.flow_records() for flow in part if flow.proto == "tcp"] == [203]
    decoder.close()


def test_held_bytes_outlive_a_capture_whose_memory_is_gone(tmp_path: Path) -> None:
    size = 100_000
    first, second = tmp_path / "1.pcap", tmp_path / "2.pcap"
    late = [(0.1, tcp(CLIENT, SERVER, 3 + at, bytes([at // 1000]) * 1000, ack=3)) for at in range(0, size, 1000)]
    first.write_bytes(pcap([*handshake(1, 2), *late]))
    second.write_bytes(pcap([(0.2, tcp(CLIENT, SERVER, 2, b"!", ack=3))]))
    decoder = Decoder(CaptureLimits())
    assert read_all(decoder, first) == []
    [opened, data] = read_all(decoder, second)
    assert (opened.kind, data.length) == (EventKind.OPEN, size + 1)
    assert data.data == b"!" + b"".join(bytes([at // 1000]) * 1000 for at in range(0, size, 1000))
    assert decoder.stats().gaps == 0
    decoder.close()


def test_times_can_be_shifted(tmp_path: Path) -> None:
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap([(1.0, udp(CLIENT, SERVER)), (2.0, udp(CLIENT, SERVER))]))
    decoder = Decoder(CaptureLimits())
    for shift in (0.0, 1.0):
        with open_capture(path) as mapped:
            decoder.begin(mapped, shift=shift)
            while not decoder.step(10).done:
                pass
        decoder.finish()
    [flow] = [flow for part in decoder.flow_records() for flow in part]
    assert (flow.start, flow.end, flow.a_packets) == (1.0, 3.0, 4)
    decoder.close()


def test_a_batch_spans_no_more_than_was_asked_for(tmp_path: Path) -> None:
    times = [0.0, 0.2, 0.25, 0.3, 0.1, 0.54, 9.0, 8.0]
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap([(time, udp(CLIENT, SERVER)) for time in times]))
    decoder = Decoder(CaptureLimits())
    batches: list[Batch] = []
    with open_capture(path) as mapped:
        decoder.begin(mapped, span=0.25)
        while not (batches and batches[-1].done):
            batches.append(decoder.step(100))
        decoder.begin(mapped)
        assert decoder.step(100).packets == len(times)
    assert [(batch.packets, batch.time) for batch in batches] == [(3, 0.25), (3, 0.54), (2, 9.0)]
    decoder.close()


def test_time_without_packets_skips_holes_and_ends_idle_streams(tmp_path: Path) -> None:
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap([*handshake(1, 2), (0.0, tcp(CLIENT, SERVER, 5, b"late", ack=3))]))
    decoder = Decoder(CaptureLimits(gap_wait_seconds=3, idle_seconds=300))
    assert read_all(decoder, path) == []
    assert decoder.pass_time(2.0).events == []
    batch = decoder.pass_time(4.0)
    assert [event.kind for event in batch.events] == [EventKind.OPEN, EventKind.GAP, EventKind.DATA]
    assert (batch.packets, batch.done, batch.time) == (0, True, 4.0)
    assert decoder.pass_time(200.0).events == []
    assert [event.kind for event in decoder.pass_time(400.0).events] == [EventKind.CLOSE]
    decoder.close()


def test_an_end_before_the_first_packet_is_fine() -> None:
    decoder = Decoder(CaptureLimits())
    assert decoder.finish().done
    decoder.close()


def test_a_part_is_enough_for_a_step_that_asks_for_more_than_a_step_takes() -> None:
    data = pcap([(0, udp(CLIENT, SERVER, b"x"))] * 3_000)
    memory = ctypes.create_string_buffer(data, len(data))
    decoder = Decoder(CaptureLimits())
    decoder.begin_parts("part", read_format("part", data[:24]), ctypes.addressof(memory), len(data), last=False)
    assert decoder.has(100_000)
    taken = decoder.step(100_000).packets
    assert 0 < taken < 3_000
    assert not decoder.has(100_000)
    assert decoder.has(3_000 - taken)
