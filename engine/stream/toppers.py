"""The keys with the greatest and the smallest values of a meter. Loop thread only."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator
from itertools import chain
from math import inf

from engine.stream.keys import KeyRows
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
        part = cells[first:last]
        if self._meter.top:
            most = min(self._meter.top, LONGEST)
            floor = self._top[-1][0] if len(self._top) == most else -inf  # of equals the earlier key stays
            better = [(value, -row) for row, value in enumerate(part, first) if value > floor]
            self._top = heapq.nlargest(most, chain(self._top, better))
        if self._meter.bottom:
            most = min(self._meter.bottom, LONGEST)
            ceiling = self._bottom[-1][0] if len(self._bottom) == most else inf
            smaller = [(value, row) for row, value in enumerate(part, first) if value < ceiling]
            self._bottom = heapq.nsmallest(most, chain(self._bottom, smaller))

    def toppers(self, keys: KeyRows, error: float) -> Iterator[Toppers]:
        """What was found: the greatest and the smallest, as far as the meter asks for them."""
        number = self._meter.number
        if self._meter.top:
            yield Toppers(number, tuple((keys[-row], value) for value, row in self._top), error)
        if self._meter.bottom:
            yield Toppers(number, tuple((keys[row], value) for value, row in self._bottom), error, smallest=True)
