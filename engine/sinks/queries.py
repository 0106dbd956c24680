"""What is asked of a database of windows and records: plain functions over a connection that only reads.

`engine.sinks.schema.open_to_read` makes the connection. Times are seconds since the epoch. Each answer is a `Rows`.
Windows without end are not there: `windows.number` -1 stands for a run in which none ended.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.sinks.schema import NESTED_COLUMNS, RECORD_COLUMNS, TIME_COLUMN, counters_table
from engine.sinks.timespan import QueryError, Span
from engine.values.windows import GROUP_TOTALS, Meter, MeterType

ALWAYS = Span()
_NAMED = 20  # groups that an error names

_OVER_WINDOWS = {
    MeterType.COUNTER: "sum({0})",
    MeterType.RATE_COUNTER: "sum({0} * (w.end - w.start)) / :seconds",
    MeterType.DELTA_RATE_COUNTER: "sum({0} * (w.end - w.start)) / :seconds",
    MeterType.GAUGE: "avg({0})",
    MeterType.AVERAGE: "avg({0})",
    MeterType.RUNNING_COUNTER: "max({0})",
    MeterType.MAXIMUM: "max({0})",
    MeterType.MINIMUM: "min({0})",
}
"""What several windows of a meter come to: rates are per second of all windows, also of those without the key."""


@dataclass(frozen=True, slots=True)
class Rows:
    """An answer."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    units: tuple[str, ...] = ()
    """Of the last columns, where they have some."""

    def as_mappings(self) -> list[dict[str, Any]]:
        """A mapping per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def as_json(self) -> list[dict[str, Any]]:
        """The same of what JSON can hold: numbers that it lacks become None."""
        return [{name: finite(value) for name, value in each.items()} for each in self.as_mappings()]


def finite(value: Any) -> Any:
    """A value as JSON can hold it: numbers that it lacks are None, in mappings and lists, too."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A counter group as the database knows it."""

    id: int
    guid: str
    name: str
    description: str
    bucket_seconds: float
    resolver: str
    meters: tuple[Meter, ...]

    @property
    def labels(self) -> str:
        """GUID of the group whose labels name the keys."""
        return self.resolver or self.guid


def newest(db: sqlite3.Connection) -> float:
    """Where the newest window ends; 0 when there is none."""
    (end,) = db.execute("SELECT max(end) FROM windows").fetchone()
    return float(end or 0.0)


# ---- groups, meters, keys


def stored_groups(db: sqlite3.Connection) -> list[StoredGroup]:
    """All groups, by name."""
    columns = "id, guid, name, description, bucket_seconds, resolver"
    found = db.execute(f"SELECT {columns} FROM groups ORDER BY name COLLATE NOCASE, guid").fetchall()
    return [
        StoredGroup(number, guid, name, description, bucket_seconds, resolver, _meters(db, number))
        for number, guid, name, description, bucket_seconds, resolver in found
    ]


def _meters(db: sqlite3.Connection, group: int) -> tuple[Meter, ...]:
    query = 'SELECT number, type, name, description, units, top, bottom FROM meters WHERE "group" = ? ORDER BY number'
    return tuple(Meter(row[0], MeterType(row[1]), *row[2:]) for row in db.execute(query, (group,)))


def find_group(db: sqlite3.Connection, text: str) -> StoredGroup:
    """A group by name or GUID, in either case. Raises `QueryError` that says which there are."""
    found = stored_groups(db)
    wanted = text.casefold().strip("{}")
    for each in found:
        if wanted in (each.name.casefold(), each.guid.casefold().strip("{}")):
            return each
    names = ", ".join(each.name or each.guid for each in found[:_NAMED])
    more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
    raise QueryError(f"no counter group {text!r}, there {_are(names + more, 'counter group')}")


