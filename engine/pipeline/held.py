"""What was published since the last flush and waits for the votes of monitors. Loop thread only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from engine.plugins.plugin import Plugin
from engine.values.records import Alert, Document, Flow, Record, Resource

_CLOSED, _TERMINATED, _TIMED_OUT = 0x00C0, 0x0800, 0x0100  # of the state of a flow (spec 3.3)

_A_PAYLOAD, _Z_PAYLOAD, _SETUP_RTT, _RETRANSMISSIONS = "4", "5", "6", "7"  # meters of a flow (spec 3.1)


class FlowItem(NamedTuple):
    """A flow as monitors of sessions see it."""

    record: Flow
    over: bool
    snapshot: bool = False
    """The flow goes on: hooks are called, and no record is made."""

    @property
    def state(self) -> int:
        """Bits of spec 3.3."""
        flow = self.record
        if not self.over:
            return flow.state
        return flow.state | (_TERMINATED if flow.state & _CLOSED or flow.terminated else _TIMED_OUT)


Item = Alert | Resource | Document | FlowItem


@dataclass(frozen=True, slots=True)
class ItemKind:
    """How items of a script type cross to Lua, and what hooks may change of them (flushitems.lua)."""

    block: str
    group: Callable[[Any], str]
    fields: Callable[[Any], tuple[Any, ...]]
    width: int
    change: Callable[[Any, Mapping[str, Any]], Any]


def alert_fields(alert: Alert) -> tuple[Any, ...]:
    """As `alert` of flushitems.lua takes them."""
    extra = b"".join(b"%b\0%b\0" % (_raw(name), _raw(str(value))) for name, value in alert.extra.items())
    texts = (_raw(alert.flow), _raw(alert.sigid), _raw(alert.classification))
    return *texts, alert.priority, _raw(alert.message), _raw(alert.status), alert.time, extra


def document_fields(document: Document) -> tuple[Any, ...]:
    """As `document` of flushitems.lua takes them."""
    return _raw(document.flow), document.id.encode(), _raw(document.text), document.time


def flow_fields(item: FlowItem) -> tuple[Any, ...]:
    """As `flow` of flushitems.lua takes them: what was measured, and what scripts added to it by `update_flow`."""
    flow, meters = item.record, item.record.meters
    payload = (flow.a_payload + meters.get(_A_PAYLOAD, 0), flow.z_payload + meters.get(_Z_PAYLOAD, 0))
    counts = (flow.a_bytes, flow.z_bytes, flow.a_packets, flow.z_packets, *payload)
    setup_rtt = meters.get(_SETUP_RTT, flow.setup_rtt)
    rest = (_raw(flow.tags), setup_rtt, flow.retransmissions + meters.get(_RETRANSMISSIONS, 0))
    return _raw(flow.id), int(flow.start), int(flow.end), item.state, *counts, *rest


def _resource_fields(resource: Resource) -> tuple[Any, ...]:
    return _raw(resource.flow), _raw(resource.uri), _raw(resource.contents), resource.time


def _changed_alert(alert: Alert, changes: Mapping[str, Any]) -> Alert:
    extra = dict(alert.extra)
    if "extra_message" in changes:
        extra["extra_message"] = _text(changes["extra_message"])
    message = _text(changes["message"]) if "message" in changes else alert.message
    return replace(alert, priority=int(changes.get("priority", alert.priority)), message=message, extra=extra)


def _changed_record(record: Any, changes: Mapping[str, Any]) -> Any:
    return replace(record, **{name: _text(value) for name, value in changes.items()})


def _changed_flow(item: FlowItem, changes: Mapping[str, Any]) -> FlowItem:
    return item._replace(record=_changed_record(item.record, changes))


ALERTS = ItemKind("alert_monitor", lambda alert: alert.group, alert_fields, 8, _changed_alert)
RESOURCES = ItemKind("resource_monitor", lambda resource: resource.group, _resource_fields, 4, _changed_record)
DOCUMENTS = ItemKind("fts_monitor", lambda document: document.group, document_fields, 4, _changed_record)
FLOWS = ItemKind("sg_monitor", lambda _item: "", flow_fields, 13, _changed_flow)

ITEM_KINDS = (ALERTS, RESOURCES, DOCUMENTS)
"""In the order in which they are flushed (spec 9.2 H13); flows follow."""


class HeldItems:
    """Items by kind, bounded. What comes past a limit is not held: it goes out at once, without a vote."""

    def __init__(self, plugins: Sequence[Plugin], limit: int, flow_limit: int) -> None:
        """`plugins` is the live list of the engine; the limits are for items of each kind, and for flows."""
        self._plugins = plugins
        self._limits = {ALERTS.block: limit, RESOURCES.block: limit, DOCUMENTS.block: limit, FLOWS.block: flow_limit}
        self._items: dict[str, deque[Item]] = {block: deque() for block in self._limits}
        self.unvoted = 0
        """Items past the limits."""

    def wanted(self, kind: ItemKind, group: str = "") -> bool:
        """Whether some plugin votes on, or sees, items of a group when they are flushed."""
        for plugin in self._plugins:
            block = plugin.block.name
            if kind is FLOWS and block == "flowtracker" and "getmetric" in plugin.hooks:
                return True
            meant = block == kind.block and (kind is FLOWS or plugin.group == group)
            if meant and plugin.hooks & {"flushfilter", "onflush"}:
                return True
        return False

    def hold(self, kind: ItemKind, item: Item) -> bool:
        """Keep an item for the next flush. False when it must go out now: nobody votes on it, or too many wait."""
        if not self.wanted(kind, kind.group(item)):
            return False
        items = self._items[kind.block]
        if len(items) >= self._limits[kind.block]:
            self.unvoted += 1
            return False
        items.append(item)
        return True

    def take(self, kind: ItemKind) -> list[Any]:
        """All items of a kind, which are held no longer."""
        items, self._items[kind.block] = self._items[kind.block], deque()
        return list(items)

    def take_records(self) -> list[Record]:
        """Everything that is held, as records."""
        held = [item for kind in (*ITEM_KINDS, FLOWS) for item in self.take(kind)]
        return [
            item.record if isinstance(item, FlowItem) else item
            for item in held
            if not isinstance(item, FlowItem) or not item.snapshot
        ]

    def __len__(self) -> int:
        return sum(map(len, self._items.values()))


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
