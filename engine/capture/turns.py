"""The turns of a TCP conversation as a capture has them: cut into segments, with faults, and timed.

What `offpath synth` writes and what a simulation plays both come from here. All variety is drawn from the caller's
random numbers, in the order of the calls.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from engine.capture import packets
from engine.capture.packets import Payload, Segment, TcpConversation

NO_HANDSHAKE, LOSS, CHECKSUM = "no handshake", "loss", "checksum"
FAULTS = (NO_HANDSHAKE, "reorder", "repeat", "overlap", LOSS, CHECKSUM)
"""What a connection may suffer; only a loss takes bytes away."""

Timed = Iterator[tuple[int, bytes]]
"""Frames with their times, in nanoseconds."""

_CHANGES: dict[str, Callable[[list[Segment], random.Random], list[Segment]]] = {
    "reorder": packets.reorder,
    "repeat": packets.repeat,
    "overlap": packets.overlap,
}
_MOST_LOST = 3  # segments in a row


@dataclass(slots=True)
class Turns:
    """One connection, turn by turn."""

    tcp: TcpConversation
    rng: random.Random
    fault: str
    """One of `FAULTS`, or ""."""
    trip_ns: int
    """Nanoseconds from one end to the other."""
    time_ns: int
    """When the turn before was over."""

    def open(self) -> Timed:
        """The handshake, unless it happened before the capture began."""
        if self.fault == NO_HANDSHAKE:
            self.tcp.skip_open()
        else:
            yield from self.timed(self.tcp.open())

    def segments(self, from_client: bool, data: Payload) -> list[Segment]:
        """One turn, sometimes pushed in two writes, with the faults that keep all its bytes."""
        split = self.rng.randrange(len(data)) if self.rng.random() < 0.2 else 0
        view = memoryview(data)
        segments = self.tcp.send(from_client, view[:split]) + self.tcp.send(from_client, view[split:])
        change = _CHANGES.get(self.fault)
        return change(segments, self.rng) if change else segments

    def lose(self, segments: list[Segment], first_seq: int, body: range) -> bool:
        """Take up to three segments out of a body, whose places count from a sequence number; whether there were any.

        Both ends of the body are kept: then nothing but this file is touched, and that it was there stays known.
        """
        inside = []
        for place, segment in enumerate(segments):
            start = segment.seq - first_seq & 0xFFFFFFFF
            if segment.payload and body.start < start and start + len(segment.payload) < body.stop:
                inside.append(place)
        if not inside:
            return False
        at = self.rng.randrange(len(inside))
        for place in reversed(inside[at : at + self.rng.randint(1, _MOST_LOST)]):
            del segments[place]
        return True

    def timed(self, segments: Sequence[Segment]) -> Timed:
        """Frames of one turn: a trip over the network, then segments in close succession."""
        self.time_ns += self.trip_ns
        for segment in segments:
            yield self.time_ns, self.tcp.frame(segment, offloaded=self.fault == CHECKSUM)
            self.time_ns += 2_000 + int(self.rng.random() * 60_000)
