"""A script as a source: its inputfilter makes packets and alerts (spec 2.16). Loop thread only."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from engine.capture.batches import Batch
from engine.capture.decoder import Decoder
from engine.capture.reel import Reel
from engine.capture.source import CaptureFormat
from engine.plugins.plugin import Plugin
from engine.values.errors import EngineError
from engine.values.sources import Script
from engine.values.stats import SourceStats

_ROOM = 8 << 20  # bytes of packets; a batch ends after one mebibyte, and one step may add the rest
_SLICE_SECONDS = 0.002
_POLL_SECONDS = 0.1  # between two looks for alerts when there were none (spec 9.2 H24)
_ALERTS_AT_ONCE = 256


def find_input(source: Script, plugins: Iterable[Plugin]) -> Plugin | None:
    """The inputfilter of a script, when it is loaded."""
    path = Path(source.path).absolute()
    inputs = (plugin for plugin in plugins if plugin.block.name == "inputfilter")
    return next((plugin for plugin in inputs if Path(plugin.host.script.path) == path), None)


def script_reel(source: Script, plugins: Iterable[Plugin], now: Callable[[], float]) -> ScriptReel:
    """What reads a script that is loaded. Raises `EngineError` when it is no source."""
    plugin = find_input(source, plugins)
    if plugin is None or not plugin.hooks:
        raise EngineError(f"{source.path}: has no inputfilter with step or step_alert, or it is disabled")
    return ScriptReel(plugin, now())


class _Stretch(NamedTuple):
    address: int
    size: int
    format: CaptureFormat


class ScriptReel(Reel):
    """Calls `step` until it says that there is no more, and `step_alert` in between.

    A batch is a number of calls, not a time, so that the same script gives the same batches. The loop gets its turn in
    the middle of one.
    """

    def __init__(self, plugin: Plugin, began: float) -> None:
        self._plugin = plugin
        self._memory = mmap.mmap(-1, _ROOM)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._waiting: deque[_Stretch] = deque()
        self._decoding = False
        self._steps = "step" in plugin.hooks
        self._alerts = "step_alert" in plugin.hooks
        self._idle = False
        self._stopped = asyncio.Event()
        self._time = 0.0
        plugin.begin_input(self._address, _ROOM, began)

    async def next(self, decoder: Decoder, packets: int) -> Batch | None:
        """The next batch, which has no packets where the script only told the engine something; None at the end."""
        if not self._waiting and not self._decoding:
            if self._over or not (self._steps or self._alerts):
                return None
            await self._fill(packets)
        if not self._decoding:
            if not self._waiting:
                return Batch(0, False, self._time)
            address, size, fmt = self._waiting.popleft()
            decoder.begin_parts(self._plugin.script, fmt, address, size, last=True)
        batch = decoder.step(packets + 1)  # the end of the records is one more thing to read
        self._decoding = not batch.done
        return batch._replace(done=False)

    async def _fill(self, calls: int) -> None:
        plugin = self._plugin
        if self._idle:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), _POLL_SECONDS)
        while calls > 0 and self._steps and not self._over:
            made, self._steps, full = plugin.step(calls, _SLICE_SECONDS)
            calls -= made
            if full:
                break
            await asyncio.sleep(0)
        if plugin.closed:
            return
        polled = 0
        if self._alerts and not self._over:
            polled, goes_on = plugin.step_alert(_ALERTS_AT_ONCE)
            # With the last packet the input is at its end, and so are the alerts that there are by then.
            self._alerts = goes_on and (self._steps or "step" not in plugin.hooks or polled == _ALERTS_AT_ONCE)
        self._idle = not self._steps and polled == 1
        self._take()

    def _take(self) -> None:
        self._time, size, *stretches = self._plugin.input_packets()
        ends = [int(each) for each in (*stretches[1::2], size)]
        for at, link in enumerate(stretches[::2]):
            first, last = ends[at], ends[at + 1]
            fmt = CaptureFormat("pcap", 0, big_endian=sys.byteorder == "big", link_type=int(link))
            self._waiting.append(_Stretch(self._address + first, last - first, fmt))

    @property
    def _over(self) -> bool:
        return self._plugin.closed or self._stopped.is_set()

    def stop(self) -> None:
        """As in the base class; but packets that were made come out."""
        self._stopped.set()

    def stats(self) -> SourceStats:
        """No files are read."""
        return SourceStats()

    def close(self) -> None:
        """As in the base class."""
        self._stopped.set()
        self._waiting.clear()
        self._memory.close()
