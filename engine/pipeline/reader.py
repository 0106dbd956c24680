"""Reads one source after the other for an engine, and keeps what all of them counted. Loop thread only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from engine.capture.batches import FlowBytes
from engine.capture.decoder import Decoder
from engine.capture.measures import Measures
from engine.capture.reel import Warn
from engine.pipeline.analysis import Takers
from engine.pipeline.captures import Breathe, CaptureRun, RunOn, TakeFlows, Turn, add_decode, add_source, make_reel
from engine.pipeline.pace import Pace
from engine.pipeline.packets import PacketPath
from engine.pipeline.storage import PacketStore
from engine.pipeline.world import World
from engine.plugins.plugin import Plugin
from engine.values.config import Config
from engine.values.errors import CaptureError, EngineError
from engine.values.records import Flow
from engine.values.sources import Replay, Script, Source, name_of
from engine.values.stats import DecodeStats, SourceStats


class CaptureReader:
    """At most one source at a time."""

    def __init__(
        self,
        config: Config,
        plugins: Sequence[Plugin],
        packets: PacketPath,
        store: PacketStore,
        warn_of_source: Warn,
        world: World,
    ) -> None:
        """`plugins` is the live list of the engine; `packets` and `store` get the frames of each batch."""
        self._plugins = plugins
        self._packets = packets
        self._store = store
        self._warn_of_source = warn_of_source
        self._config = config
        self._world = world
        self._run: CaptureRun | None = None
        self.used = False
        """Whether there ever was a source."""
        self._decoded, self._source = DecodeStats(), SourceStats()
        self.measures: Measures | None = None
        """What is counted of the source that is read, for counter groups of the platform."""

    @property
    def active(self) -> bool:
        """Whether a source is being read."""
        return self._run is not None

    @property
    def shows_flows(self) -> bool:
        """Whether packets have been read of a source, and its flows may be looked at now."""
        return self._run is not None and self._run.shows_flows

    def begin(self, source: Source, takers: Callable[[], Takers], measured: Callable[[], Collection[str]]) -> None:
        """Get ready for a source. `takers()` says what is read of it, `measured()` for which groups it is counted.

        Raises `EngineError` when another one is being read, or when there is no place to store packets.
        """
        if self._run is not None:
            raise EngineError(f"cannot run {name_of(source)}: another source is being read")
        reel = make_reel(source, self._plugins, self._warn_of_source, self._world.wall)
        pace = self._pace(source)
        wanted = takers()
        decoder = self._make_decoder(wanted)
        store = self._store if self._store.wanted else None
        try:
            if store is not None:
                store.begin(decoder)
            self.measures = decoder.measure(measured(), self._config.homenets)
        except BaseException:
            decoder.close()
            reel.close()
            raise
        seconds = self._config.slice_seconds
        self.used = True
        self._run = CaptureRun(reel, pace, decoder, wanted, self._packets, store, self._wants_frames, seconds)

    def _pace(self, source: Source) -> Pace | None:
        if isinstance(source, Replay):
            return Pace(source.speed)
        return Pace(1.0) if isinstance(source, Script) and self._world.simulated else None

    def _wants_frames(self) -> bool:
        """For packet hooks and the store. Any frontend hook may ask for a flow counter, which begins at a packet."""
        return self._store.wanted or any(each.hooks and each.block.side == "frontend" for each in self._plugins)

    def _make_decoder(self, wanted: Takers) -> Decoder:
        datagrams = wanted.datagrams
        return Decoder(
            self._config.limits,
            streams=wanted.streams is not None,
            udp_ports=datagrams.udp_ports if datagrams else (),
            quic_ports=datagrams.quic_ports if datagrams else (),
        )

    async def read(
        self,
        follow: Callable[[float], None],
        breathe: Breathe,
        take_flows: TakeFlows,
        turn: Turn,
        run_on: RunOn,
    ) -> None:
        """To the end of the source. `follow(time)` hears of stream time; `breathe` is awaited between batches.

        `take_flows` gets the flows that are over, after everything that their packets caused; `turn` is awaited where
        windows end, and `run_on` is asked before each batch how far it may go (`CaptureRun.read`).
        Raises `CaptureError` when it can't be opened.
        """
        assert self._run is not None
        await self._run.read(follow, breathe, take_flows, turn, run_on)

    def end(self) -> None:
        """The source ends after the present batch, if one is being read."""
        if self._run is not None:
            self._run.end()

    @property
    def failure(self) -> CaptureError | None:
        """What ended the source too early, after some of it was read."""
        return self._run.failure if self._run is not None else None

    def flows(self) -> Iterator[Iterator[Flow]]:
        """The flow records of the source, some thousand at a time; none when there is no source."""
        return self._run.flows() if self._run is not None else iter(())

    def close_source(self) -> None:
        """Unfinished bodies end, in hooks, too; then the source is closed and its counts are kept."""
        if self._run is not None:
            self.measures = None
            self._run.close()
            self._decoded, self._source = self.decode_stats(), self.source_stats()
            self._run = None

    @property
    def flow_limit(self) -> int:
        """The most flows that a source may have at once."""
        return self._config.limits.flows

    def flow_bytes(self, key: bytes, place: int, time: float) -> FlowBytes | None:
        """What a flow of the source has carried; None when there is no such flow, or no source."""
        return self._run.flow_bytes(key, place, time) if self._run is not None else None

    def forget_over(self) -> None:
        """From now on there is no flow any more that is over."""
        if self._run is not None:
            self._run.forget_over()

    def source_stats(self) -> SourceStats:
        """Counts of all sources so far."""
        return add_source(self._source, self._run.source_stats()) if self._run else self._source

    def decode_stats(self) -> DecodeStats:
        """Counts of packets, flows and streams of all captures so far."""
        return add_decode(self._decoded, self._run.decode_stats()) if self._run else self._decoded
