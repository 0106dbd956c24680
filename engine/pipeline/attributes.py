"""Attributes of connections: what is found in them, told to scripts at once (spec 2.11, 2.12). Loop thread only."""

from __future__ import annotations

from collections.abc import Sequence

from engine.plugins.plugin import Plugin
from engine.plugins.reassembly import ReassemblyHandlers
from engine.plugins.votes import Ballot

_BEGIN, _END = b"", b"^D"


class Attributes:
    """Goes to reassembly handlers, for connections that their vote let pass, and to flow monitors, for all."""

    def __init__(self, handlers: ReassemblyHandlers, monitors: Sequence[Plugin]) -> None:
        self._handlers = handlers
        self._monitors = Ballot(monitors, lambda _plugin, _text: None)
        self._monitored = self._monitors.any_has("onflowattribute")

    @property
    def wanted(self) -> bool:
        """Whether any plugin hears of attributes."""
        return self._monitored or self._handlers.wants_attributes

    def wanted_of(self, flow: bytes) -> bool:
        """Whether any plugin hears of those of a connection that is open now."""
        return self._monitored or (self._handlers.wants_attributes and self._handlers.keeps(flow))

    def tell(self, time: float, flow: bytes, name: bytes, value: bytes) -> None:
        """Something was found."""
        self._handlers.attribute(time, flow, name, value)
        self._monitors.tell("onflowattribute", time, 0, flow, name, value)


class FlowMarks:
    """Tells of the beginning and the end of each connection, as a taker of streams that wants none of their bytes."""

    hears_end = True

    def __init__(self, attributes: Attributes) -> None:
        self._attributes = attributes
        self._open: dict[int, tuple[bytes, float]] = {}

    def open(self, stream: int, flow: bytes, roles_known: bool, time: float) -> bool:
        """A connection began."""
        del roles_known
        if not self._attributes.wanted_of(flow):
            return False
        self._open[stream] = flow, time
        self._attributes.tell(time, flow, _BEGIN, b"")
        return True

    def data(self, stream: int, direction: int, position: int, time: float, data: bytes) -> bool:
        """Never wants more."""
        del direction, position, data
        self._open[stream] = self._open[stream][0], time
        return False

    def gap(self, stream: int, direction: int, position: int, length: int, time: float) -> None:
        """Nothing to be done."""

    def end(self, stream: int, time: float, *, over: int) -> None:
        """The connection is over."""
        del over
        flow, _ = self._open.pop(stream)
        self._attributes.tell(time, flow, _END, b"")

    def close(self) -> None:
        """The run is cut short."""
        for stream, (_, time) in tuple(self._open.items()):
            self.end(stream, time, over=0)
