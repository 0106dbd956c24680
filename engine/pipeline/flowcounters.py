"""What scripts say of flows, until the flows become records: tags, attributes, meters, counters. Loop thread only."""

from __future__ import annotations

import itertools
import math
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from engine.capture.batches import FlowBytes
from engine.pipeline.deliveries import Deliveries
from engine.pipeline.records import RecordBus
from engine.plugins.plugin import Plugin
from engine.stream.counters import Counters
from engine.values.flowkeys import PROTOCOL_NAMES, canonical, endpoints
from engine.values.records import Flow, FlowUpdate

_TAG_BYTES = 64
_ATTRIBUTES = 64  # of one flow
_SLICE = 500  # flow records, or flows with counters, that are dealt with at once
_SETUP_RTT = 6  # the one meter that is no sum
_OUT, _IN = 1, 2


Breathe = Callable[[], Awaitable[None]]


class Sessions(Protocol):
    """Who hears of flows that are over."""

    @property
    def wanted(self) -> bool: ...
    async def end(self, flow: Flow) -> bool: ...


class Flows(Protocol):
    """Where flows are looked up."""

    @property
    def flow_limit(self) -> int: ...
    def flow_bytes(self, key: bytes, place: int, time: float) -> FlowBytes | None: ...
    def forget_over(self) -> None: ...


@dataclass(slots=True)
class _Notes:
    """Of one flow."""

    first: float
    last: float = 0.0
    tags: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    meters: dict[int, float] = field(default_factory=dict)
    duration: float | None = None
    terminated: bool = False


_CounterName = tuple[str, str, int, int]  # group, key, meter, direction


