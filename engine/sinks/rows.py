"""Records and counters as rows of a database: values that SQLite can hold, many of them in one statement."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from itertools import chain, islice
from operator import attrgetter
from typing import Any

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
    size = max(1, min(_ROWS, _VALUES // width))
    waiting = iter(rows)
    while part := list(islice(waiting, size)):
        one = f"({','.join('?' * width)})"
        statement = f"INSERT OR REPLACE INTO {table} VALUES {','.join([one] * len(part))}"
        values = list(chain.from_iterable(part))
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
