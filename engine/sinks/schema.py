"""How the database is laid out, and how a file is opened. Knows SQLite and the records, no thread and no loop.

- Every record has a number, `seq`, counted over all kinds in the order of their coming. A window owns the numbers from
  `first` to `last`: no record carries its window, and those of a window go with one range per table.
- Each counter group has a table of its own, `counters_ID`: a row per window and key, a column per meter. One row for
  all meters of a key, in the order of the keys, is what SQLite stores quickest.
- Times are seconds since the epoch. Columns have the names of the fields; mappings and tuples are JSON.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Final

from engine.values.errors import SinkError
from engine.values.records import RECORD_TYPES
from engine.values.windows import CounterGroup

SCHEMA_VERSION: Final = 4
APPLICATION_ID: Final = 0x0FF9A7  # in the header of the file: what tells ours from other databases

RECORD_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    kind: tuple(each.name for each in fields(record)) for kind, record in RECORD_TYPES.items()
}
"""Columns of the table `record_KIND`, beside `seq`."""

NESTED_COLUMNS: Final = frozenset(
    {"attributes", "meters", "extra", "questions", "answers", "alpn", "versions", "counts"}
)
"""Columns that hold JSON."""

TIME_COLUMN: Final[dict[str, str]] = {
    kind: "start" if kind == "flow" else "time"
    for kind, columns in RECORD_COLUMNS.items()
    if kind == "flow" or "time" in columns
}

_TABLES: Final = """
CREATE TABLE sources (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE windows (
  id INTEGER PRIMARY KEY, source INTEGER NOT NULL REFERENCES sources, number INTEGER NOT NULL,
  start REAL NOT NULL, end REAL NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL);
CREATE INDEX windows_by_start ON windows (start, source);
CREATE TABLE groups (
  id INTEGER PRIMARY KEY, guid TEXT NOT NULL UNIQUE, name TEXT NOT NULL, description TEXT NOT NULL,
  bucket_seconds REAL NOT NULL, resolver TEXT NOT NULL);
CREATE TABLE meters (
  "group" INTEGER NOT NULL REFERENCES groups, number INTEGER NOT NULL, type INTEGER NOT NULL, name TEXT NOT NULL,
  description TEXT NOT NULL, units TEXT NOT NULL, top INTEGER NOT NULL, bottom INTEGER NOT NULL,
  PRIMARY KEY ("group", number)) WITHOUT ROWID;
CREATE TABLE group_windows (
  window INTEGER NOT NULL REFERENCES windows, "group" INTEGER NOT NULL REFERENCES groups, keys INTEGER NOT NULL,
  rejected INTEGER NOT NULL, PRIMARY KEY (window, "group")) WITHOUT ROWID;
CREATE TABLE toppers (
  window INTEGER NOT NULL REFERENCES windows, "group" INTEGER NOT NULL REFERENCES groups, meter INTEGER NOT NULL,
  smallest INTEGER NOT NULL, rank INTEGER NOT NULL, key TEXT NOT NULL, value REAL, error REAL,
  PRIMARY KEY (window, "group", meter, smallest, rank)) WITHOUT ROWID;
CREATE TABLE labels (
  guid TEXT NOT NULL, key TEXT NOT NULL, label TEXT NOT NULL, PRIMARY KEY (guid, key)) WITHOUT ROWID;
"""
_SEARCH: Final = (
    "CREATE VIRTUAL TABLE document_text USING fts5(text, content='record_document', content_rowid='seq')",
    """CREATE TRIGGER document_in AFTER INSERT ON record_document BEGIN
  INSERT INTO document_text (rowid, text) VALUES (new.seq, new.text);
END""",
    """CREATE TRIGGER document_out AFTER DELETE ON record_document BEGIN
  INSERT INTO document_text (document_text, rowid, text) VALUES ('delete', old.seq, old.text);
END""",
)


def statements() -> list[str]:
    """What makes an empty database, in order."""
    made = [each for each in _TABLES.split(";\n") if each.strip()]
    for kind, columns in RECORD_COLUMNS.items():
        named = ", ".join(f'"{column}"' for column in columns)
        made.append(f"CREATE TABLE record_{kind} (seq INTEGER PRIMARY KEY, {named})")
    for kind, column in TIME_COLUMN.items():
        made.append(f'CREATE INDEX {kind}_by_time ON record_{kind} ("{column}")')
    return [*made, *_SEARCH]


def counters_table(group: int) -> str:
    """The name of the table of a group's counters."""
    return f"counters_{group}"


def create_counters(group: int, meters: Sequence[int]) -> str:
    """The statement that makes it."""
    columns = "".join(f", m{number} REAL" for number in meters)
    return (
        f"CREATE TABLE {counters_table(group)} (window INTEGER NOT NULL, key TEXT NOT NULL{columns}, "
        "PRIMARY KEY (window, key)) WITHOUT ROWID"
    )


def define_group(db: sqlite3.Connection, group: CounterGroup) -> int:
    """Store what a group is, make its table or add columns to it, and give its id. The last definition holds."""
    db.execute(
        "INSERT INTO groups (guid, name, description, bucket_seconds, resolver) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (guid) DO UPDATE SET name = excluded.name, description = excluded.description, "
        "bucket_seconds = excluded.bucket_seconds, resolver = excluded.resolver",
        (group.guid, group.name, group.description, group.bucket_seconds, group.resolver),
    )
    (number,) = db.execute("SELECT id FROM groups WHERE guid = ?", (group.guid,)).fetchone()
    db.executemany(
        "INSERT OR REPLACE INTO meters VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (number, each.number, int(each.type), each.name, each.description, each.units, each.top, each.bottom)
            for each in group.meters
        ),
    )
    meters = [each.number for each in group.meters]
    columns = {row[1] for row in db.execute(f"PRAGMA table_info({counters_table(number)})")}
    if not columns:
        db.execute(create_counters(number, meters))
    for each in meters if columns else ():
        if f"m{each}" not in columns:
            db.execute(f"ALTER TABLE {counters_table(number)} ADD COLUMN m{each} REAL")
    return int(number)


