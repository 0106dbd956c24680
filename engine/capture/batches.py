"""What a decoder gives: batches of packets with the stream events, datagrams and flows in them. Plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple


class EventKind(IntEnum):
    """What happened to a TCP stream. Each stream is opened once, then may carry data and gaps, and is closed once."""

    OPEN = 0
    DATA = 1
    GAP = 2
    CLOSE = 3


class StreamEvent(NamedTuple):
    """One thing that happened to a stream. Events of one stream come in their order, directions included."""

    kind: int
    """An `EventKind`."""
    stream: int
    """Number of the stream, never used again within a run."""
    direction: int
    """0 is client to server when the handshake told; else 0 is from the side whose packet was seen first."""
    time: float
    """Stream time in seconds."""
    position: int
    """DATA and GAP: offset in this direction's stream, from 0. OPEN: 1 when the handshake told the directions.
    CLOSE: the directions that their sender ended, by FIN or RST: 1 for direction 0, 2 for direction 1, or their sum."""
    length: int
    """DATA and GAP: bytes."""
    data: bytes
    """DATA: the bytes. OPEN: the flow key (spec 3.2)."""


class Datagram(NamedTuple):
    """One UDP datagram, whole where it came in fragments."""

    time: float
    """Stream time in seconds."""
    flow: bytes
    """The flow key (spec 3.2)."""
    source_port: int
    target_port: int
    data: bytes
    """What was captured of it."""


def _no_event() -> Iterator[StreamEvent]:
    return iter(())


class Batch(NamedTuple):
    """What one call gave: `packets` records read, and whether the capture (or the flush) is at its end."""

    packets: int
    done: bool
    time: float
    """Stream time in seconds: the latest time stamp so far."""
    each_event: Callable[[], Iterator[StreamEvent]] = _no_event
    """The stream events, made one by one; to be read once, to their end, before the next call of the decoder. Those of
    streams that are ignored meanwhile are left out."""
    frames: int = 0
    """Address of an array of `offpath_frame_t` (`lua_api/frame.lua`), one for each packet read, in their order;
    0 when frames are not wanted. They, and the bytes they point to, hold until the next step."""
    frame_count: int = 0
    flows: int = 0
    """How many flows are over since the batch before; `Decoder.flows_over` gives them until the next call."""
    turn: float = math.inf
    """The time of the next packet where that is of a later window (`Decoder.end_window`); infinity otherwise."""
    origins: int = 0
    """Address of as many `offpath_origin_t`: the packets of the frames as they lie in the capture, and hold as long."""

    @property
    def events(self) -> list[StreamEvent]:
        """All stream events, likewise."""
        return list(self.each_event())


class FlowBytes(NamedTuple):
    """What a flow had carried at some moment."""

    a_bytes: float
    z_bytes: float
    client: int
    """1 when a SYN showed A of the key to be the client, 2 when Z, 0 when none did."""
