"""Capture files, one after the other, into one decoder. Loop thread only; what blocks is done in a thread."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path

from engine.capture.batches import Batch
from engine.capture.decoder import Decoder
from engine.capture.folder import Found, find_captures
from engine.capture.reel import Reel, Warn, off_loop
from engine.capture.source import MappedCapture, open_capture
from engine.values.errors import CaptureError
from engine.values.stats import SourceStats


class FilesReel(Reel):
    """Each file is mapped only while it is decoded; with several, those that can't be opened are skipped.

    A file that somebody shortens while it is read is the last one, and a `failure`.
    """

    def __init__(
        self, paths: Sequence[str | Path], warn: Warn, *, search: bool = True, loops: int = 1, span: float = math.inf
    ) -> None:
        """Without `search` there is one path, of a file. Packets of a batch are at most `span` seconds apart."""
        self._paths = tuple(paths)
        self._warn = warn
        self._search = search
        self._loops = loops
        self._span = span
        self._files: list[Found] | None = None
        self._at = 0
        self._mapped: MappedCapture | None = None
        self._spent: MappedCapture | None = None  # decoded, but frames of the last batch lie in it
        self._stopped = False
        self._stats = SourceStats()
        self._shift = 0.0
        self._latest: float | None = None
        self._ending = False  # between two passes, while the streams of the first are ended

    async def next(self, decoder: Decoder, packets: int) -> Batch | None:
        """As in the base class. The streams of a pass end before the next pass begins."""
        self._close_spent()
        if self._files is None:
            await self._find()
        if self._ending:
            batch = decoder.finish()
            if batch.done:
                self._ending = False
                for _ in decoder.forget():
                    await asyncio.sleep(0)
            return batch
        while not self._stopped:
            if self._mapped is not None or await self._open(decoder):
                if self._mapped is not None and self._mapped.shortened:
                    self._give_up(self._mapped)
                    break
                batch = decoder.step(packets)
                if batch.packets:
                    self._latest = batch.time
                if batch.done:
                    self._spent, self._mapped = self._mapped, None
                return batch
            if not self._rewind():
                break
            return await self.next(decoder, packets)
        return None

    async def _find(self) -> None:
        if not self._search:
            self._files = [Found(Path(self._paths[0]), None)]
            return
        findings = await off_loop(lambda stopped: find_captures(self._paths, stopped), _ignore)
        for each in findings.skipped:
            self._skip(each)
        self._files = findings.captures

    async def _open(self, decoder: Decoder) -> bool:
        """Open the next file that can be opened; False when there is none."""
        assert self._files is not None
        while self._at < len(self._files) and not self._stopped:
            path = self._files[self._at].path
            self._at += 1
            try:
                mapped = await off_loop(
                    lambda stopped, path=path: open_capture(path, stopped=stopped),  # type: ignore[misc]
                    MappedCapture.close,
                )
            except CaptureError as exc:
                if len(self._files) == 1:
                    raise
                self._skip(exc)
                continue
            if mapped.cut_off:
                self._warn(str(path), f"the {mapped.compressed} stream in it ends early or is broken")
            self._mapped = mapped
            self._stats = SourceStats(files=self._stats.files + 1, skipped=self._stats.skipped)
            decoder.begin(mapped, shift=self._shift, span=self._span)
            return True
        return False

    def _give_up(self, shortened: MappedCapture) -> None:
        """A file that must not be touched any more ends all reading."""
        self.failure = CaptureError(shortened.path, "was shortened while it was read: what is left of it was not")
        self._stopped = True

    def _rewind(self) -> bool:
        """To the next pass, if there is one: its first packet has the time of the last one of this pass."""
        assert self._files is not None
        first = self._files[0].first
        if self._loops <= 1 or first is None or self._latest is None or self._stopped:
            return False
        self._loops -= 1
        self._shift = max(self._latest - first, self._shift)
        self._at, self._ending = 0, True
        return True

    def _skip(self, error: CaptureError) -> None:
        self._stats = SourceStats(files=self._stats.files, skipped=self._stats.skipped + 1)
        self._warn(error.path, f"{error.reason}: skipped")

    def stop(self) -> None:
        """As in the base class."""
        self._stopped = True

    def stats(self) -> SourceStats:
        """As in the base class."""
        return self._stats

    def _close_spent(self) -> None:
        spent, self._spent = self._spent, None
        if spent is not None:
            spent.close()

    def close(self) -> None:
        """As in the base class."""
        self._stopped = True
        self._close_spent()
        self._spent, self._mapped = self._mapped, None
        self._close_spent()


def _ignore(_found: object) -> None:
    """There is nothing to close."""
