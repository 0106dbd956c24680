"""The keys of a group in a window: a row for each, and the values in it as a mapping. Loop thread only."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, repeat

from engine.values.windows import GROUP_TOTALS

TOTALS_ROW = 0
"""The row of the key that stands for all; what is counted under no key of its own is counted there."""

_SHARDS = 1_024
"""A dict of a million keys takes 80 ms when it grows or is freed; so many shards do so one after the other."""

_FEW = 4_096
"""Keys that lie in one shard: to make them all takes 75 µs, as long as a few hundred packets."""

_FREED = 2_048
"""Keys that are freed in one go, which takes 0.1 ms."""

_BLOCK = 64
"""Keys in a tuple. The collector looks at each tuple once, at 700 of them in one go."""


class Trash:
    """Rows of windows that nobody has any more, to be freed a little at a time."""

    def __init__(self) -> None:
        self._waiting: deque[dict[str, int] | tuple[str, ...]] = deque()

    def put(self, shards: Sequence[dict[str, int]], blocks: Sequence[tuple[str, ...]]) -> None:
        """Leave rows here; called by `KeyRows` when it is collected."""
        self._waiting.extend(filter(None, shards))  # most are empty in a small window
        self._waiting.extend(blocks)

    def empty_some(self) -> bool:
        """Free some thousand keys. False when there is nothing left."""
        freed = 0
        while self._waiting and freed < _FREED:
            freed += len(self._waiting.popleft())
        return freed > 0


class KeyRows:
    """Rows by key, in the order in which keys came; row 0 is that of GROUP_TOTALS."""

    def __init__(self, limit: int, trash: Trash) -> None:
        """`limit` is how many keys get a row of their own."""
        self._shards: list[dict[str, int]] = [{GROUP_TOTALS: 0}]
        self._mask = 0
        # Python's collector leaves out tuples of texts; a list of a million it looked through for 10 ms, each time.
        self._blocks: list[tuple[str, ...]] = []
        self._rest: list[str] = [GROUP_TOTALS]
        self._count = 1
        self._limit = limit + 1
        self._trash = trash

    def __del__(self) -> None:
        self._trash.put(self._shards, self._blocks)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> str:
        block, at = divmod(row, _BLOCK)
        return self._blocks[block][at] if block < len(self._blocks) else self._rest[at]

    def blocks(self) -> Iterator[Sequence[str]]:
        """All keys in the order of their rows, some at a time."""
        yield from self._blocks
        if self._rest:
            yield self._rest

    def find(self, key: str) -> int | None:
        """The row of a key that has one."""
        return self._shards[hash(key) & self._mask].get(key)

    def rows_of(self, keys: Sequence[str]) -> list[int]:
        """A row for each key: 0 for those that are past the limit."""
        count = self._count
        if count + len(keys) > _FEW:
            self._spread()
        if count + len(keys) > self._limit:
            return [self._row_of(key) for key in keys]
        shards, mask, rest = self._shards, self._mask, self._rest
        rows: list[int] = []
        append = rows.append
        for key in keys:
            row = shards[hash(key) & mask].setdefault(key, count)
            if row == count:
                rest.append(key)
                count += 1
            append(row)
        self._count = count
        self._cut()
        return rows

    def _row_of(self, key: str) -> int:
        row = self.find(key)
        if row is not None:
            return row
        if self._count >= self._limit:
            return TOTALS_ROW
        row = self._shards[hash(key) & self._mask][key] = self._count
        self._rest.append(key)
        self._count += 1
        self._cut()
        return row

    def _spread(self) -> None:
        """There may be many keys: divide them among shards, once."""
        if self._mask:
            return
        (few,) = self._shards
        self._shards, self._mask = [{} for _ in range(_SHARDS)], _SHARDS - 1
        for key, row in few.items():
            self._shards[hash(key) & self._mask][key] = row

    def _cut(self) -> None:
        rest = self._rest
        while len(rest) >= _BLOCK:
            self._blocks.append(tuple(rest[:_BLOCK]))
            del rest[:_BLOCK]


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
        return chain.from_iterable(self._rows.blocks())

    def __len__(self) -> int:
        return len(self._rows)

    def items(self) -> ItemsView[str, Sequence[float]]:
        """Keys with their values; quicker than to look for each key."""
        return _Items(self)

    def each(self) -> Iterator[tuple[str, tuple[float, ...]]]:
        """The same, once."""
        at = 0
        for keys in self._rows.blocks():
            columns = [_shown(column, at, at + len(keys)) for column in self._columns]
            yield from zip(keys, zip(*columns, strict=True) if columns else repeat(()), strict=False)
            at += len(keys)

    def counted(self) -> Iterator[tuple[str, int, float]]:
        """Key, meter and value of what was counted, GROUP_TOTALS left out."""
        for row, key in enumerate(self):
            if row != TOTALS_ROW:
                for meter, column in enumerate(self._columns):
                    if column is not None and column[row] == column[row]:
                        yield key, meter, column[row]


class _Items(ItemsView[str, Sequence[float]]):
    """Walks along the rows."""

    def __init__(self, values: KeyValues) -> None:
        super().__init__(values)
        self._values = values

    def __iter__(self) -> Iterator[tuple[str, Sequence[float]]]:
        return self._values.each()


def _shown(column: array[float] | None, first: int, last: int) -> Iterable[float]:
    """Values of some rows, 0 where there is none."""
    if column is None:
        return repeat(0.0, last - first)
    part = column[first:last]
    total = sum(part)
    return part if total == total else [value if value == value else 0.0 for value in part]


def split_keys(joined: bytes, lengths: bytes) -> list[str]:
    """Keys out of one text, by their lengths in bytes, 32 bits each."""
    ends = list(accumulate(array("I", lengths)))
    starts = [0, *ends[:-1]]
    if joined.isascii():
        whole = joined.decode("ascii")
        return [whole[start:end] for start, end in zip(starts, ends, strict=True)]
    return [joined[start:end].decode("utf-8", "replace") for start, end in zip(starts, ends, strict=True)]
