"""Records and counters as rows of a database: values that SQLite can hold, many of them in one statement."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from itertools import chain, islice
from operator import attrgetter
from typing import Any, TypeVar

from engine.sinks.schema import NESTED_COLUMNS, RECORD_COLUMNS
from engine.values.records import Record

_ROWS = 500  # in one statement: each gives up the GIL once, and a busy loop takes 5 ms to hand it back
_VALUES = 10_000  # in one statement; SQLite takes 32,766
_LARGEST, _SMALLEST = (1 << 63) - 1, -(1 << 63)

Row = Sequence[Any]

_getters = {kind: attrgetter(*columns) for kind, columns in RECORD_COLUMNS.items()}
_nested = {
    kind: [columns.index(each) for each in columns if each in NESTED_COLUMNS]
    for kind, columns in RECORD_COLUMNS.items()
}


def row_of(record: Record) -> Row:
    """The columns of a record's table, but for its number."""
    values: Row = _getters[record.kind](record)
    nested = _nested[record.kind]
    if not nested:
        return values
    row = list(values)
    for at in nested:
        row[at] = _json(row[at])
    return row


def _json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    if not value:
        return "{}" if isinstance(value, Mapping) else "[]"
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else dict(value)


def insert(db: sqlite3.Connection, table: str, width: int, rows: Iterable[Row]) -> None:
    """Insert rows of so many columns, replacing those with the same key.

    Text that UTF-8 can't hold is stored with its surrogates written out, as in JSON; a whole number beyond 64 bits as
    a float.
    """
    for part in _parts(rows, width):
        _insert(db, table, width, list(chain.from_iterable(part)))


def insert_values(
    db: sqlite3.Connection, table: str, meters: int, items: Iterable[tuple[str, Sequence[float]]]
) -> None:
    """The same for keys with their values: the columns are the key and so many meters."""
    width = 1 + meters
    for part in _parts(items, width):
        cells: list[Any] = [None] * (width * len(part))
        cells[::width] = [key for key, _ in part]
        if all(len(values) == meters for _, values in part):
            for meter in range(meters):
                cells[meter + 1 :: width] = [values[meter] for _, values in part]
        else:
            for at, (_, values) in enumerate(part):
                known = values[:meters]
                cells[at * width + 1 : at * width + 1 + len(known)] = known
        _insert(db, table, width, cells)


Item = TypeVar("Item")


def _parts(items: Iterable[Item], width: int) -> Iterator[list[Item]]:
    """As many as go into one statement."""
    size = max(1, min(_ROWS, _VALUES // width))
    waiting = iter(items)
    while part := list(islice(waiting, size)):
        yield part


def _insert(db: sqlite3.Connection, table: str, width: int, values: list[Any]) -> None:
    one = f"({','.join('?' * width)})"
    statement = f"INSERT OR REPLACE INTO {table} VALUES {','.join([one] * (len(values) // width))}"
    try:
        db.execute(statement, values)
    except (UnicodeEncodeError, OverflowError):  # raised before anything is stored
        db.execute(statement, list(_storable(values)))


def _storable(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, str):
            yield value.encode("utf-8", "backslashreplace").decode()
        elif isinstance(value, int) and not _SMALLEST <= value <= _LARGEST:
            yield float(value)
        else:
            yield value


def by_kind(records: Iterable[Record], first: int) -> dict[str, list[Row]]:
    """Rows by kind, in order, with the numbers from `first` on."""
    found: dict[str, list[Row]] = {}
    for number, record in enumerate(records, first):
        found.setdefault(record.kind, []).append((number, *row_of(record)))
    return found
