"""How `reassembly_handler` plugins vote on connections and get their bytes (spec 2.11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.plugins.plugin import Plugin
from engine.plugins.votes import Ballot


@dataclass(slots=True)
class _Flow:
    key: bytes
    time: float
    takers: list[Plugin]
    """Plugins with onpayload that have not given it up."""


class ReassemblyHandlers:
    """All reassembly_handler plugins as one taker of streams.

    A connection that one of them wants, all get: their filters are a vote. One that a script gives up
    (`engine:disable_reassembly`) brings it no more bytes, but its attributes and its end.
    """

    def __init__(self, plugins: Sequence[Plugin], log: Callable[[Plugin, str], None]) -> None:
        """`log(plugin, text)` takes warnings about votes."""
        self._ballot = Ballot(plugins, log)
        self._takers = [plugin for plugin in plugins if "onpayload" in plugin.hooks]
        self._flows: dict[int, _Flow] = {}
        self._streams: dict[bytes, int] = {}
        self.wanted = any(plugin.hooks for plugin in plugins)
        self.wants_attributes = self._ballot.any_has("onattribute")
        self.hears_end = self.wants_attributes or self._ballot.any_has("onterminateflow")

    def open(self, stream: int, flow: bytes, roles_known: bool, time: float) -> bool:  # noqa: ARG002
        """A connection began: the vote, then onnewflow. Whether any plugin wants it."""
        takers = [plugin for plugin in self._takers if not plugin.closed]
        for plugin in takers:
            plugin.new_flow(flow)
        if not self._ballot.vote("filter", time, flow):
            return False
        self._flows[stream] = _Flow(flow, time, takers)
        self._streams[flow] = stream
        self._ballot.tell("onnewflow", time, 0, flow)
        return True

    def data(self, stream: int, direction: int, position: int, time: float, data: bytes) -> bool:
        """The next bytes, whose direction hooks are told the reverse of. Whether more of them are wanted."""
        flow = self._flows[stream]
        flow.time = time
        for plugin in tuple(flow.takers):
            if plugin.closed or plugin.payload(time, flow.key, 1 - direction, position, data):
                flow.takers.remove(plugin)
        if not (flow.takers or self.hears_end):
            self._forget(stream)
        return bool(flow.takers)

    def gap(self, stream: int, direction: int, position: int, length: int, time: float) -> None:
        """Bytes are missing: the next chunk's position says so."""

    def end(self, stream: int, time: float, *, over: int) -> None:
        """The connection was closed, timed out, or its capture is over."""
        del over
        self._ballot.tell("onterminateflow", time, 0, self._forget(stream))

    def _forget(self, stream: int) -> bytes:
        key = self._flows.pop(stream).key
        del self._streams[key]
        return key

    def close(self) -> None:
        """The run is cut short: what is still open ends."""
        for stream, flow in tuple(self._flows.items()):
            self.end(stream, flow.time, over=0)

    def attribute(self, time: float, flow: bytes, name: bytes, value: bytes) -> None:
        """Something was found in a connection; told where the vote let it pass."""
        if flow in self._streams:
            self._ballot.tell("onattribute", time, 0, flow, name, value)

    def keeps(self, flow: bytes) -> bool:
        """Whether the vote let a connection pass that is open now."""
        return flow in self._streams

    def give_up(self, plugin: Plugin, flow: bytes) -> None:
        """A plugin wants no more bytes of a connection."""
        stream = self._streams.get(flow)
        if stream is not None and plugin in self._flows[stream].takers:
            self._flows[stream].takers.remove(plugin)
