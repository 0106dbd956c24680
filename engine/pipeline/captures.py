"""Reading a source: decode in slices, streams and datagrams to takers, flows to records. Loop thread only."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import fields

from engine.capture.batches import Batch, EventKind, FlowBytes, StreamEvent
from engine.capture.decoder import Decoder
from engine.capture.feed import FeedReel
from engine.capture.files import FilesReel
from engine.capture.live import LiveReel
from engine.capture.pipe import PipeReel
from engine.capture.reel import Reel, Warn
from engine.pipeline.analysis import Datagrams, Takers
from engine.pipeline.pace import Pace
from engine.pipeline.packets import PacketPath
from engine.pipeline.storage import PacketStore
from engine.plugins.inputfilter import script_reel
from engine.plugins.plugin import Plugin
from engine.values.errors import CaptureError
from engine.values.records import Flow
from engine.values.sources import Capture, Captures, Feed, Live, Pipe, Replay, Script, Source, name_of
from engine.values.stats import DecodeStats, SourceStats

# Packets of a step: few at first, while the compiler still works on the decoder. They grow by number and not by time,
# so that a capture is cut into the same batches at every run.
_FIRST_STEP = 16
_LARGEST_STEP = 2_048
_STEPS_OF_A_SIZE = 4

# Seconds of stream time that a batch of a replay spans: its hooks run at the time of its last packet. Elsewhere batches
# are cut by number alone: to cut them so cost ten times the packets themselves, where only a few come in a second.
_REPLAY_SPAN = 0.25

_PIECE = 4_096  # bytes of one stream fed at a time: they may hold 40 messages, or a thousand times as much when decoded


_make_event = tuple.__new__  # half the cost of calling StreamEvent

Breathe = Callable[[], Awaitable[None]]
TakeFlows = Callable[[Iterator[Flow], Breathe], Awaitable[None]]
Turn = Callable[[float], Awaitable[float]]
RunOn = Callable[[], tuple[float, bool]]
"""From when on seconds are wanted, and whether batches go on past flows that are over (`Decoder.run_on`)."""


class CaptureRun:
    """One pass over a source."""

    def __init__(
        self,
        reel: Reel,
        pace: Pace | None,
        decoder: Decoder,
        takers: Takers,
        packets: PacketPath,
        store: PacketStore | None,
        wants_frames: Callable[[], bool],
        slice_seconds: float,
    ) -> None:
        """Without takers only flows are counted; `packets` and `store` get the frames while they are wanted."""
        self._reel = reel
        self._pace = pace
        self._decoder = decoder
        self._takers = takers
        self._packets = packets
        self._store = store
        self._wants_frames = wants_frames
        self._slice = slice_seconds
        self._steps = 0
        self.shows_flows = False
        """Whether flows may be looked at: not while those that are over lie in their place."""

    async def read(
        self,
        follow: Callable[[float], None],
        breathe: Breathe,
        take_flows: TakeFlows,
        turn: Turn,
        run_on: RunOn,
    ) -> None:
        """To the end of the source. `follow(time)` hears of stream time; `breathe` is awaited between batches.

        `take_flows` gets the flows that are over, after everything that their packets caused. `turn(time)` is awaited
        when the window of the packets before is over, with the time of the next packet; it says when the window of that
        one ends. `run_on` is asked before each batch.
        Raises `CaptureError` when the source can't be opened.
        """
        self._packets.begin()
        if not self._reel.wall_time:
            self._decoder.end_window(-math.inf)
        began = time.perf_counter()
        while (batch := await self._next_batch(run_on)) is not None:
            if batch.packets and self._pace is not None:
                await self._pace.wait(batch.time)
                began = time.perf_counter()
            if batch.time and not self._reel.wall_time:
                follow(batch.time)
            if batch.frame_count:
                await self._packets.feed(batch.frames, batch.frame_count, self._decoder.resume)
                if self._store is not None:
                    await self._store.ask(batch)
            if self._takers.datagrams is not None:
                await self._read_datagrams(self._takers.datagrams, batch)
            await self._handle(batch.each_event(), began)
            if batch.frame_count and self._store is not None:
                await self._store.keep(batch)
            self.shows_flows = bool(batch.packets) and not batch.flows
            await breathe()
            began = time.perf_counter()
            if batch.flows:
                await take_flows(self._decoder.flows_over(batch), breathe)
                self.shows_flows = True
                await breathe()
            if batch.turn < math.inf:
                self._decoder.end_window(await turn(batch.turn))
                began = time.perf_counter()
        done = False
        while not done:
            batch = self._decoder.finish()
            done = batch.done
            await self._handle(batch.each_event(), time.perf_counter())
            await breathe()
        if self._store is not None:
            await self._store.flush()

    async def _next_batch(self, run_on: RunOn) -> Batch | None:
        self._decoder.want_frames(self._wants_frames())
        # The store looks for the rows of flows while their packets are handled: none may be gone by then. Datagrams of
        # a batch are read before its streams, so what is found in both is in the order of seconds.
        if not self._reel.wall_time and self._store is None and self._takers.datagrams is None:
            wanted_at, over = run_on()
            self._decoder.run_on(wanted_at, over=over)
        return await self._reel.next(self._decoder, self._next_step())

    def _next_step(self) -> int:
        size = min(_FIRST_STEP << self._steps // _STEPS_OF_A_SIZE, _LARGEST_STEP)
        self._steps += 1
        return size

    async def _handle(self, events: Iterator[StreamEvent], began: float) -> None:
        """Feed the takers; hooks run in here, so the loop gets its turn in the middle of a batch, too."""
        streams = self._takers.streams
        if streams is None:
            return
        decoder, feed, clock, slice_ = self._decoder, streams.feed, time.perf_counter, self._slice
        for event in events:
            for piece in _pieces(event) if event.length > _PIECE else (event,):
                feed(decoder, piece)
                if clock() - began > slice_:
                    await asyncio.sleep(0)
                    began = clock()

    async def _read_datagrams(self, datagrams: Datagrams, batch: Batch) -> None:
        """Their bytes stay where they are until the next step, so the loop gets its turn here, too."""
        began = time.perf_counter()
        for datagram in self._decoder.datagrams(batch):
            datagrams.take(datagram)
            if time.perf_counter() - began > self._slice:
                await asyncio.sleep(0)
                began = time.perf_counter()

    def end(self) -> None:
        """Read no further than the present batch."""
        self._reel.stop()
        if self._pace is not None:
            self._pace.end()

    @property
    def failure(self) -> CaptureError | None:
        """What ended the source too early, after some of it was read."""
        return self._reel.failure

    def flows(self) -> Iterator[Iterator[Flow]]:
        """The flow records, some thousand at a time."""
        return self._decoder.flow_records()

    def flow_bytes(self, key: bytes, place: int, time: float) -> FlowBytes | None:
        """What a flow has carried (`Decoder.flow_bytes`)."""
        return self._decoder.flow_bytes(key, place=place, time=time)

    def forget_over(self) -> None:
        """From now on flows that are over have carried nothing (`Decoder.forget_over`)."""
        self._decoder.forget_over()

    def decode_stats(self) -> DecodeStats:
        """Counts of packets, flows and streams so far."""
        return self._decoder.stats()

    def source_stats(self) -> SourceStats:
        """Counts of the source so far."""
        return self._reel.stats()

    def close(self) -> None:
        """Give up files that are open, the Lua state and the source. Idempotent."""
        if self._takers.streams is not None:
            self._takers.streams.close()
        self._decoder.close()
        self._reel.close()


def _pieces(event: StreamEvent) -> Iterator[StreamEvent]:
    if event.kind != EventKind.DATA:
        yield event
        return
    for at in range(0, event.length, _PIECE):
        data = event.data[at : at + _PIECE]
        yield _make_event(
            StreamEvent, (event.kind, event.stream, event.direction, event.time, event.position + at, len(data), data)
        )


def make_reel(source: Source, plugins: Sequence[Plugin], warn: Warn, now: Callable[[], float]) -> Reel:
    """What reads a source. Nothing is opened yet; `warn` hears of files that are skipped or cut off;
    `now` is the wall's clock.

    Raises `EngineError` for a script that none of the plugins is of.
    """
    match source:
        case Capture(path):
            return FilesReel([path], warn, search=False)
        case Captures(paths):
            return FilesReel(paths, warn)
        case Replay(paths, _, loops):
            return FilesReel(paths, warn, loops=loops, span=_REPLAY_SPAN)
        case Pipe(descriptor):
            return PipeReel(descriptor, name_of(source), warn)
        case Script():
            return script_reel(source, plugins, now)
        case Feed():
            return FeedReel(source, now)
        case Live():
            return LiveReel(
                source.interface,
                promiscuous=source.promiscuous,
                seconds=source.seconds,
                packets=source.packets,
                megabytes=source.ring_mb,
            )


def add_source(left: SourceStats, right: SourceStats) -> SourceStats:
    """The sum of two runs' counts."""
    return SourceStats(**{each.name: getattr(left, each.name) + getattr(right, each.name) for each in fields(left)})


def add_decode(left: DecodeStats, right: DecodeStats) -> DecodeStats:
    """The sum of two runs' counts."""
    return DecodeStats(**{each.name: getattr(left, each.name) + getattr(right, each.name) for each in fields(left)})