def find_meter(group: StoredGroup, text: str) -> Meter:
    """A meter of a group by name, in either case, or by number. Raises `QueryError` that says which there are."""
    for each in group.meters:
        if text.casefold() == each.name.casefold() or text == str(each.number):
            return each
    names = ", ".join(f"{each.number} {each.name}".rstrip() for each in group.meters)
    raise QueryError(f"no meter {text!r} in {group.name or group.guid}, there {_are(names, 'meter')}")


def _are(names: str, noun: str) -> str:
    return f"are: {names}" if names else f"is no {noun} at all"


def find_key(db: sqlite3.Connection, group: StoredGroup, text: str) -> str:
    """A key of a group, by itself or by its label. Raises `QueryError` when it is in no window."""
    for known in (text, *_labelled(db, group, text)):
        if db.execute(_SEEK.format(table=counters_table(group.id)), (known,)).fetchone():
            return known
    raise QueryError(f"no key {text!r} in {group.name or group.guid}: offpath query FILE toppers shows some")


_SEEK = "SELECT 1 FROM windows w CROSS JOIN {table} c ON c.window = w.id AND c.key = ? LIMIT 1"


def _labelled(db: sqlite3.Connection, group: StoredGroup, label: str) -> list[str]:
    query = "SELECT key FROM labels WHERE guid IN (?, ?) AND label = ? COLLATE NOCASE ORDER BY key LIMIT 10"
    return [key for (key,) in db.execute(query, (group.labels, group.guid, label))]


# ---- answers


def groups(db: sqlite3.Connection) -> Rows:
    """Groups with their meters, and in how many windows they are."""
    rows = []
    for each in stored_groups(db):
        count, keys = db.execute(
            'SELECT count(*), coalesce(max(keys), 0) FROM group_windows WHERE "group" = ?', (each.id,)
        ).fetchone()
        meters = ", ".join(f"{meter.number} {meter.name}" for meter in each.meters)
        rows.append((each.name, each.guid, meters, count, keys, each.description))
    return Rows(("name", "guid", "meters", "windows", "most_keys", "description"), rows)


def windows(db: sqlite3.Connection, span: Span = ALWAYS, limit: int = 100) -> Rows:
    """Windows, newest first, with what is in them. Number -1: all of a run in which no window ended."""
    query = (
        "SELECT w.start, w.end, w.number, s.name, w.last - w.first + 1, "
        "(SELECT count(*) FROM group_windows g WHERE g.window = w.id), "
        "(SELECT coalesce(sum(keys), 0) FROM group_windows g WHERE g.window = w.id) "
        "FROM windows w JOIN sources s ON s.id = w.source WHERE w.start >= ? AND w.start < ? "
        "ORDER BY w.start DESC, w.id DESC LIMIT ?"
    )
    names = ("start", "end", "number", "source", "records", "groups", "keys")
    return Rows(names, db.execute(query, (span.start, span.end, limit)).fetchall())


def toppers(db: sqlite3.Connection, group: StoredGroup, meter: Meter, span: Span = ALWAYS, limit: int = 10) -> Rows:
    """The keys with the greatest values over all windows of a time, counted from every key; smallest for minima."""
    column = f"c.m{meter.number}"
    order = "ASC" if meter.type is MeterType.MINIMUM else "DESC"
    places = {"start": span.start, "end": span.end, "totals": GROUP_TOTALS, "limit": limit, **_guids(group)}
    chosen = "w.start >= :start AND w.start < :end AND w.number >= 0"
    (places["seconds"],) = db.execute(
        f"SELECT max(coalesce(sum(w.end - w.start), 0), 1e-9) FROM windows w WHERE {chosen}", places
    ).fetchone()
    query = (
        f"SELECT key, value, {_LABEL.format(key='found.key')} FROM ("
        f"SELECT c.key AS key, {_OVER_WINDOWS[meter.type].format(column)} AS value FROM windows w CROSS JOIN "
        f"{counters_table(group.id)} c ON c.window = w.id WHERE {chosen} AND c.key <> :totals AND {column} IS NOT NULL "
        f"GROUP BY c.key ORDER BY value {order}, c.key LIMIT :limit) AS found ORDER BY value {order}, key"
    )
    rows = [(rank, key, label, value) for rank, (key, value, label) in enumerate(db.execute(query, places), 1)]
    return Rows(("rank", "key", "label", meter.name), rows, (meter.units,))


