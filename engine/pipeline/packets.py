"""The packet path: frames go through the protocol handlers and then through the counters. Loop thread only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from engine.plugins.plugin import Plugin
from engine.values.errors import ScriptLoadError

_ROUNDS = 8  # protocols that handlers name one above the other


class PacketPath:
    """Numbers the protocols that scripts name, and feeds frames to the plugins with packet hooks.

    A frame is dissected once. Its layers lie in memory that all states read; protocol handlers add theirs there.
    """

    def __init__(self, plugins: Sequence[Plugin], slice_seconds: float) -> None:
        """`plugins` is the live list of the engine."""
        self._plugins = plugins
        self._slice = slice_seconds
        self._numbers: dict[bytes, tuple[int, bytes]] = {}

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

    @property
    def wanted(self) -> bool:
        """Whether some plugin has a packet hook."""
        return bool(self._takers())

    def _takers(self) -> list[Plugin]:
        return [plugin for plugin in self._plugins if plugin.block.packets and plugin.hooks]

    async def feed(self, address: int, count: int) -> None:
        """Give the frames of a batch to all hooks. The loop gets its turn between two plugins when time has passed.

        The memory of the frames must stay as it is until this returns.
        """
        began = time.perf_counter()
        takers = self._takers()
        self._parse([plugin for plugin in takers if plugin.block.name == "protocol_handler"], address, count)
        for plugin in takers:
            if plugin.block.name == "protocol_handler" or plugin.closed:
                continue
            if time.perf_counter() - began > self._slice:
                await asyncio.sleep(0)
                began = time.perf_counter()
                if plugin.closed:
                    continue
            plugin.packets(address, count)

    def _parse(self, handlers: list[Plugin], address: int, count: int) -> None:
        """Run handlers until none names what comes next, but for loops of them."""
        naming = sum(plugin.packets(address, count) for plugin in handlers)
        for _ in range(_ROUNDS):
            if not naming:
                return
            naming = sum(plugin.packets(address, count, named_only=True) for plugin in handlers)
