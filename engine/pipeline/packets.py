"""The packet path: frames go through the protocol handlers and then through the counters. Loop thread only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from engine.plugins.plugin import Plugin
from engine.values.errors import ScriptLoadError

_ROUNDS = 8  # protocols that handlers name one above the other
_FRAMES_AT_ONCE = 256  # given to a hook between two looks at the clock
_FRAME_BYTES = 304  # of `offpath_frame_t`


class PacketPath:
    """Numbers the protocols that scripts name, and feeds frames to the plugins with packet hooks.

    A frame is dissected once. Its layers lie in memory that all states read; protocol handlers add theirs there.
    """

    def __init__(self, plugins: Sequence[Plugin], slice_seconds: float) -> None:
        """`plugins` is the live list of the engine."""
        self._plugins = plugins
        self._slice = slice_seconds
        self._numbers: dict[bytes, tuple[int, bytes]] = {}
        self._guests: dict[int, int] = {}

    def admit(self, plugin: Plugin) -> None:
        """Number the protocols of a plugin that is not on the list yet. Raises `ScriptLoadError`."""
        if not plugin.block.packets:
            return
        for guid, (number, name) in self._numbers.items():
            plugin.learn_protocol(number, guid, name)
        first, most = plugin.protocol_numbers
        for guid, name in plugin.named_protocols():
            number = first + len(self._numbers)
            if number > most:
                raise ScriptLoadError(plugin.script, "load", f"scripts name more than {most - first + 1} protocols")
            self._numbers[guid] = number, name
            for each in (*self._takers(), plugin):
                each.learn_protocol(number, guid, name)
        for host, number in self._guests.items():
            plugin.learn_guest(host, number)
        if plugin.guest is not None:
            host, number = plugin.guest
            self._guests[host] = number
            for each in (*self._takers(), plugin):
                each.learn_guest(host, number)

    def begin(self) -> None:
        """Another capture follows."""
        for plugin in self._plugins:
            plugin.new_capture()

    def _takers(self) -> list[Plugin]:
        return [plugin for plugin in self._plugins if plugin.block.packets and plugin.hooks]

    async def feed(self, frames: int, count: int, resume: Callable[[], None]) -> None:
        """Give the frames of a batch, at that address, to all hooks. The loop gets its turn when time has passed.

        The memory of the frames must stay as it is until this returns. `resume` has those dissected further in which a
        protocol handler named a protocol of the dissector's own.
        """
        takers = self._takers()
        began = await self._parse(
            [each for each in takers if each.block.name == "protocol_handler"], frames, count, resume
        )
        for plugin in takers:
            if plugin.block.name != "protocol_handler":
                _, began = await self._run(plugin, frames, count, began)

    async def _parse(self, handlers: list[Plugin], frames: int, count: int, resume: Callable[[], None]) -> float:
        """Run handlers until none names what comes next, but for loops of them."""
        began = time.perf_counter()
        for round_ in range(_ROUNDS + 1):
            naming = 0
            for plugin in handlers:
                more, began = await self._run(plugin, frames, count, began, named_only=round_ > 0)
                naming += more
            if not naming:
                break
            resume()
        return began

    async def _run(
        self, plugin: Plugin, frames: int, count: int, began: float, *, named_only: bool = False
    ) -> tuple[int, float]:
        """Run one hook, some frames at a time: how many name what comes next, and when the loop last had its turn."""
        naming = 0
        for at in range(0, count, _FRAMES_AT_ONCE):
            if time.perf_counter() - began > self._slice:
                await asyncio.sleep(0)
                began = time.perf_counter()
            if plugin.closed:
                break
            number = min(_FRAMES_AT_ONCE, count - at)
            naming += plugin.packets(frames + at * _FRAME_BYTES, number, at, named_only=named_only)
        return naming, began
