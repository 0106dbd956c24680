"""Records: the typed values that leave the engine. Times are seconds since the epoch, bytes are wire bytes.

`kind` is the name under which a record is subscribed to and the first key of its JSON line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Flow:
    """One 5-tuple, both directions. A and Z are ordered as in the flow key (spec 3.2)."""

    kind: ClassVar[str] = "flow"
    id: str
    proto: str
    a_ip: str
    a_port: int
    z_ip: str
    z_port: int
    a_packets: int
    z_packets: int
    a_bytes: int
    z_bytes: int
    start: float
    end: float
    tags: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What scripts added with `add_flow_attribute`, by name."""
    meters: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Meters 4 to 7 as scripts updated them; 0 to 3 are in the counts above."""
    duration: float | None = None
    """Seconds, where a script said so."""
    terminated: bool = False
    """A script called `terminate_flow`."""


@dataclass(frozen=True, slots=True)
class Http:
    """One HTTP exchange; `status` is 0 when its response was not captured."""

    kind: ClassVar[str] = "http"
    flow: str
    method: str
    host: str
    uri: str
    status: int
    content_type: str
    time: float


@dataclass(frozen=True, slots=True)
class File:
    """One HTTP body, decoded. `size` is in bytes; `complete` is false after a gap, a cut or a decode error."""

    kind: ClassVar[str] = "file"
    flow: str
    path: str
    uri: str
    size: int
    direction: str
    """``"request"`` or ``"response"``."""
    method: str
    host: str
    status: int
    content_type: str
    complete: bool
    reason: str
    """Why it is not complete: ``""``, ``"gap"``, ``"cut"``, ``"decode"`` or ``"limit"``."""
    time: float


@dataclass(frozen=True, slots=True)
class Alert:
    """What `engine:add_alert` and its kin recorded. `flow` is ``""`` when the alert is tied to none."""

    kind: ClassVar[str] = "alert"
    group: str
    flow: str
    sigid: str
    classification: str
    priority: int
    message: str
    status: str
    script: str
    time: float
    extra: Mapping[str, str | int] = field(default_factory=dict, hash=False)
    """What an input filter's alert had beyond that: ``source_ip``, ``sig_rev``, ``event_id`` and so on."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What `engine:add_resource` recorded."""

    kind: ClassVar[str] = "resource"
    group: str
    flow: str
    uri: str
    contents: str
    script: str
    time: float


@dataclass(frozen=True, slots=True)
class Counter:
    """The sum of one meter of one key, over a run."""

    kind: ClassVar[str] = "counter"
    group: str
    key: str
    meter: int
    value: float


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A label for a key (`update_key_info`), or one named attribute of it (`set_key_attribute`)."""

    kind: ClassVar[str] = "key"
    group: str
    key: str
    name: str
    """``"label"``, ``"description"`` or the attribute's name."""
    value: str


@dataclass(frozen=True, slots=True)
class FlowUpdate:
    """What a script said of a flow: `name` is ``tag``, ``attribute:NAME``, ``meter:N``, ``duration``, ``terminate``."""

    kind: ClassVar[str] = "flow_update"
    flow: str
    name: str
    value: str
    script: str
    time: float


@dataclass(frozen=True, slots=True)
class Edge:
    """One directed edge between two keys (`add_edge`, `add_flow_edges`)."""

    kind: ClassVar[str] = "edge"
    from_group: str
    from_key: str
    to_group: str
    to_key: str


@dataclass(frozen=True, slots=True)
class Log:
    """A line from a script or about one. `level` is a name of `T.K.loglevel`."""

    kind: ClassVar[str] = "log"
    level: str
    script: str
    text: str
    time: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Every count of a run, the last record of it."""

    kind: ClassVar[str] = "summary"
    packets: int
    seconds: float
    counts: dict[str, int]


Record = Flow | Http | File | Alert | Resource | Counter | KeyInfo | FlowUpdate | Edge | Log | Summary

RECORD_TYPES: dict[str, type[Record]] = {
    each.kind: each for each in (Flow, Http, File, Alert, Resource, Counter, KeyInfo, FlowUpdate, Edge, Log, Summary)
}


def as_mapping(record: Record) -> dict[str, Any]:
    """The record as a plain mapping, `kind` first; a summary's counts are laid flat beside `packets`."""
    values: dict[str, Any] = {"kind": record.kind}
    for each in fields(record):
        value = getattr(record, each.name)
        if each.name == "counts":
            values.update(value)
        else:
            values[each.name] = value
    return values
