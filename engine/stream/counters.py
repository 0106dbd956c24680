"""What is counted in the windows that are open: by group, key and meter. Loop thread only."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

from engine.stream.groups import Groups
from engine.stream.keys import KeyRows, Trash, split_keys
from engine.stream.meters import COLUMNS, Column, Memory, cell_of
from engine.values.windows import GROUP_TOTALS, CounterGroup, Meter, MeterType


class Run(NamedTuple):
    """Keys of a group and what was counted of them, as they come out of a Lua state (lua_api/counters.lua)."""

    group: str
    keys: bytes
    lengths: bytes
    """Of the keys, in bytes, 32 bits each."""
    updates: bytes
    """How many updates of each key were summed, as doubles."""
    columns: bytes
    """Doubles: a meter's number, its type and its cells, and again."""
    by_script: bool = True
    """A script counted this, and not the platform."""


def samples(run: Run, keys: int) -> Iterator[tuple[int, MeterType, array[float]]]:
    """Meter, type and a value for each key: a mean, a sum or a sample; NaN where there is none."""
    cells, at = array("d", run.columns), 0
    while at < len(cells):
        meter, kind = int(cells[at]), MeterType(int(cells[at + 1]))
        parts = COLUMNS[kind].parts
        values = cells[at + 2 : at + 2 + keys * parts : parts]
        if kind is MeterType.AVERAGE:
            counts = cells[at + 3 : at + 2 + keys * parts : parts]
            values = array("d", [total / count for total, count in zip(values, counts, strict=True)])
        yield meter, kind, values
        at += 2 + keys * parts


class GroupSums:
    """One group in one window."""

    def __init__(
        self, group: CounterGroup, keys: int, trash: Trash, memory: Callable[[int, MeterType], Memory]
    ) -> None:
        """`keys` is the limit; `memory(meter, type)` is what a meter keeps from window to window."""
        self.group = group
        self.rows = KeyRows(keys, trash)
        self.columns: dict[int, Column] = {}
        """By meter."""
        self.rejected = 0
        """Updates of keys past the limit. They are in the totals."""
        self.by_script = False
        """Some script counted here."""
        self._keys = keys
        self._memory = memory

    def merge(self, run: Run) -> None:
        """Take in what a state summed."""
        keys = split_keys(run.keys, run.lengths)
        rows = self._rows_of(keys, array("d", run.updates))
        cells = array("d", run.columns)
        at = 0
        while at < len(cells):
            column = self._column(int(cells[at]), MeterType(int(cells[at + 1])))
            end = at + 2 + len(keys) * column.parts
            column.merge(keys, rows, cells[at + 2 : end], len(self.rows))
            at = end

    def add(self, key: str, meter: int, value: float) -> None:
        """Count one update."""
        kind = self.group.type_of(meter)
        rows = self._rows_of([key], array("d", [1.0]))
        self._column(meter, kind).merge([key], rows, cell_of(kind, value), len(self.rows))

    def _rows_of(self, keys: list[str], updates: array[float]) -> list[int]:
        rows = self.rows.rows_of(keys)
        if len(self.rows) > self._keys:
            beyond = (n for key, row, n in zip(keys, rows, updates, strict=True) if not row and key != GROUP_TOTALS)
            self.rejected += int(sum(beyond))
        return rows

    def _column(self, meter: int, kind: MeterType) -> Column:
        """The column of a meter. Sums of another type, from before the group was registered, are given up for it."""
        column = self.columns.get(meter)
        if column is None or column.kind is not kind:
            column = self.columns[meter] = COLUMNS[kind](kind, self._memory(meter, kind), self._keys)
        return column

    def described(self) -> CounterGroup:
        """The group, with meters that it was not registered with but that were counted."""
        known = len(self.group.meters)
        more = tuple(Meter(number, MeterType.COUNTER, "") for number in range(known, max(self.columns, default=-1) + 1))
        return replace(self.group, meters=self.group.meters + more) if more else self.group


WindowSums = dict[str, GroupSums]
"""What is counted in a window, by GUID."""


class Counters:
    """The window that is open, and what has come of it but is not counted yet."""

    def __init__(self, groups: Groups, keys: int) -> None:
        """`keys` is how many a group may have in a window."""
        self._groups = groups
        self._limit = keys
        self._open: WindowSums = {}
        self._waiting: deque[Run] = deque()
        self._memories: dict[tuple[str, int, MeterType], Memory] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self.trash = Trash()
        """Where the keys of closed windows go."""
        self.rejected = 0
        """Updates of keys past the limits, of all windows that were taken."""

    def put(self, run: Run) -> None:
        """Leave what a state summed, to be counted by `work`; in the order of the calls."""
        self._waiting.append(run)

    def work(self, seconds: float) -> bool:
        """Count what waits, for so long and one run at least. False when nothing is left."""
        until = perf_counter() + seconds
        while self._waiting:
            run = self._waiting.popleft()
            sums = self.sums(run.group)
            sums.by_script = sums.by_script or run.by_script
            sums.merge(run)
            if perf_counter() > until:
                break
        return bool(self._waiting)

    def add(self, group: str, key: str, meter: int, value: float) -> None:
        """Count one update, for a script."""
        sums = self.sums(group)
        sums.by_script = True
        sums.add(key, meter, value)

    def sums(self, guid: str) -> GroupSums:
        """What is counted of a group in the window that is open."""
        found = self._open.get(guid)
        if found is None:
            group = self._groups.counter_group(guid) or CounterGroup(guid, "", "", ())
            found = self._open[guid] = GroupSums(
                group, self._limit, self.trash, lambda meter, kind: self._memories.setdefault((guid, meter, kind), {})
            )
        return found

    def forget(self, guid: str) -> None:
        """What running counters of a group had come to is over."""
        for known in [each for each in self._memories if each[0] == guid]:
            self._memories[known].clear()

    def label(self, guid: str, key: str, label: str) -> None:
        """Note the label of a key; of as many keys as a group may have, those named last."""
        labels = self._labels.setdefault(guid, {})
        if len(labels) >= self._limit and key not in labels:
            del labels[next(iter(labels))]
        labels[key] = label

    def labels_of(self, group: CounterGroup) -> Iterator[dict[str, str]]:
        """Where labels of its keys are found, the first one first."""
        resolver = self._groups.counter_group(group.resolver) if group.resolver else None
        for each in (group, resolver):
            if each is not None:
                yield self._labels.get(each.guid, {})
                yield dict(each.labels)

    def take(self) -> WindowSums:
        """What was counted; the next window begins. Nothing may wait for `work`."""
        taken, self._open = self._open, {}
        self.rejected += sum(each.rejected for each in taken.values())
        return taken
