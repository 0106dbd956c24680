"""TCP streams shared by all who take them: handlers, attributes, what the platform finds, files. Loop thread only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.capture.batches import EventKind, StreamEvent
from engine.capture.decoder import Decoder

_OPEN, _DATA, _GAP = int(EventKind.OPEN), int(EventKind.DATA), int(EventKind.GAP)


class StreamTaker(Protocol):
    """Takes streams. For each, `open` is called first; what follows only if that was True."""

    hears_end: bool
    """Whether `end` is called, too, for a stream of which no more bytes were wanted."""

    def open(self, stream: int, flow: bytes, roles_known: bool, time: float) -> bool:
        """A connection began. False: nothing of it is wanted."""

    def data(self, stream: int, direction: int, position: int, time: float, data: bytes) -> bool:
        """The next bytes of a direction. False: no more of them are wanted."""

    def gap(self, stream: int, direction: int, position: int, length: int, time: float) -> None:
        """The next bytes of a direction were not captured."""

    def end(self, stream: int, time: float, *, over: int) -> None:
        """The connection is over; `over` is the position of a CLOSE event."""

    def close(self) -> None:
        """No event follows: streams that did not end never will."""


@dataclass(slots=True)
class _Shared:
    takers: list[StreamTaker]
    """Those that want more bytes, in the order in which they get them."""
    heirs: list[StreamTaker]
    """Those that hear of the end."""


class Streams:
    """Hands stream events to takers, and has the decoder leave out what none of them wants.

    Takers are served in their order, but for the end of a stream, which goes the other way: who came first is told
    of everything that was found when it hears of the end.
    """

    def __init__(self, takers: Sequence[StreamTaker]) -> None:
        self._takers = takers
        self._shared: dict[int, _Shared] = {}

    def feed(self, decoder: Decoder, event: StreamEvent) -> None:
        """Take the next event of a decoder."""
        if event.kind == _OPEN:
            self._open(decoder, event)
            return
        shared = self._shared.get(event.stream)
        if shared is None:
            return  # ignored, but of the same batch
        if event.kind == _DATA:
            self._data(decoder, event, shared)
        elif event.kind == _GAP:
            for taker in shared.takers:
                taker.gap(event.stream, event.direction, event.position, event.length, event.time)
        else:
            del self._shared[event.stream]
            for taker in reversed(shared.heirs):
                taker.end(event.stream, event.time, over=event.position)

    def _open(self, decoder: Decoder, event: StreamEvent) -> None:
        stream = event.stream
        flow, roles_known = decoder.flow_key(stream), decoder.roles_known(stream)
        takers = [each for each in self._takers if each.open(stream, flow, roles_known, event.time)]
        if takers:
            self._shared[stream] = _Shared(takers, list(takers))
        else:
            decoder.ignore(stream)

    def _data(self, decoder: Decoder, event: StreamEvent, shared: _Shared) -> None:
        _, stream, direction, time, position, _, data = event
        gone = shared.takers
        if len(gone) == 1:  # most often: a connection has one protocol
            if gone[0].data(stream, direction, position, time, data):
                return
        elif not (gone := [each for each in gone if not each.data(stream, direction, position, time, data)]):
            return
        shared.takers = [each for each in shared.takers if each not in gone]
        shared.heirs = [each for each in shared.heirs if each.hears_end or each not in gone]
        if not shared.heirs:
            del self._shared[stream]
            decoder.ignore(stream)
        elif not shared.takers:
            decoder.mute(stream)

    def close(self) -> None:
        """No event follows."""
        self._shared.clear()
        for taker in reversed(self._takers):
            taker.close()
