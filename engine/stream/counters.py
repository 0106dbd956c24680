"""Sums of counters by group, key and meter. Loop thread only."""

from __future__ import annotations

from collections.abc import Iterator

from engine.values.records import Counter


class Counters:
    """Plain sums, until they are taken."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, int], float] = {}

    def add(self, group: str, key: str, meter: int, value: float) -> None:
        """Add to a sum."""
        place = (group, key, meter)
        self._sums[place] = self._sums.get(place, 0) + value

    def take(self) -> Iterator[Counter]:
        """The sums as records, in the order of group, key and meter, and start anew."""
        sums, self._sums = self._sums, {}
        for (group, key, meter), value in sorted(sums.items()):
            yield Counter(group, key, meter, value)
