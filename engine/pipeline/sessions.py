"""Flows as monitors of sessions hear of them: new, changed, over (spec 2.5). Loop thread only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.pipeline.flush_slices import Slices
from engine.pipeline.held import FLOWS, FlowItem, HeldItems, flow_fields
from engine.plugins.plugin import Plugin
from engine.values.records import Flow

_SNAPSHOT_SECONDS = 300.0
"""How often flows that go on are flushed (spec 1.12)."""


class Sessions:
    """Knows which flows were seen, by what there is of them once a second."""

    def __init__(self, plugins: Sequence[Plugin], held: HeldItems, slices: Slices) -> None:
        """`plugins` is the live list of the engine."""
        self._plugins = plugins
        self._held = held
        self._slices = slices
        self._packets: dict[str, int] = {}
        self._shown: dict[str, float] = {}

    @property
    def watches(self) -> bool:
        """Whether some plugin hears of flows while they go on."""
        return any(plugin.hooks & {"onnewflow", "onupdate"} for plugin in self._monitors())

    @property
    def wanted(self) -> bool:
        """Whether some plugin hears of flows at all."""
        return self._held.wanted(FLOWS) or any(
            plugin.hooks & {"onnewflow", "onupdate", "onterminate"} for plugin in self._monitors()
        )

    def _monitors(self) -> list[Plugin]:
        return [plugin for plugin in self._plugins if plugin.block.name == "sg_monitor"]

    def begin(self) -> None:
        """Another source has flows of its own."""
        self._packets.clear()
        self._shown.clear()

    async def look(self, slices_of_flows: Iterable[Iterable[Flow]], now: float) -> None:
        """Tell of flows that are new, and of those with packets since the last time."""
        monitors = self._monitors()
        for flows in slices_of_flows:
            for flow in flows:
                await self._tell_of(monitors, flow, now)
            await self._slices.breathe()

    async def _tell_of(self, monitors: Sequence[Plugin], flow: Flow, now: float) -> None:
        packets = flow.a_packets + flow.z_packets
        before = self._packets.get(flow.id)
        if packets == before:
            return
        self._packets[flow.id] = packets
        fields = flow_fields(FlowItem(flow, over=False))
        for hook in ("onnewflow", "onupdate") if before is None else ("onupdate",):
            await self._slices.tell(monitors, hook, now, *fields)

    async def snapshots(self, slices_of_flows: Iterable[Iterable[Flow]], now: float) -> None:
        """Have flows flushed that have gone on for so long, since they began or were flushed last."""
        if not self._held.wanted(FLOWS):
            return
        for flows in slices_of_flows:
            for flow in flows:
                if now - self._shown.get(flow.id, flow.start) >= _SNAPSHOT_SECONDS:
                    self._shown[flow.id] = now
                    self._held.hold(FLOWS, FlowItem(flow, over=False, snapshot=True))
            await self._slices.breathe()

    async def end(self, flow: Flow) -> bool:
        """A flow is over: onterminate, then it is held for the next flush. False when its record must go out now."""
        monitors, now = self._monitors(), flow.end
        self._shown.pop(flow.id, None)
        if self.watches:
            await self._tell_of(monitors, flow, now)
        self._packets.pop(flow.id, None)
        item = FlowItem(flow, over=True)
        await self._slices.tell(monitors, "onterminate", now, *flow_fields(item))
        return self._held.hold(FLOWS, item)
