"""Reads one capture after the other for an engine, and keeps what all of them counted. Loop thread only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from engine.capture.decoder import Decoder
from engine.pipeline.analysis import Takers
from engine.pipeline.captures import Capture, CaptureRun, add_decode, open_run
from engine.pipeline.packets import PacketPath
from engine.values.config import Config
from engine.values.errors import EngineError
from engine.values.records import Flow
from engine.values.stats import DecodeStats


class CaptureReader:
    """At most one capture at a time."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._run: CaptureRun | None = None
        self._decoded = DecodeStats()

    @property
    def active(self) -> bool:
        """Whether a capture is being read."""
        return self._run is not None

    def begin(self, source: Capture, takers: Callable[[], Takers], packets: PacketPath | None) -> None:
        """Open a capture. `takers()` says what is to be read of it; `packets` gets the frames of each batch.

        Raises `CaptureError` when it can't be read, and `EngineError` when another one is being read.
        """
        if self._run is not None:
            raise EngineError(f"cannot run {source.path}: another source is being read")
        wanted = takers()
        self._run = open_run(
            source, lambda: self._make_decoder(wanted, packets), wanted, packets, self._config.slice_seconds
        )

    def _make_decoder(self, wanted: Takers, packets: PacketPath | None) -> Decoder:
        datagrams = wanted.datagrams
        return Decoder(
            self._config.limits,
            streams=wanted.streams is not None,
            frames=packets is not None,
            udp_ports=datagrams.udp_ports if datagrams else (),
            quic_ports=datagrams.quic_ports if datagrams else (),
        )

    async def read(self, follow: Callable[[float], None], breathe: Callable[[], Awaitable[None]]) -> None:
        """To the end of the capture. `follow(time)` hears of stream time; `breathe` is awaited between batches."""
        assert self._run is not None
        await self._run.read(follow, breathe)

    def flows(self) -> Iterator[list[Flow]]:
        """The flow records of the capture, some thousand at a time."""
        assert self._run is not None
        return self._run.flows()

    def close_capture(self) -> None:
        """Unfinished bodies end, in hooks, too; then the capture is closed and its counts are kept."""
        if self._run is not None:
            self._run.close()
            self._decoded = self.decode_stats()
            self._run = None

    def decode_stats(self) -> DecodeStats:
        """Counts of packets, flows and streams of all captures so far."""
        return add_decode(self._decoded, self._run.decode_stats()) if self._run else self._decoded
