"""Meters: how the samples of a key become its value in a window, one column of cells for each meter of a group.

Parts of a window are merged in the order in which they were counted, so that it does not matter how a run was cut into
parts (but for the last bits of sums of fractions). A cell is NaN as long as nothing was counted. Loop thread only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from typing import ClassVar

from engine.stream.keys import TOTALS_ROW
from engine.values.windows import GROUP_TOTALS, MeterType

NOTHING = float("nan")
Memory = dict[str, float]
"""What a meter keeps of its keys from window to window; `keys_kept` bounds it."""


class Column(ABC):
    """The cells of one meter in one window."""

    parts: ClassVar[int] = 1
    """Doubles of a cell as it crosses (lua_api/counters.lua)."""

    def __init__(self, kind: MeterType, memory: Memory, keys_kept: int) -> None:
        """`memory` is used by the types that need one; it keeps `keys_kept` keys, those counted last."""
        self.kind = kind
        self.cells = array("d")
        """By row; in display form once the column is finished."""
        self._memory = memory
        self._kept = keys_kept

    def merge(self, keys: Sequence[str], rows: list[int], values: array[float], size: int) -> None:
        """Take in cells: those of key and row number n begin at `values[n * parts]`; there are `size` rows."""
        if rows == list(range(len(self.cells), size)) and self._append(values):
            return  # keys that are all new: most of them, where there are many
        self.extend(size)
        self._merge(keys, rows, values)

    def extend(self, size: int) -> None:
        """Make cells for as many rows, empty ones."""
        missing = size - len(self.cells)
        if missing > 0:
            self._extend(array("d", [NOTHING]) * missing)

    def _append(self, _values: array[float]) -> bool:
        return False

    def _extend(self, nothing: array[float]) -> None:
        self.cells.extend(nothing)

    @abstractmethod
    def _merge(self, keys: Sequence[str], rows: Sequence[int], values: array[float]) -> None: ...

    @abstractmethod
    def finish(self, first: int, last: int, seconds: float) -> None:
        """Bring rows from `first` up to, not including, `last` into display form and into the total.

        Each row once, TOTALS_ROW not among them. `seconds` is the length of the window.
        """

    @abstractmethod
    def finish_total(self, seconds: float) -> None:
        """Make TOTALS_ROW the value of all keys, after all others."""

    def _recall(self, key: str) -> float | None:
        return self._memory.pop(key, None)

    def _remember(self, key: str, value: float) -> None:
        memory = self._memory
        if len(memory) >= self._kept and key not in memory:
            del memory[next(iter(memory))]
        memory[key] = value


class SumColumn(Column):
    """COUNTER and RATE_COUNTER: the sum of what was added, and that per second of the window."""

    _total = 0.0

    def _append(self, values: array[float]) -> bool:
        self.cells.extend(values)
        return True

    def _merge(self, _keys: Sequence[str], rows: Sequence[int], values: array[float]) -> None:
        cells = self.cells
        for row, value in zip(rows, values, strict=True):
            if value == value:
                old = cells[row]
                cells[row] = old + value if old == old else value

    def finish(self, first: int, last: int, seconds: float) -> None:
        """As in the base class."""
        part = self.cells[first:last]
        self._total += _sum(part)
        if self.kind is not MeterType.COUNTER:
            self.cells[first:last] = array("d", [value / seconds for value in part])

    def finish_total(self, seconds: float) -> None:
        """As in the base class."""
        own = self.cells[TOTALS_ROW]
        total = self._total + (own if own == own else 0.0)
        self.cells[TOTALS_ROW] = total if self.kind is MeterType.COUNTER else total / seconds


class LastColumn(Column):
    """GAUGE: the last sample; of all keys, the sum of these."""

    _total = 0.0

    def _append(self, values: array[float]) -> bool:
        self.cells.extend(values)
        return True

    def _merge(self, _keys: Sequence[str], rows: Sequence[int], values: array[float]) -> None:
        cells = self.cells
        for row, value in zip(rows, values, strict=True):
            if value == value:
                cells[row] = value

    def finish(self, first: int, last: int, seconds: float) -> None:
        """As in the base class."""
        self._total += _sum(self.cells[first:last])

    def finish_total(self, seconds: float) -> None:
        """As in the base class."""
        own = self.cells[TOTALS_ROW]
        self.cells[TOTALS_ROW] = self._total + (own if own == own else 0.0)


class ExtremeColumn(Column):
    """MAXIMUM and MINIMUM: the greatest or smallest sample; of all keys likewise."""

    def _append(self, values: array[float]) -> bool:
        self.cells.extend(values)
        return True

    def _merge(self, _keys: Sequence[str], rows: Sequence[int], values: array[float]) -> None:
        for row, value in zip(rows, values, strict=True):
            self._one(row, value)

    def _one(self, row: int, value: float) -> None:
        old = self.cells[row]
        beats = value > old if self.kind is MeterType.MAXIMUM else value < old
        if beats or old != old:
            self.cells[row] = value

    def finish(self, first: int, last: int, seconds: float) -> None:
        """As in the base class."""
        found = [value for value in self.cells[first:last] if value == value]
        if found:
            self._one(TOTALS_ROW, max(found) if self.kind is MeterType.MAXIMUM else min(found))

    def finish_total(self, seconds: float) -> None:
        """Nothing is left to do."""


class AverageColumn(Column):
    """AVERAGE: the mean of the samples; of all keys, that of all samples."""

    parts = 2

    def __init__(self, kind: MeterType, memory: Memory, keys_kept: int) -> None:
        super().__init__(kind, memory, keys_kept)
        self._counts = array("d")
        self._sum = self._count = 0.0

    def _append(self, values: array[float]) -> bool:
        self.cells.extend(values[::2])
        self._counts.extend(values[1::2])
        return True

    def _extend(self, nothing: array[float]) -> None:
        self.cells.extend(nothing)
        self._counts.extend(nothing)

    def _merge(self, _keys: Sequence[str], rows: Sequence[int], values: array[float]) -> None:
        cells, counts = self.cells, self._counts
        for row, total, count in zip(rows, values[::2], values[1::2], strict=True):
            if total == total:
                if cells[row] == cells[row]:
                    total, count = cells[row] + total, counts[row] + count
                cells[row], counts[row] = total, count

    def finish(self, first: int, last: int, seconds: float) -> None:
        """As in the base class."""
        sums, counts = self.cells[first:last], self._counts[first:last]
        self._sum += _sum(sums)
        self._count += _sum(counts)
        self.cells[first:last] = array("d", [total / count for total, count in zip(sums, counts, strict=True)])

    def finish_total(self, seconds: float) -> None:
        """As in the base class."""
        if self.cells[TOTALS_ROW] == self.cells[TOTALS_ROW]:
            self._sum += self.cells[TOTALS_ROW]
            self._count += self._counts[TOTALS_ROW]
        self.cells[TOTALS_ROW] = self._sum / self._count if self._count else NOTHING


class RunningColumn(Column):
    """RUNNING_COUNTER: the sum of all that was ever added; of all keys likewise."""

    def _merge(self, keys: Sequence[str], rows: Sequence[int], values: array[float]) -> None:
        for key, row, value in zip(keys, rows, values, strict=True):
            if value == value:
                total = (self._memory.get(GROUP_TOTALS) or 0.0) + value
                self._memory[GROUP_TOTALS] = total  # stays where it is, before all others
                if row != TOTALS_ROW:
                    own = (self._recall(key) or 0.0) + value
                    if own:  # 0 is what a key begins with
                        self._remember(key, own)
                    self.cells[row] = own

    def _remember(self, key: str, value: float) -> None:
        memory = self._memory
        if len(memory) > self._kept:
            oldest = iter(memory)
            next(oldest)  # that of all keys
            del memory[next(oldest)]
        memory[key] = value

    def finish(self, first: int, last: int, seconds: float) -> None:
        """They are in display form from the beginning."""

    def finish_total(self, seconds: float) -> None:
        """As in the base class."""
        self.cells[TOTALS_ROW] = self._memory.get(GROUP_TOTALS, 0.0)


class DeltaColumn(Column):
    """DELTA_RATE_COUNTER: what a growing counter gained since the window before, per second; of all keys, the sum.

    A counter that falls began anew, from 0. The first sample ever of a key gains nothing.
    """

    parts = 3
    _total = 0.0

    def _merge(self, keys: Sequence[str], rows: Sequence[int], values: array[float]) -> None:
        cells = self.cells
        for key, row, first, last, gained in zip(keys, rows, values[::3], values[1::3], values[2::3], strict=True):
            if first == first:
                if row != TOTALS_ROW:
                    before = self._recall(key)
                    self._remember(key, last)
                    if before is not None:
                        gained += first if first < before else first - before
                old = cells[row]
                cells[row] = old + gained if old == old else gained

    def finish(self, first: int, last: int, seconds: float) -> None:
        """As in the base class."""
        part = self.cells[first:last]
        self._total += _sum(part)
        self.cells[first:last] = array("d", [value / seconds for value in part])

    def finish_total(self, seconds: float) -> None:
        """As in the base class."""
        own = self.cells[TOTALS_ROW]
        self.cells[TOTALS_ROW] = (self._total + (own if own == own else 0.0)) / seconds


def _sum(values: array[float]) -> float:
    total = sum(values)
    return total if total == total else sum(value for value in values if value == value)


COLUMNS: dict[MeterType, type[Column]] = {
    MeterType.COUNTER: SumColumn,
    MeterType.RATE_COUNTER: SumColumn,
    MeterType.GAUGE: LastColumn,
    MeterType.RUNNING_COUNTER: RunningColumn,
    MeterType.AVERAGE: AverageColumn,
    MeterType.DELTA_RATE_COUNTER: DeltaColumn,
    MeterType.MAXIMUM: ExtremeColumn,
    MeterType.MINIMUM: ExtremeColumn,
}


def cell_of(kind: MeterType, value: float) -> array[float]:
    """One sample as the cell of a column."""
    if kind is MeterType.AVERAGE:
        return array("d", [value, 1.0])
    if kind is MeterType.DELTA_RATE_COUNTER:
        return array("d", [value, value, 0.0])
    return array("d", [value])
