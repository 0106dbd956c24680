"""Frames between a worker process and its parent: what goes in comes out, and nothing broken gets through."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest

from engine.offload.process_wire import BrokenFrameError, Channel, GoneError, Kind, decode, encode

HEAD = 9  # bytes of length and kind


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = map(Channel, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    "values",
    [
        (),
        (b"",),
        (b"a\0\xff", -1, 1 << 53, 0.25, True, False, None, b"last"),
        tuple(range(1000)),
        (float("inf"), -0.0),
    ],
)
def test_values_come_out_as_they_went_in(ends: tuple[Channel, Channel], values: tuple[object, ...]) -> None:
    ours, theirs = ends
    ours.send(Kind.TASKS, values)  # type: ignore[arg-type]
    kind, received = theirs.receive()
    assert kind is Kind.TASKS
    assert [(type(each), each) for each in received] == [(type(each), each) for each in values]


def test_an_integer_past_64_bits_is_refused() -> None:
    with pytest.raises((struct.error, OverflowError)):
        encode(Kind.ASK, (1 << 70,))


def test_every_cut_of_a_body_is_broken() -> None:
    body = encode(Kind.ASK, (1, b"text", None))[HEAD:]
    assert decode(body) == (1, b"text", None)
    for end in range(len(body)):
        with pytest.raises(BrokenFrameError):
            decode(body[:end])
    with pytest.raises(BrokenFrameError):
        decode(body + b"x")


def test_a_changed_byte_breaks_a_frame_or_changes_a_value_and_nothing_else() -> None:
    body = encode(Kind.ASK, (1, b"text", 0.5))[HEAD:]
    for at in range(len(body)):
        for value in range(0, 256, 5):
            changed = body[:at] + bytes([value]) + body[at + 1 :]
            with suppress(BrokenFrameError):
                assert len(decode(changed)) == 3


@pytest.mark.parametrize("head", [b"\xff" * HEAD, b"\0" * HEAD, (0).to_bytes(8, "little") + b"\x63"])
def test_what_is_no_head_is_refused(head: bytes) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(theirs)
    with ours:
        ours.sendall(head)
        with pytest.raises(BrokenFrameError):
            channel.receive()
    channel.close()


def test_an_end_that_is_gone_is_said_on_both_ways(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.close()
    with pytest.raises(GoneError):
        ours.receive()
    with pytest.raises(GoneError):
        for _ in range(1000):
            ours.send(Kind.ASK, (b"x" * 10_000,))


def test_what_was_sent_before_an_end_closed_still_comes(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send(Kind.TASKS, (b"never read",))
    theirs.send(Kind.RESULTS, (1,))
    theirs.close()
    assert ours.receive() == (Kind.RESULTS, (1,))
    with pytest.raises(GoneError):
        ours.receive()


def test_silence_ends(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(GoneError):
        ends[0].receive(0.001)
