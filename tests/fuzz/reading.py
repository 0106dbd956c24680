"""A decoder for one input after another, each a capture that ends at a page which must not be touched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from engine.capture.batches import Batch, StreamEvent
from engine.capture.decoder import Decoder
from engine.capture.source import read_format
from engine.values.config import CaptureLimits
from engine.values.stats import DecodeStats
from tests.capture.frames import Dissected, Seen, check_counts, read_frames
from tests.capture.guard_page import GuardedRoom
from tests.capture.packets import Decoded, check, take

_INPUTS = 200
"""That one decoder reads: its flow table grows."""

_BEGIN, _PAUSE = 1_000.0, 1_000.0


class Reader:
    """Reads captures and checks what holds for all of them."""

    def __init__(self, room: GuardedRoom, limits: CaptureLimits, *, frames: bool = True) -> None:
        self._room = room
        self._limits = limits
        self._want_frames = frames
        self._left = _INPUTS
        self.now = _BEGIN
        """Later than all packets that were read, by more than anything waits for."""
        self.decoder = Decoder(limits, frames=frames)
        self.frames: list[Seen] = []

    def read(self, capture: bytes, *, step: int = 1_000) -> Decoded:
        """Decode bytes from their beginning to the end of all streams; `now` is when their packets may begin."""
        decoder = self.decoder
        before, layers = decoder.stats(), decoder.layers()
        result, self.frames = Decoded(), []
        address = self._room.put(capture)
        decoder.begin_parts("input", read_format("input", capture[:24]), address, len(capture), last=True)
        for call in (lambda: decoder.step(step), decoder.finish):
            done = False
            while not done:
                batch = call()
                done, result.packets = batch.done, result.packets + batch.packets
                self.now = max(self.now, batch.time + _PAUSE)
                self._take(result, batch)
        result.stats = minus(decoder.stats(), before)
        self.check(result)
        if self._want_frames:
            more = {name: number - layers.get(name, 0) for name, number in decoder.layers().items()}
            check_counts(Dissected(self.frames, [], result.stats, {name: each for name, each in more.items() if each}))
        for _ in decoder.forget():
            pass
        self._renew()
        return result

    def _take(self, result: Decoded, batch: Batch) -> None:
        if batch.packets:
            self.frames += read_frames(batch)
        result.flows += self.decoder.flows_over(batch)
        self.take(result, batch.each_event())

    def check(self, result: Decoded) -> None:
        """What must hold for a capture."""
        check(result)

    def take(self, result: Decoded, events: Iterable[StreamEvent]) -> None:
        """Events as they come, which can be read once."""
        take(result, self.decoder, events)

    def _renew(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.decoder.close()
            self._left, self.now = _INPUTS, _BEGIN
            self.decoder = Decoder(self._limits, frames=self._want_frames)

    def close(self) -> None:
        """Free the decoder."""
        self.decoder.close()


def minus(after: DecodeStats, before: DecodeStats) -> DecodeStats:
    """What was counted between two moments."""
    return DecodeStats(*(getattr(after, each.name) - getattr(before, each.name) for each in fields(after)))


def features(stats: DecodeStats) -> list[object]:
    """What is new of an input by its counts: by magnitude, as loops would make everything new."""
    skip = ("packets", "wire_bytes", "captured_bytes", "gap_bytes")
    return [
        (each.name, getattr(stats, each.name).bit_length())
        for each in fields(stats)
        if each.name not in skip and getattr(stats, each.name)
    ]