class FlowBook:
    """Keeps notes on at most so many flows; what is said of others is counted as dropped."""

    def __init__(
        self,
        bus: RecordBus,
        counters: Counters,
        deliveries: Deliveries,
        plugins: Sequence[Plugin],
        flows: Flows,
    ) -> None:
        """`plugins` is the live list of the engine."""
        self._bus = bus
        self._counters = counters
        self._deliveries = deliveries
        self._plugins = plugins
        self._limit = flows.flow_limit
        self._look, self._look_at_no_more = flows.flow_bytes, flows.forget_over
        self._notes: dict[str, _Notes] = {}
        self._counting: dict[bytes, dict[_CounterName, FlowBytes | None]] = {}  # by flow; None: it comes later
        self._counters_open = 0
        self.sessions: Sessions | None = None
        """Hears of flows that are over, and may hold their records back."""
        self.dropped = 0
        """Updates past the limits."""

    # ---- what scripts say

    def update(self, update: FlowUpdate, raw_flow: bytes) -> None:
        """Note an update, and tell it to monitors; the record of it goes out, too."""
        self._bus.publish(update)
        name, _, detail = update.name.partition(":")
        if name == "record":
            values = tuple(int(each) for each in update.value.split())
            self._deliveries.tell(self._plugins, "onnewflowrecord", update.time, (raw_flow, *values))
            return
        notes = self._notes_on(update)
        if notes is None:
            self.dropped += 1
        elif name == "tag":
            notes.tags = _tagged(notes.tags, update.value)
        elif name == "attribute":
            if len(notes.attributes) < _ATTRIBUTES or detail in notes.attributes:
                notes.attributes[detail] = update.value
            else:
                self.dropped += 1
        elif name == "duration":
            notes.duration = float(update.value)
        elif name == "terminate":
            notes.terminated = True
        if name == "meter":
            self._meter(notes, int(detail), float(update.value), update.time, raw_flow)

    def _meter(self, notes: _Notes | None, meter: int, value: float, time: float, raw_flow: bytes) -> None:
        if not math.isfinite(value):
            self.dropped += 1
            return
        if notes is not None:
            notes.meters[meter] = value if meter == _SETUP_RTT else notes.meters.get(meter, 0.0) + value
        self._deliveries.tell(self._plugins, "onflowmetric", time, (raw_flow, meter, value))

    def _notes_on(self, update: FlowUpdate) -> _Notes | None:
        notes = self._notes.get(update.flow)
        if notes is None:
            if len(self._notes) >= self._limit:
                return None
            notes = self._notes[update.flow] = _Notes(update.time)
        notes.last = update.time
        return notes

    def add_counter(self, time: float, place: int, flow: bytes, name: _CounterName) -> None:
        """From now on every packet of a flow adds its bytes to a counter. One that is there already goes on."""
        flow = canonical(flow)
        if name in self._counting.get(flow, ()):
            return
        if self._counters_open >= self._limit:
            self.dropped += 1
            return
        self._counting.setdefault(flow, {})[name] = self._look(flow, place, time)
        self._counters_open += 1

    def reset_counters(self, time: float, place: int, flow: bytes, group: str) -> None:
        """End the counters of a group on a flow; what they have counted stays."""
        flow = canonical(flow)
        counting = self._counting.get(flow, {})
        ending = {name: counting.pop(name) for name in list(counting) if name[0] == group}
        if not counting:
            self._counting.pop(flow, None)
        self._end_counters(ending, self._look(flow, place, time) if ending else None)

    def _end_counters(self, ending: Mapping[_CounterName, FlowBytes | None], now: FlowBytes | None) -> None:
        """Count what a flow has carried since its counters began; nothing when there was no such flow."""
        self._counters_open -= len(ending)
        if now is not None:
            for name, began in ending.items():
                self._count(name, began, now)

    def _count(self, name: _CounterName, began: FlowBytes | None, now: FlowBytes) -> None:
        group, key, meter, direction = name
        a_bytes, z_bytes = now.a_bytes, now.z_bytes
        if began is not None:
            a_bytes, z_bytes = a_bytes - began.a_bytes, z_bytes - began.z_bytes
        # Where no SYN was seen, Z is the server: it has the lower port.
        out, back = (z_bytes, a_bytes) if now.client == 2 else (a_bytes, z_bytes)
        value = out if direction == _OUT else back if direction == _IN else out + back
        if value:
            self._counters.add(group, key, meter, value)

    async def end_window(self, breathe: Callable[[], Awaitable[None]]) -> None:
        """Count what flows have carried since their counters began, or since the window before; the counters go on."""
        counted = list(self._counting)
        for at in range(0, len(counted), _SLICE):
            for flow in counted[at : at + _SLICE]:
                counting = self._counting.get(flow)
                now = self._look(flow, -1, math.inf) if counting else None
                if counting and now is not None:
                    for name, began in counting.items():
                        self._count(name, began, now)
                        counting[name] = now
            await breathe()

    # ---- what comes of it

    def begin(self) -> None:
        """Another source has flows of its own."""
        waiting: dict[bytes, dict[_CounterName, FlowBytes | None]] = {
            flow: {name: None for name, began in counting.items() if began is None}
            for flow, counting in self._counting.items()
        }
        self._counting = {flow: counting for flow, counting in waiting.items() if counting}
        self._counters_open = sum(len(counting) for counting in self._counting.values())

    async def end(self, flows: Iterator[Flow], breathe: Breathe) -> None:
        """Flows are over while their source goes on: end their counters, and make their records, with what was noted.

        `flows` makes them as they are taken: nothing is made of them when nobody wants records, or said something.
        """
        ended = list(flows) if self.wanted else []
        for flow in ended if self._counting else ():
            self._end_all(flow.id.encode(), flow.end)
        self._look_at_no_more()
        await self._make_records(iter(ended), breathe)

    async def flush(self, flows: Iterator[Iterator[Flow]], breathe: Breathe) -> None:
        """End all counters, and make the records of all flows, with what was noted; `breathe` is awaited in between."""
        counted = list(self._counting)
        for at in range(0, len(counted), _SLICE):
            for flow in counted[at : at + _SLICE]:
                self._end_all(flow)
            await breathe()
        if not self._wants_records:
            self._notes.clear()
            return
        for records in flows:
            await self._make_records(records, breathe)
        made = [(key, notes) for key, notes in self._notes.items() if notes.meters]
        self._notes.clear()
        for at in range(0, len(made), _SLICE):
            for key, notes in made[at : at + _SLICE]:
                await self._publish(_with_notes(_flow_of(key, notes), notes))
            await breathe()

    def _end_all(self, flow: bytes, time: float = math.inf) -> None:
        """End the counters of a flow; of one that is over as it was then, another may have come of the same key."""
        ending = self._counting.pop(flow, None)
        if ending:
            self._end_counters(ending, self._look(flow, -1, time))

    @property
    def wanted(self) -> bool:
        """Whether the end of a flow makes a difference."""
        return bool(self._wants_records or self._notes or self._counting)

    @property
    def _monitors(self) -> int:
        return sum("onnewflowrecord" in plugin.hooks for plugin in self._plugins)

    @property
    def _wants_records(self) -> bool:
        return self._tells_plugins or self._bus.wants("flow")

    async def _make_records(self, flows: Iterator[Flow], breathe: Breathe) -> None:
        """As many at once as may be told to monitors before these must have their turn."""
        wanted, size = self._wants_records, _SLICE // max(1, self._monitors) or 1
        while some := list(itertools.islice(flows, size)):
            told = self._tells_plugins  # loaded or unloaded in a turn of the loop, and none comes unless they are told
            for flow in some:
                notes = self._notes.pop(flow.id, None)
                if not wanted:
                    continue
                record = _with_notes(flow, notes) if notes else flow
                if told:
                    await self._publish(record)
                else:
                    self._bus.publish(record)
            await breathe()

    @property
    def _tells_plugins(self) -> bool:
        return bool(self._monitors) or (self.sessions is not None and self.sessions.wanted)

    async def _publish(self, flow: Flow) -> None:
        if self.sessions is None or not self.sessions.wanted or not await self.sessions.end(flow):
            self._bus.publish(flow)
        values = flow.id.encode(), flow.a_bytes, flow.z_bytes, flow.a_packets, flow.z_packets
        self._deliveries.tell(self._plugins, "onnewflowrecord", flow.end, values)


