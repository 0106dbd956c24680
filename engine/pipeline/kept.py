"""What a flush leaves of a mapping: some keys rejected, some values overridden, the rest as it was."""

from __future__ import annotations

from array import array
from collections.abc import ItemsView, Iterator, Mapping, Sequence

from engine.stream.keys import KeyValues

_SHARDS = 64
"""A dict that grows by doubling moves all that is in it at once: that of a million keys held the loop for 40 ms."""

Values = Sequence[float]


class Kept(Mapping[str, Values]):
    """A view of `values`, which must not change any more, without what was rejected. Loop thread only."""

    def __init__(self, values: Mapping[str, Values]) -> None:
        self._values = values
        self._changes: tuple[dict[str, Values | None], ...] = tuple({} for _ in range(_SHARDS))
        self.rejected = 0
        """Keys that are in `values` and not here."""
        self.overridden = 0

    def reject(self, key: str) -> None:
        """Leave a key out."""
        self._changes[hash(key) % _SHARDS][key] = None
        self.rejected += 1

    def override(self, key: str, values: Values) -> None:
        """Give a key other values."""
        # Tuples would be looked at by Python's collector, which holds the loop for long when there are a million.
        self._changes[hash(key) % _SHARDS][key] = array("d", values)
        self.overridden += 1

    def __getitem__(self, key: str) -> Values:
        values = self._changes[hash(key) % _SHARDS].get(key, self._values[key])
        if values is None:
            raise KeyError(key)
        return tuple(values) if isinstance(values, array) else values

    def items(self) -> ItemsView[str, Values]:
        """Keys with their values; quicker than to look for each key."""
        return _Items(self)

    def each(self) -> Iterator[tuple[str, Values]]:
        """The same, once."""
        all_changes = self._changes
        for key, values in self._values.items():
            changes = all_changes[hash(key) % _SHARDS]
            if key not in changes:
                yield key, values
            elif (changed := changes[key]) is not None:
                yield key, tuple(changed)

    def counted(self) -> Iterator[tuple[str, int, float]]:
        """Key, meter and value of what was counted and is kept (`KeyValues.counted`)."""
        assert isinstance(self._values, KeyValues)
        for key, meter, value in self._values.counted():
            values = self._changes[hash(key) % _SHARDS].get(key, ())
            if values is not None:
                yield key, meter, values[meter] if values else value

    def __iter__(self) -> Iterator[str]:
        changes = self._changes
        for key in self._values:
            if changes[hash(key) % _SHARDS].get(key, ()) is not None:
                yield key

    def __len__(self) -> int:
        return len(self._values) - self.rejected


class _Items(ItemsView[str, Values]):
    """Walks along the values."""

    def __init__(self, kept: Kept) -> None:
        super().__init__(kept)
        self._kept = kept

    def __iter__(self) -> Iterator[tuple[str, Values]]:
        return self._kept.each()
