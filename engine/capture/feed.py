"""Packets that the program brings wait in a `Feed`, and are laid out as records of a capture. Loop thread only."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

from engine.capture.batches import Batch
from engine.capture.decoder import Decoder
from engine.capture.reel import Reel
from engine.capture.source import CaptureFormat
from engine.values.errors import EngineError
from engine.values.sources import Feed
from engine.values.stats import SourceStats

_ROOM = 4 << 20  # bytes of records at once
_RECORD = struct.Struct("=IIII")
_TICKS = 1_000_000_000  # in a second
_LATEST = 2**32 - 1  # seconds
_QUIET_SECONDS = 0.25  # without a packet, after which stream time goes on


class FeedReel(Reel):
    """Takes what waits in a feed, a stretch of memory at a time."""

    wall_time = True

    def __init__(self, feed: Feed, now: Callable[[], float]) -> None:
        """`now` is the wall's clock. Raises `EngineError` when the feed has been read before."""
        if feed.is_read:
            raise EngineError(f"{feed.name}: a feed can be read once, make another")
        feed.is_read = True
        self._feed = feed
        self._now = now
        self._memory = mmap.mmap(-1, _ROOM)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._woken = asyncio.Event()
        self._decoding = self._passing = False
        feed.on_change = self._woken.set

    async def next(self, decoder: Decoder, packets: int) -> Batch | None:
        """As in the base class. A batch without packets comes when there were none for a while."""
        if self._passing:
            return self._pass_time(decoder)
        if not self._decoding:
            self._feed.in_hand = 0
            if not (self._feed.waiting or self._feed.ended):
                await self._wait()
            if not self._feed.waiting:
                return None if self._feed.ended else self._pass_time(decoder)
            self._lay_out(decoder)
        batch = decoder.step(packets + 1)  # the end of the records is one more thing to read
        self._decoding = not batch.done
        return batch._replace(done=False)

    async def _wait(self) -> None:
        self._woken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_QUIET_SECONDS):
                await self._woken.wait()

    def _lay_out(self, decoder: Decoder) -> None:
        feed, used = self._feed, 0
        while feed.waiting and used + _RECORD.size + len(feed.waiting[0][1]) <= _ROOM:
            time, packet = feed.take()
            ticks = min(max(0, round(time * _TICKS)), _LATEST * _TICKS)
            _RECORD.pack_into(self._memory, used, *divmod(ticks, _TICKS), len(packet), len(packet))
            used += _RECORD.size
            self._memory[used : used + len(packet)] = packet
            used += len(packet)
            feed.in_hand += 1
        fmt = CaptureFormat("pcap", 0, sys.byteorder == "big", _TICKS, feed.link_type)
        decoder.begin_parts(feed.name, fmt, self._address, used, last=True)
        self._decoding = True

    def _pass_time(self, decoder: Decoder) -> Batch:
        batch = decoder.pass_time(self._now())
        self._passing = not batch.done
        return batch._replace(done=False)

    def stop(self) -> None:
        """As in the base class; but packets that came before are handled."""
        self._feed.end()

    def stats(self) -> SourceStats:
        """As in the base class."""
        return SourceStats(received=self._feed.received, dropped=self._feed.dropped)

    def close(self) -> None:
        """As in the base class."""
        self._feed.end()
        self._feed.in_hand = 0
        self._memory.close()