_LABEL = (
    "coalesce((SELECT label FROM labels WHERE guid = :labels AND key = {key}), "
    "(SELECT label FROM labels WHERE guid = :guid AND key = {key}), '')"
)


def _guids(group: StoredGroup) -> dict[str, Any]:
    return {"labels": group.labels, "guid": group.guid}


def series(
    db: sqlite3.Connection,
    group: StoredGroup,
    key: str,
    meters: Sequence[Meter] = (),
    span: Span = ALWAYS,
    limit: int = 1_000,
) -> Rows:
    """The newest windows of a time, in order, with the meters of a key; None where it was not seen."""
    chosen = tuple(meters) or group.meters
    columns = "".join(f", c.m{each.number}" for each in chosen)
    query = (
        f'SELECT w.start, w.end{columns} FROM windows w JOIN group_windows g ON g.window = w.id AND g."group" = ? '
        f"LEFT JOIN {counters_table(group.id)} c ON c.window = w.id AND c.key = ? "
        "WHERE w.start >= ? AND w.start < ? ORDER BY w.start DESC, w.id DESC LIMIT ?"
    )
    rows = db.execute(query, (group.id, key, span.start, span.end, limit)).fetchall()
    return Rows(("start", "end", *(each.name for each in chosen)), rows[::-1], tuple(each.units for each in chosen))


def records(db: sqlite3.Connection, kind: str, span: Span = ALWAYS, limit: int = 100) -> Rows:
    """Records of a kind that has times, newest first. Raises `QueryError` for another kind."""
    if kind not in TIME_COLUMN:
        raise QueryError(f"no records of kind {kind!r} with a time, there are {', '.join(sorted(TIME_COLUMN))}")
    names = RECORD_COLUMNS[kind]
    time = f'"{TIME_COLUMN[kind]}"'
    columns = ", ".join(f'"{each}"' for each in names)
    query = (
        f"SELECT {columns} FROM record_{kind} WHERE {time} >= ? AND {time} < ? ORDER BY {time} DESC, seq DESC LIMIT ?"
    )
    nested = [at for at, name in enumerate(names) if name in NESTED_COLUMNS]
    rows = db.execute(query, (span.start, span.end, limit)).fetchall()
    return Rows(names, [_unpacked(row, nested) for row in rows] if nested else rows)


def _unpacked(row: tuple[Any, ...], nested: Sequence[int]) -> tuple[Any, ...]:
    return tuple(json.loads(value) if at in nested else value for at, value in enumerate(row))


def search(db: sqlite3.Connection, text: str, span: Span = ALWAYS, limit: int = 20) -> Rows:
    """Documents with all words of a text, best first. A word that ends in ``*`` stands for all that begin so."""
    words = [_phrase(word) for word in text.split() if word.strip("*")]
    if not words:
        raise QueryError("nothing to search for: give a word")
    query = (
        "SELECT d.time, d.\"group\", d.flow, d.id, snippet(document_text, 0, '[', ']', '...', 24) FROM document_text "
        "JOIN record_document d ON d.seq = document_text.rowid WHERE document_text MATCH ? "
        "AND d.time >= ? AND d.time < ? ORDER BY document_text.rank, d.seq LIMIT ?"
    )
    rows = db.execute(query, (" ".join(words), span.start, span.end, limit)).fetchall()
    return Rows(("time", "group", "flow", "id", "text"), rows)


def _phrase(word: str) -> str:
    """Quoted, so that no sign in it is taken for the language of FTS5."""
    bare = word.rstrip("*").replace('"', '""')
    return f'"{bare}"{"*" if word.endswith("*") else ""}'
