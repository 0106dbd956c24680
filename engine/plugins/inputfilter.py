"""A script as a source: its inputfilter makes packets and alerts (spec 2.16). Loop thread only."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.capture.decoder import Batch, Decoder, PassingCapture
from engine.capture.source import CaptureFormat
from engine.plugins.plugin import Plugin
from engine.values.errors import EngineError

_ROOM = 8 << 20  # bytes of packets; a batch ends after one mebibyte, and one step may add the rest
_SLICE_SECONDS = 0.002
_POLL_SECONDS = 0.1  # between two looks for alerts when there were none (spec 9.2 H24)
_ALERTS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Script:
    """A script with an inputfilter as a source: what it makes is decoded like a capture. Its times are stream time."""

    path: str | Path

    def find(self, plugins: Iterable[Plugin]) -> Plugin | None:
        """Its inputfilter, when it is loaded."""
        name = Path(self.path).name
        found = (plugin for plugin in plugins if plugin.block.name == "inputfilter" and plugin.script == name)
        return next(found, None)


def script_reel(source: Script, plugins: Iterable[Plugin]) -> ScriptReel:
    """What reads a script that is loaded. Raises `EngineError` when it is no source."""
    plugin = source.find(plugins)
    if plugin is None or not plugin.hooks:
        raise EngineError(f"{source.path}: has no inputfilter with step or step_alert, or it is disabled")
    return ScriptReel(plugin)


class ScriptReel:
    """Calls `step` until it says that there is no more, and `step_alert` in between.

    A batch is a number of calls, not a time, so that the same script gives the same batches. The loop gets its turn in
    the middle of one.
    """

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin
        self._memory = mmap.mmap(-1, _ROOM)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._waiting: deque[PassingCapture] = deque()
        self._decoding = False
        self._steps = "step" in plugin.hooks
        self._alerts = "step_alert" in plugin.hooks
        self._idle = False
        self._time = 0.0
        plugin.begin_input(self._address, _ROOM, time.time())

    async def next(self, decoder: Decoder, packets: int) -> Batch | None:
        """The next batch, which has no packets where the script only told the engine something; None at the end."""
        if not self._waiting and not self._decoding:
            if self._plugin.closed or not (self._steps or self._alerts):
                return None
            await self._fill(packets)
        if not self._decoding:
            if not self._waiting:
                return Batch(0, False, self._time, [])
            decoder.begin_more(self._waiting.popleft())
        batch = decoder.step(packets + 1)  # the end of the records is one more thing to read
        self._decoding = not batch.done
        return batch._replace(done=False)

    async def _fill(self, calls: int) -> None:
        plugin = self._plugin
        if self._idle:
            await asyncio.sleep(_POLL_SECONDS)
        while calls > 0 and self._steps and not plugin.closed:
            made, self._steps, full = plugin.step(calls, _SLICE_SECONDS)
            calls -= made
            if full:
                break
            await asyncio.sleep(0)
        if plugin.closed:
            return
        polled = 0
        if self._alerts:
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
            self._waiting.append(PassingCapture(self._plugin.script, self._address + first, last - first, fmt))

    def close(self) -> None:
        """Let go of the memory; the decoder must not read any more."""
        self._waiting.clear()
        self._memory.close()
