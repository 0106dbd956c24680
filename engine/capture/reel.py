"""What a run reads from: it gives batch after batch, and ends. Loop thread only."""

from __future__ import annotations

from typing import Protocol

from engine.capture.decoder import Batch, Decoder
from engine.capture.source import MappedCapture


class Reel(Protocol):
    """A source that is being read, into one decoder."""

    async def next(self, decoder: Decoder, packets: int) -> Batch | None: ...
    def close(self) -> None: ...


class CaptureReel:
    """One capture file."""

    def __init__(self, mapped: MappedCapture) -> None:
        self._mapped = mapped
        self._begun = self._done = False

    async def next(self, decoder: Decoder, packets: int) -> Batch | None:
        """The next batch of at most so many packets, or None at the end."""
        if self._done:
            return None
        if not self._begun:
            self._begun = True
            decoder.begin(self._mapped)
        batch = decoder.step(packets)
        self._done = batch.done
        return batch

    def close(self) -> None:
        """Unmap the file."""
        self._mapped.close()
