"""Takers of streams: who gets what, in which order, and what the decoder is told to leave out."""

from __future__ import annotations

import pytest

from engine.capture.batches import EventKind, StreamEvent
from engine.pipeline.streams import Streams

FLOW = b"06A:0A.00.00.01:p-9C40_0A.00.00.02:p-0050"


class Taker:
    """Wants a number of chunks, or None for all; writes down what it is told."""

    def __init__(self, name: str, log: list[str], *, wants: int | None = None, hears_end: bool = True) -> None:
        self.name, self.log, self.wants, self.hears_end = name, log, wants, hears_end

    def open(self, stream: int, flow: bytes, roles_known: bool, time: float) -> bool:
        assert (flow, roles_known, time) == (FLOW, True, 1.0)
        self.log.append(f"{self.name} open {stream}")
        return self.wants != -1

    def data(self, stream: int, direction: int, position: int, time: float, data: bytes) -> bool:
        self.log.append(f"{self.name} {direction} {position} {data.decode()}")
        if self.wants is None:
            return True
        self.wants -= 1
        return self.wants > 0

    def gap(self, stream: int, direction: int, position: int, length: int, time: float) -> None:
        self.log.append(f"{self.name} gap {direction} {position} {length}")

    def end(self, stream: int, time: float, *, over: int) -> None:
        self.log.append(f"{self.name} end {over}")

    def close(self) -> None:
        self.log.append(f"{self.name} close")


class Reel:
    """A decoder of one stream, as far as takers need one."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.flow_key = lambda stream: FLOW
        self.roles_known = lambda stream: True
        self.ignore = lambda stream: log.append(f"ignored {stream}")
        self.mute = lambda stream: log.append(f"muted {stream}")


@pytest.fixture
def log() -> list[str]:
    return []


def played(streams: Streams, log: list[str]) -> list[str]:
    """What happens when a stream opens, carries two chunks and a gap, and ends."""
    reel = Reel(log)
    events = [
        StreamEvent(EventKind.OPEN, 7, 0, 1.0, 1, 0, FLOW),
        StreamEvent(EventKind.DATA, 7, 0, 2.0, 0, 1, b"a"),
        StreamEvent(EventKind.GAP, 7, 1, 3.0, 0, 9, b""),
        StreamEvent(EventKind.DATA, 7, 1, 4.0, 9, 1, b"b"),
        StreamEvent(EventKind.CLOSE, 7, 0, 5.0, 3, 0, b""),
    ]
    for event in events:
        streams.feed(reel, event)  # type: ignore[arg-type]
    return log


def test_all_get_all_in_their_order_and_the_end_in_the_other(log: list[str]) -> None:
    assert played(Streams([Taker("x", log), Taker("y", log)]), log) == [
        "x open 7",
        "y open 7",
        "x 0 0 a",
        "y 0 0 a",
        "x gap 1 0 9",
        "y gap 1 0 9",
        "x 1 9 b",
        "y 1 9 b",
        "y end 3",
        "x end 3",
    ]


def test_what_nobody_wants_is_ignored(log: list[str]) -> None:
    assert played(Streams([Taker("x", log, wants=-1)]), log) == ["x open 7", "ignored 7"]


def test_one_that_leaves_does_not_take_it_from_others(log: list[str]) -> None:
    takers = [Taker("x", log, wants=1, hears_end=False), Taker("y", log)]
    assert played(Streams(takers), log) == [
        "x open 7",
        "y open 7",
        "x 0 0 a",
        "y 0 0 a",
        "y gap 1 0 9",
        "y 1 9 b",
        "y end 3",
    ]


def test_when_all_have_left_it_is_ignored(log: list[str]) -> None:
    takers = [Taker("x", log, wants=1, hears_end=False), Taker("y", log, wants=2, hears_end=False)]
    assert played(Streams(takers), log)[-3:] == ["y gap 1 0 9", "y 1 9 b", "ignored 7"]


def test_when_all_have_left_but_for_the_end_it_is_muted(log: list[str]) -> None:
    takers = [Taker("x", log, wants=1), Taker("y", log, wants=1, hears_end=False)]
    assert played(Streams(takers), log) == ["x open 7", "y open 7", "x 0 0 a", "y 0 0 a", "muted 7", "x end 3"]


def test_after_the_end_nothing_is_known_of_it(log: list[str]) -> None:
    streams = Streams([Taker("x", log)])
    played(streams, log)
    del log[:]
    streams.feed(Reel(log), StreamEvent(EventKind.DATA, 7, 0, 6.0, 1, 1, b"z"))  # type: ignore[arg-type]
    assert log == []


def test_closing_reaches_everyone(log: list[str]) -> None:
    Streams([Taker("x", log), Taker("y", log)]).close()
    assert log == ["y close", "x close"]
