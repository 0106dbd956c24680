"""The registry of groups, built in or of scripts. The same GUID may name groups of two kinds (spec 1.8)."""

from __future__ import annotations

from enum import Enum

from engine.stream.builtin_groups import COUNTER_GROUPS, METER_TYPES, NAMED_GROUPS
from engine.values.windows import CounterGroup, Meter, MeterType, NamedGroup

Group = CounterGroup | NamedGroup

_TOPPERS = 10  # of each meter of a group that is built in


class Registered(Enum):
    """What became of a group that is to be registered."""

    NEW = "new"
    SAME = "same"
    """It is there as it is."""
    OTHER = "other"
    """There is another with its GUID, which stays (spec 9.1 L12)."""


def kind_of(group: Group) -> str:
    """The kind of a group: counter, alert, resource, fts or session."""
    return "counter" if isinstance(group, CounterGroup) else group.kind


class Groups:
    """All groups by kind and GUID. Loop thread only."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], Group] = {}
        for name, guid, meters in COUNTER_GROUPS:
            self.register(CounterGroup(guid, name, "", _meters(meters)))
        for kind, name, guid in NAMED_GROUPS:
            self.register(NamedGroup(kind, guid, name))

    def register(self, group: Group) -> Registered:
        """Add a group, unless there is one with its kind and GUID."""
        there = self._groups.setdefault((kind_of(group), group.guid.upper()), group)
        if there is group:
            return Registered.NEW
        return Registered.SAME if there == group else Registered.OTHER

    def counter_group(self, guid: str) -> CounterGroup | None:
        """A counter group by its GUID, in any letter case."""
        found = self._groups.get(("counter", guid.upper()))
        return found if isinstance(found, CounterGroup) else None

    def name_of(self, kind: str, guid: str) -> str | None:
        """The title of a group."""
        found = self._groups.get((kind, guid.upper()))
        return found.name if found is not None else None

    def titles(self, kind: str) -> dict[str, str]:
        """Names of the groups of a kind by GUID in upper case, those that came first before others."""
        return {guid: group.name for (each, guid), group in self._groups.items() if each == kind}

    def members(self) -> dict[str, dict[str, str]]:
        """GUIDs by name, by the member of `T` that has them, as in ``countergroups`` (spec 4.1)."""
        members: dict[str, dict[str, str]] = {}
        for (kind, _), group in self._groups.items():
            members.setdefault(f"{kind}groups", {}).setdefault(group.name, group.guid)
        return members

    def meter_types(self) -> dict[str, bytes]:
        """By GUID of each counter group, a byte for the type of each of its meters (lua_api/counters.lua)."""
        groups = (group for group in self._groups.values() if isinstance(group, CounterGroup))
        return {group.guid: types_of(group) for group in groups}


def types_of(group: CounterGroup) -> bytes:
    """A byte for the type of each meter, which are numbered from 0 without gaps."""
    return bytes(meter.type for meter in group.meters)


def _meters(described: str) -> tuple[Meter, ...]:
    meters = []
    for number, each in enumerate(described.split(", ")):
        name, _, letters = each.rpartition(" ")
        kind, units = METER_TYPES[letters]
        meters.append(Meter(number, MeterType(kind), name, units=units, top=_TOPPERS))
    return tuple(meters)