def check(db: sqlite3.Connection, path: str) -> bool:
    """Whether the database has our tables; False for an empty one. Raises `SinkError` for any other."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application == APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise SinkError(path, f"has schema {version}, made by a newer offpath; this one knows {SCHEMA_VERSION}")
        return True
    if db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        raise SinkError(path, "is a database, but none of offpath")
    return False


def create(db: sqlite3.Connection) -> None:
    """Make the tables, within the transaction that is open."""
    for statement in statements():
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def upgrade(db: sqlite3.Connection) -> None:
    """Add what an older version did not have: tables and columns of records. Within the transaction that is open.

    Rows are stored by place: a field that is new must be the last one of its record.
    """
    there = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    for kind, columns in RECORD_COLUMNS.items():
        known = {row[1] for row in db.execute(f"PRAGMA table_info(record_{kind})")}
        for column in columns if known else ():
            if column not in known:
                db.execute(f'ALTER TABLE record_{kind} ADD COLUMN "{column}"')
    for statement in statements():
        words = statement.split("(")[0].split()
        if words[1] in ("TABLE", "INDEX") and words[2].strip('"') not in there:
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def open_to_read(path: str | Path) -> sqlite3.Connection:
    """A connection that can't change anything. Raises `SinkError` when there is no such database of ours."""
    found = Path(path)
    try:
        found.open("rb").close()  # says why, where SQLite says "unable to open database file"
        db = _connect_to_read(found)
        try:
            ours = check(db, str(path))
        except BaseException:
            db.close()
            raise
    except OSError as exc:
        raise SinkError(str(path), exc.strerror or str(exc)) from exc
    except sqlite3.Error as exc:
        raise SinkError(str(path), reason(exc)) from exc
    if not ours:
        db.close()
        raise SinkError(str(path), "is empty: nothing was stored in it")
    return db


def _connect_to_read(path: Path) -> sqlite3.Connection:
    uri = path.absolute().as_uri()
    db = sqlite3.connect(f"{uri}?mode=rw", uri=True)  # else the reader that is last leaves its log behind
    with suppress(sqlite3.OperationalError):
        db.execute("PRAGMA query_only = ON")
        db.execute("PRAGMA user_version").fetchone()
        return db
    db.close()
    # In a folder that can't be written SQLite can't have its shared memory. Without a log there is nothing to share.
    alone = not Path(f"{path}-wal").exists()
    return sqlite3.connect(f"{uri}?{'immutable=1' if alone else 'mode=ro'}", uri=True)


def reason(exc: sqlite3.Error) -> str:
    """Why SQLite failed, for people."""
    if "database is locked" in str(exc):
        return "is locked: another program writes to it"
    if "file is not a database" in str(exc):
        return "is not a database"
    return str(exc)
