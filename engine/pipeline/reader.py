"""Reads one source after the other for an engine, and keeps what all of them counted. Loop thread only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

from engine.capture.decoder import Decoder
from engine.capture.extract import FileExtractor
from engine.capture.ramfs import Ramfs
from engine.capture.reel import Warn
from engine.pipeline.captures import CaptureRun, add_decode, add_http, add_source, make_reel
from engine.pipeline.pace import Pace
from engine.pipeline.packets import PacketPath
from engine.plugins.filex import FilexVotes
from engine.plugins.plugin import Plugin
from engine.values.config import Config
from engine.values.errors import CaptureError, EngineError
from engine.values.records import File, Flow, Http
from engine.values.sources import Replay, Source, name_of
from engine.values.stats import DecodeStats, HttpStats, SourceStats


class CaptureReader:
    """At most one source at a time, with an extractor for its files when someone wants them."""

    def __init__(
        self,
        config: Config,
        ramfs: Callable[[], Ramfs],
        publish: Callable[[Http | File], None],
        warn: Callable[[Plugin, str], None],
        warn_of_source: Warn,
    ) -> None:
        """`ramfs` gives the directory of extracted files; `warn(plugin, text)` takes warnings about votes."""
        self._warn_of_source = warn_of_source
        self._config = config
        self._ramfs = ramfs
        self._publish = publish
        self._warn = warn
        self._run: CaptureRun | None = None
        self._leases: list[int] = []
        self._decoded, self._http, self._source = DecodeStats(), HttpStats(), SourceStats()

    @property
    def active(self) -> bool:
        """Whether a source is being read."""
        return self._run is not None

    def begin(self, source: Source, plugins: Sequence[Plugin], *, streams: bool, packets: PacketPath) -> None:
        """Get ready for a source. `plugins` are those with file hooks; without `streams` only flows are counted.

        `packets` gets the frames of each batch. Raises `EngineError` when another one is being read.
        """
        if self._run is not None:
            raise EngineError(f"cannot run {name_of(source)}: another source is being read")
        reel = make_reel(source, self._warn_of_source)
        pace = Pace(source.speed) if isinstance(source, Replay) else None
        extractor = self._make_extractor(plugins) if streams else None
        decoder = Decoder(self._config.limits, streams=streams)
        self._run = CaptureRun(reel, pace, decoder, extractor, packets, self._config.slice_seconds)

    def _make_extractor(self, plugins: Sequence[Plugin]) -> FileExtractor:
        votes = FilexVotes(plugins, self._warn, self._keep)
        return FileExtractor(
            self._config.limits, self._ramfs(), votes, self._publish, chunk_bytes=self._config.chunk_bytes
        )

    def _keep(self, lease: int) -> None:
        """Tasks of a file's hook are still in an outbox when the hook returns: the file stays until they are out."""
        self._ramfs().hold(lease)
        self._leases.append(lease)

    def outboxes_taken(self) -> None:
        """The tasks of all hooks are out, and hold the files that they need."""
        for lease in self._leases:
            self._ramfs().release(lease)
        self._leases.clear()

    async def read(self, follow: Callable[[float], None], breathe: Callable[[], Awaitable[None]]) -> None:
        """To the end of the source. `follow(time)` hears of stream time; `breathe` is awaited between batches.

        Raises `CaptureError` when it can't be opened.
        """
        assert self._run is not None
        await self._run.read(follow, breathe)

    def end(self) -> None:
        """The source ends after the present batch, if one is being read."""
        if self._run is not None:
            self._run.end()

    @property
    def failure(self) -> CaptureError | None:
        """What ended the source too early, after some of it was read."""
        return self._run.failure if self._run is not None else None

    def flows(self) -> Iterator[list[Flow]]:
        """The flow records of the source, some thousand at a time."""
        assert self._run is not None
        return self._run.flows()

    def close_source(self) -> None:
        """Unfinished bodies end, in hooks, too; then the source is closed and its counts are kept."""
        if self._run is not None:
            self._run.close()
            self._decoded, self._http = self.decode_stats(), self.http_stats()
            self._source = self.source_stats()
            self._run = None

    def source_stats(self) -> SourceStats:
        """Counts of all sources so far."""
        return add_source(self._source, self._run.source_stats()) if self._run else self._source

    def decode_stats(self) -> DecodeStats:
        """Counts of packets, flows and streams of all captures so far."""
        return add_decode(self._decoded, self._run.decode_stats()) if self._run else self._decoded

    def http_stats(self) -> HttpStats:
        """Counts of HTTP messages and bodies of all captures so far."""
        return add_http(self._http, self._run.http_stats()) if self._run else self._http