def _tagged(tags: str, tag: str) -> str:
    """Tags with one more, once, while the text of them all stays under 64 bytes (spec 9.3 O12, O13)."""
    longer = f"{tags}|{tag}" if tags else tag
    return tags if tag in tags.split("|") or len(longer.encode()) >= _TAG_BYTES else longer


def _with_notes(flow: Flow, notes: _Notes) -> Flow:
    """Meters 0 to 3 are the flow's own counts, and add to them."""
    own = [int(notes.meters.get(meter, 0)) for meter in range(4)]
    return replace(
        flow,
        a_bytes=flow.a_bytes + own[0],
        z_bytes=flow.z_bytes + own[1],
        a_packets=flow.a_packets + own[2],
        z_packets=flow.z_packets + own[3],
        tags=notes.tags,
        attributes=notes.attributes,
        meters={str(meter): value for meter, value in sorted(notes.meters.items()) if meter > 3},
        duration=notes.duration,
        terminated=notes.terminated,
    )


def _flow_of(key: str, notes: _Notes) -> Flow:
    """The record of a flow that scripts made up; its parts are empty when its key is malformed."""
    ends = endpoints(key)
    number = int(ends.protocol, 16) if ends else 0
    return Flow(
        id=key,
        proto=PROTOCOL_NAMES.get(number, str(number)) if ends else "",
        a_ip=_address(ends.a_ip) if ends else "",
        a_port=int(ends.a_port[2:], 16) if ends else 0,
        z_ip=_address(ends.z_ip) if ends else "",
        z_port=int(ends.z_port[2:], 16) if ends else 0,
        a_packets=0,
        z_packets=0,
        a_bytes=0,
        z_bytes=0,
        start=notes.first,
        end=notes.last,
    )


def _address(text: str) -> str:
    try:
        raw = bytes.fromhex(text.replace(".", ""))
        return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
    except ValueError:
        return ""
