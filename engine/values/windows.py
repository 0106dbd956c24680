"""Windows: what counter groups measured in one flush interval of stream time. Plain data, no asyncio, no Lua."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

GROUP_TOTALS = "SYS:GROUP_TOTALS"
"""The key of every group that stands for all of its keys (spec 8.3)."""


class MeterType(IntEnum):
    """How the samples of a meter become its value in a window (`T.K.vartype`, spec 4.2)."""

    COUNTER = 2
    RATE_COUNTER = 4
    GAUGE = 5
    RUNNING_COUNTER = 8
    AVERAGE = 9
    DELTA_RATE_COUNTER = 10
    MAXIMUM = 11
    MINIMUM = 12


@dataclass(frozen=True, slots=True)
class Meter:
    """One meter of a counter group."""

    number: int
    """From 0."""
    type: MeterType
    name: str
    description: str = ""
    units: str = ""
    top: int = 0
    """How many of the keys with the greatest values are kept as toppers."""
    bottom: int = 0
    """The same for the smallest."""


@dataclass(frozen=True, slots=True)
class CounterGroup:
    """A counter group: registered by a `countergroup` block, or built in (spec 2.3, 8.3)."""

    guid: str
    """In braces, upper case."""
    name: str
    description: str
    meters: tuple[Meter, ...]
    bucket_seconds: float = 60.0
    resolver: str = ""
    """GUID of the group whose labels name the keys, ``""`` for its own."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """`keyinfo` of the block."""

    def type_of(self, meter: int) -> MeterType:
        """The type of a meter; COUNTER for one that the group does not have."""
        return self.meters[meter].type if meter < len(self.meters) else MeterType.COUNTER


@dataclass(frozen=True, slots=True)
class NamedGroup:
    """A group without meters: of alerts, resources, documents or flows (spec 2.18, 8.2)."""

    kind: Literal["alert", "resource", "fts", "session"]
    guid: str
    """In braces, upper case."""
    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Toppers:
    """The keys with the greatest (or smallest) values of one meter in a window, best first."""

    meter: int
    items: tuple[tuple[str, float], ...]
    """Key and value, in display form."""
    error: float = 0.0
    """No value is off by more than this; 0 when the count was exact."""
    smallest: bool = False


@dataclass(frozen=True, slots=True)
class GroupWindow:
    """What one group measured in a window."""

    group: CounterGroup
    values: Mapping[str, Sequence[float]]
    """By key, GROUP_TOTALS included: a value per meter, in display form (rates are per second, spec 2.4)."""
    labels: Mapping[str, str]
    """Labels of keys, as far as scripts or the block gave them."""
    toppers: tuple[Toppers, ...] = ()
    rejected: int = 0
    """Updates of keys beyond the limit of the group."""
    by_script: bool = False
    """Some script counted here: its counters become records."""


@dataclass(frozen=True, slots=True)
class Window:
    """One flush interval."""

    number: int
    """From 0, in the order of their time; without gaps."""
    start: float
    """Stream time, seconds since the epoch."""
    end: float
    groups: tuple[GroupWindow, ...]
