"""Steps that go on past whole seconds and past flows that are over give what those give that end there."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.capture.batches import EventKind
from engine.capture.decoder import Decoder
from engine.capture.source import open_capture
from engine.values.config import CaptureLimits
from engine.values.flowkeys import canonical
from engine.values.records import Flow
from tests.capture.packets import ACK, FIN, SYN, Record, pcap, tcp

SERVER = ("10.0.0.2", 80)


class Seen(NamedTuple):
    """What came out: events with data that is joined, flows that were over, and how many packets each step read."""

    events: list[tuple[int, int, int, bytes]]
    flows: list[Flow]
    steps: list[int]


def read(path: Path, wanted_at: float, *, over: bool, step: int = 1000) -> Seen:
    decoder, seen = Decoder(CaptureLimits(closed_seconds=1.0), frames=True), Seen([], [], [])
    decoder.run_on(wanted_at, over=over)
    with open_capture(path) as capture:
        decoder.begin(capture)
        for call in (lambda: decoder.step(step), decoder.finish):
            done = False
            while not done:
                batch = call()
                done = batch.done
                for event in batch.each_event():
                    last = seen.events[-1] if seen.events else (-1, -1, -1, b"")
                    data = event.data
                    if event.kind == EventKind.DATA and last[:3] == event[:3]:
                        data = seen.events.pop()[3] + data
                    seen.events.append((*event[:3], data))
                seen.flows.extend(decoder.flows_over(batch))
                seen.steps.append(batch.packets)
    decoder.close()
    return seen


def connection(client: tuple[str, int], time: float, data: bytes) -> list[Record]:
    """One that is closed at once; a second later it is over."""
    end = 101 + len(data)
    return [
        (time, tcp(client, SERVER, 100, flags=SYN)),
        (time + 0.01, tcp(SERVER, client, 500, flags=SYN | ACK, ack=101)),
        (time + 0.02, tcp(client, SERVER, 101, data, ack=501)),
        (time + 0.03, tcp(SERVER, client, 501, data[::-1], ack=end)),
        (time + 0.04, tcp(client, SERVER, end, flags=FIN | ACK, ack=501 + len(data))),
        (time + 0.05, tcp(SERVER, client, 501 + len(data), flags=FIN | ACK, ack=end + 1)),
    ]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Connections of the same client port, one every three seconds: each takes the row of the one before."""
    records = [each for at in range(20) for each in connection(("10.0.0.1", 40000 + at % 2), 3.0 * at, b"%d" % at)]
    path = tmp_path / "in.pcap"
    path.write_bytes(pcap(records))
    return path


def test_a_step_ends_at_each_second_in_which_it_is_wanted(capture: Path) -> None:
    assert max(read(capture, -math.inf, over=True).steps) == 6
    assert read(capture, 30.0, over=True).steps[0] == 60


def test_without_over_a_step_ends_where_flows_are(capture: Path) -> None:
    seen = read(capture, math.inf, over=False)
    assert len(seen.steps) > 18
    assert max(seen.steps) == 6


def test_it_goes_on_past_both(capture: Path) -> None:
    assert read(capture, math.inf, over=True).steps[0] == 120


def test_the_key_of_a_stream_is_its_own_when_another_flow_has_its_row(capture: Path) -> None:
    seen = read(capture, math.inf, over=True)
    keys = [event[3] for event in seen.events if event[0] == EventKind.OPEN]
    assert keys == [b"06A:0A.00.00.01:p-9C4%d_0A.00.00.02:p-0050" % (at % 2) for at in range(20)]


def test_many_flows_that_are_over_end_a_step(tmp_path: Path) -> None:
    records = [
        each for at in range(300) for each in connection((f"10.0.{at // 250}.{at % 250}", 40000), at / 1e3, b"x")
    ]
    records = [(when + hour, data) for hour in (0.0, 3600.0) for when, data in sorted(records)]
    path = tmp_path / "in.pcap"
    path.write_bytes(pcap(records))
    seen = read(path, math.inf, over=True)
    assert len(seen.flows) == 300
    assert sum(seen.steps) == len(records)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 30), st.binary(min_size=1, max_size=20)), max_size=12),
    st.floats(0, 30),
    st.integers(1, 50),
)
def test_the_same_comes_out_of_all(talks: list[tuple[int, float, bytes]], wanted_at: float, step: int) -> None:
    records = [each for port, time, data in talks for each in connection(("10.0.0.1", 40000 + port), time, data)]
    with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        file.write(pcap(sorted(records, key=lambda record: record[0])))
        file.flush()
        path = Path(file.name)
        first = read(path, -math.inf, over=False, step=step)
        for until, over in ((-math.inf, True), (wanted_at, True), (wanted_at, False), (math.inf, True)):
            seen = read(path, until, over=over, step=step)
            assert seen.flows == first.flows
            assert by_stream(seen) == by_stream(first)


def by_stream(seen: Seen) -> dict[int, list[tuple[int, int, bytes]]]:
    """Where steps end only decides which data is joined."""
    told: dict[int, list[tuple[int, int, bytes]]] = {}
    for kind, stream, direction, data in seen.events:
        events = told.setdefault(stream, [])
        if kind == EventKind.DATA and events and events[-1][:2] == (kind, direction):
            data = events.pop()[2] + data
        events.append((kind, direction, data))
    return told


def test_bytes_of_a_flow_that_is_over_are_not_those_of_the_next_one(tmp_path: Path) -> None:
    client = ("10.0.0.1", 40000)
    records = connection(client, 0.0, b"x" * 10) + connection(client, 5.0, b"y" * 50)
    path = tmp_path / "in.pcap"
    path.write_bytes(pcap(records))
    key = canonical(b"06A:0A.00.00.01:p-9C40_0A.00.00.02:p-0050")
    decoder = Decoder(CaptureLimits(closed_seconds=1.0), frames=True)
    decoder.run_on(math.inf, over=True)
    with open_capture(path) as capture:
        decoder.begin(capture)
        batch = decoder.step(100)
        assert batch.frame_count == 12
        first, second = decoder.flow_bytes(key, time=1.0), decoder.flow_bytes(key, place=11)
        early = decoder.flow_bytes(key, place=2)
    decoder.close()
    assert first is not None and second is not None and early is not None
    assert first.a_bytes == 3 * 54 + 10
    assert early.a_bytes == 2 * 54 + 10
    assert second.a_bytes == 3 * 54 + 50
