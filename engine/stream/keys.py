"""The keys of a group in a window: a row for each, and the values in it as a mapping. Loop thread only."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from engine.values.windows import GROUP_TOTALS

_SHARDS = 64
"""A dict of a million keys takes 80 ms when it grows or is freed; shards do so one by one."""


class Trash:
    """Rows of windows that nobody has any more, to be freed a little at a time."""

    def __init__(self) -> None:
        self._waiting: deque[dict[str, int] | list[str]] = deque()

    def put(self, shards: Sequence[dict[str, int]], keys: list[str]) -> None:
        """Leave rows here; called by `KeyRows` when it is collected."""
        self._waiting.extend(shards)
        self._waiting.append(keys)

    def empty_some(self) -> bool:
        """Free a shard, or some thousand keys. False when there is nothing left."""
        if not self._waiting:
            return False
        waiting = self._waiting[0]
        if isinstance(waiting, list) and len(waiting) > 4_096:
            del waiting[-4_096:]
        else:
            self._waiting.popleft()
        return True


class KeyRows:
    """Rows by key, in the order in which keys came; row 0 is that of GROUP_TOTALS."""

    def __init__(self, limit: int, trash: Trash) -> None:
        """`limit` is how many keys get a row of their own."""
        self._shards: list[dict[str, int]] = [{} for _ in range(_SHARDS)]
        self.keys: list[str] = [GROUP_TOTALS]
        self._shards[hash(GROUP_TOTALS) % _SHARDS][GROUP_TOTALS] = 0
        self._limit = limit + 1
        self._trash = trash

    def __del__(self) -> None:
        self._trash.put(self._shards, self.keys)

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, key: str) -> int | None:
        """The row of a key that has one."""
        return self._shards[hash(key) % _SHARDS].get(key)

    def rows_of(self, keys: Sequence[str]) -> list[int]:
        """A row for each key: 0 for those that are past the limit."""
        shards, known, limit = self._shards, self.keys, self._limit
        rows: list[int] = []
        append = rows.append
        for key in keys:
            shard = shards[hash(key) % _SHARDS]
            row = shard.get(key)
            if row is None:
                row = len(known)
                if row < limit:
                    shard[key] = row
                    known.append(key)
                else:
                    row = 0
            append(row)
        return rows


class KeyValues(Mapping[str, Sequence[float]]):
    """What the keys of a group came to: a value for each meter. Values are made as they are looked at."""

    def __init__(self, rows: KeyRows, columns: Sequence[array[float] | None]) -> None:
        """`columns` are by meter; None for meters of which nothing was counted."""
        self._rows = rows
        self._columns = tuple(columns)

    def __getitem__(self, key: str) -> tuple[float, ...]:
        row = self._rows.find(key)
        if row is None:
            raise KeyError(key)
        values = [column[row] if column is not None else 0.0 for column in self._columns]
        return tuple(value if value == value else 0.0 for value in values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.keys)

    def __len__(self) -> int:
        return len(self._rows)

    def counted(self) -> Iterator[tuple[str, int, float]]:
        """Key, meter and value of what was counted, GROUP_TOTALS left out."""
        for row in range(1, len(self._rows)):
            key = self._rows.keys[row]
            for meter, column in enumerate(self._columns):
                if column is not None and column[row] == column[row]:
                    yield key, meter, column[row]


def split_keys(joined: bytes, lengths: bytes) -> list[str]:
    """Keys out of one text, by their lengths in bytes, 32 bits each."""
    ends = list(accumulate(array("I", lengths)))
    starts = [0, *ends[:-1]]
    if joined.isascii():
        whole = joined.decode("ascii")
        return [whole[start:end] for start, end in zip(starts, ends, strict=True)]
    return [joined[start:end].decode("utf-8", "replace") for start, end in zip(starts, ends, strict=True)]
