"""The keys with the greatest and the smallest values of a meter. Loop thread only."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain

from engine.values.windows import Meter, Toppers

LONGEST = 1_000
"""Toppers of a meter, at most."""


class Selection:
    """Finds the toppers of one meter, some rows at a time.

    Exact, with the earlier key first among equals: all keys of a window are kept, up to the limit of their group. Keys
    past that limit have no value of their own and are not among the toppers; then `Toppers.error` is their sum at most,
    which the window states.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._top: list[tuple[float, int]] = []
        self._bottom: list[tuple[float, int]] = []

    def look_at(self, cells: array[float], first: int, last: int) -> None:
        """Take in rows from `first` up to, not including, `last`; in their order."""
        rows = [(value, -row) for row, value in enumerate(cells[first:last], first) if value == value]
        if self._meter.top:
            self._top = heapq.nlargest(min(self._meter.top, LONGEST), chain(self._top, rows))
        if self._meter.bottom:
            smallest = ((value, -row) for value, row in rows)
            self._bottom = heapq.nsmallest(min(self._meter.bottom, LONGEST), chain(self._bottom, smallest))

    def toppers(self, keys: Sequence[str], error: float) -> Iterator[Toppers]:
        """What was found: the greatest and the smallest, as far as the meter asks for them."""
        number = self._meter.number
        if self._meter.top:
            yield Toppers(number, tuple((keys[-row], value) for value, row in self._top), error)
        if self._meter.bottom:
            yield Toppers(number, tuple((keys[row], value) for value, row in self._bottom), error, smallest=True)
