"""Reads one capture after the other for an engine, and keeps what all of them counted. Loop thread only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

from engine.capture.decoder import Decoder
from engine.capture.extract import FileExtractor
from engine.capture.ramfs import Ramfs
from engine.pipeline.captures import Capture, CaptureRun, add_decode, add_http, open_run
from engine.pipeline.packets import PacketPath
from engine.plugins.filex import FilexVotes
from engine.plugins.plugin import Plugin
from engine.values.config import Config
from engine.values.errors import EngineError
from engine.values.records import File, Flow, Http
from engine.values.stats import DecodeStats, HttpStats


class CaptureReader:
    """At most one capture at a time, with an extractor for its files when someone wants them."""

    def __init__(
        self,
        config: Config,
        ramfs: Callable[[], Ramfs],
        publish: Callable[[Http | File], None],
        warn: Callable[[Plugin, str], None],
    ) -> None:
        """`ramfs` gives the directory of extracted files; `warn(plugin, text)` takes warnings about votes."""
        self._config = config
        self._ramfs = ramfs
        self._publish = publish
        self._warn = warn
        self._run: CaptureRun | None = None
        self._leases: list[int] = []
        self._decoded, self._http = DecodeStats(), HttpStats()

    @property
    def active(self) -> bool:
        """Whether a capture is being read."""
        return self._run is not None

    def begin(self, source: Capture, plugins: Sequence[Plugin], *, streams: bool, packets: PacketPath) -> None:
        """Open a capture. `plugins` are those with file hooks; without `streams` only packets and flows are counted.

        `packets` gets the frames of each batch.

        Raises `CaptureError` when it can't be read, and `EngineError` when another one is being read.
        """
        if self._run is not None:
            raise EngineError(f"cannot run {source.path}: another source is being read")
        extractor = self._make_extractor(plugins) if streams else None
        self._run = open_run(
            source,
            lambda: Decoder(self._config.limits, streams=streams),
            extractor,
            packets,
            self._config.slice_seconds,
        )

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
            self._decoded, self._http = self.decode_stats(), self.http_stats()
            self._run = None

    def decode_stats(self) -> DecodeStats:
        """Counts of packets, flows and streams of all captures so far."""
        return add_decode(self._decoded, self._run.decode_stats()) if self._run else self._decoded

    def http_stats(self) -> HttpStats:
        """Counts of HTTP messages and bodies of all captures so far."""
        return add_http(self._http, self._run.http_stats()) if self._run else self._http
