"""What is done with a database that is written: one transaction per window. Writer thread only."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.sinks.rows import Row, by_kind, insert, insert_values
from engine.sinks.schema import (
    RECORD_COLUMNS,
    SCHEMA_VERSION,
    TIME_COLUMN,
    check,
    counters_table,
    create,
    define_group,
    reason,
    upgrade,
)
from engine.values.errors import SinkError
from engine.values.records import KeyInfo, Record
from engine.values.windows import GroupWindow, Window

WITHOUT_WINDOW = -1
"""Number of the row that stands for all of a run in which no window ended."""

_LOCK_SECONDS = 5.0
_CACHE_KB = 65_536
_LOG_BYTES = 64 << 20  # what the write-ahead log keeps of its size after a large window


class WindowStore:
    """A database that is being written.

    A transaction is open from the first moment to the last: so the records of a window are stored as they come, memory
    stays bounded, and nothing of them is there until the window is. It also keeps other writers out.

    A window that the same source stored before at the same time is replaced, with its records.
    """

    def __init__(self, path: str | Path, source: str, *, lock_seconds: float = _LOCK_SECONDS) -> None:
        """Raises `SinkError` when the file can't be made or written, is no database of ours, or is being written."""
        self.path = str(path)
        with self._told():
            self._refuse_folder()
            # Used by one thread at a time: the one that opens it, and then the writer.
            self._db = sqlite3.connect(
                self.path, timeout=lock_seconds, isolation_level=None, check_same_thread=False, cached_statements=256
            )
        try:
            with self._told():
                self._begin(source)
        except BaseException:
            self._db.close()
            raise

    def _refuse_folder(self) -> None:
        if Path(self.path).is_dir():
            raise SinkError(self.path, "is a folder")
        if not Path(self.path).exists():
            Path(self.path).open("ab").close()  # says why, where SQLite says "unable to open database file"

    def _begin(self, source: str) -> None:
        db = self._db
        check(db, self.path)
        db.execute("PRAGMA journal_mode = WAL")
        # A kill loses nothing that was committed; a power cut may lose the last windows, and never breaks the file.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        db.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        db.execute("BEGIN IMMEDIATE")
        if not check(db, self.path):
            create(db)
        elif db.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION:
            upgrade(db)
        db.execute("INSERT OR IGNORE INTO sources (name) VALUES (?)", (_text(source),))
        (self._source,) = db.execute("SELECT id FROM sources WHERE name = ?", (_text(source),)).fetchone()
        (self._next,) = db.execute("SELECT coalesce(max(last), 0) + 1 FROM windows").fetchone()
        self._first = self._next  # of the records that belong to no window yet
        self._window: int | None = None
        self._span: tuple[float, float] | None = None
        self._commit()

    # ---- from the writer's thread

    def add(self, records: Sequence[Record]) -> None:
        """Store records, to be there when their window is. Raises `SinkError`."""
        with self._told():
            for kind, rows in by_kind(records, self._next).items():
                insert(self._db, f"record_{kind}", 1 + len(RECORD_COLUMNS[kind]), rows)
            self._next += len(records)
            self._note_labels(records)
        self._note_times(records)

    def window(self, window: Window) -> None:
        """Store a window: with it, and the records since the one before, the transaction ends. Raises `SinkError`."""
        with self._told():
            db = self._db
            self._replace("start = ? AND number >= 0", window.start)
            self._window = self._insert_window(window.number, window.start, window.end)
            for each in window.groups:
                self._add_group(self._window, each)
            self._commit()
            db.execute("PRAGMA optimize")

    def close(self) -> None:
        """Store the rest: records after the last window go to it. The file is closed even when this raises."""
        try:
            with self._told():
                if self._next > self._first:
                    self._keep_rest()
                self._db.execute("COMMIT")
        finally:
            self.abort()

    def abort(self) -> None:
        """Close the file without the transaction that is open."""
        self._db.close()

    # ---- windows

    def _keep_rest(self) -> None:
        if self._window is not None:
            self._db.execute("UPDATE windows SET last = ? WHERE id = ?", (self._next - 1, self._window))
            return
        self._replace("number = ?", WITHOUT_WINDOW)
        start, end = self._span or (0.0, 0.0)
        self._insert_window(WITHOUT_WINDOW, start, end)

    def _insert_window(self, number: int, start: float, end: float) -> int:
        done = self._db.execute(
            "INSERT INTO windows (source, number, start, end, first, last) VALUES (?, ?, ?, ?, ?, ?)",
            (self._source, number, start, end, self._first, self._next - 1),
        )
        assert done.lastrowid is not None
        return done.lastrowid

    def _replace(self, where: str, value: float) -> None:
        """Remove windows of this source, with all that belongs to them."""
        db = self._db
        query = f"SELECT id, first, last FROM windows WHERE source = ? AND {where}"
        for window, first, last in db.execute(query, (self._source, value)).fetchall():
            for kind in RECORD_COLUMNS:
                db.execute(f"DELETE FROM record_{kind} WHERE seq BETWEEN ? AND ?", (first, last))
            groups = db.execute('SELECT "group" FROM group_windows WHERE window = ?', (window,)).fetchall()
            for (group,) in groups:
                db.execute(f"DELETE FROM {counters_table(group)} WHERE window = ?", (window,))
            for table in ("toppers", "group_windows"):
                db.execute(f"DELETE FROM {table} WHERE window = ?", (window,))
            db.execute("DELETE FROM windows WHERE id = ?", (window,))

    def _commit(self) -> None:
        self._db.execute("COMMIT")
        self._first = self._next
        self._db.execute("BEGIN IMMEDIATE")

    # ---- groups

    def _add_group(self, window: int, measured: GroupWindow) -> None:
        group = define_group(self._db, measured.group)
        meters = [each.number for each in measured.group.meters]
        self._add_counters(window, group, measured.values, [f"m{number}" for number in meters])
        insert(self._db, "toppers", 8, _topper_rows(window, group, measured))
        insert(self._db, "group_windows", 4, [(window, group, len(measured.values), measured.rejected)])
        guid = measured.group.guid
        self._label(((guid, key, label) for key, label in measured.group.labels.items()), keep=True)
        self._label((guid, key, label) for key, label in measured.labels.items())

    def _add_counters(
        self, window: int, group: int, values: Mapping[str, Sequence[float]], columns: Sequence[str]
    ) -> None:
        """In the order of their keys, which is that of the table: pages fill one after the other.

        SQLite sorts them, without the GIL: Python took a second for a million keys, and nothing else ran meanwhile.
        """
        db, named = self._db, ", ".join(["key", *columns])
        db.execute(f"CREATE TEMP TABLE staged ({named.replace('key', 'key TEXT', 1)})")
        insert_values(db, "temp.staged", len(columns), values.items())
        table = counters_table(group)
        db.execute(
            f"INSERT OR REPLACE INTO {table} (window, {named}) SELECT ?, {named} FROM temp.staged ORDER BY key",
            (window,),
        )
        db.execute("DROP TABLE temp.staged")

    def _label(self, rows: Iterator[tuple[str, str, str]], *, keep: bool = False) -> None:
        known = "NOTHING" if keep else "UPDATE SET label = excluded.label WHERE label <> excluded.label"
        self._db.executemany(
            f"INSERT INTO labels VALUES (?, ?, ?) ON CONFLICT (guid, key) DO {known}",
            (tuple(map(_text, row)) for row in rows),
        )

    # ---- what records tell

    def _note_labels(self, records: Sequence[Record]) -> None:
        labels = (each for each in records if isinstance(each, KeyInfo) and each.name == "label")
        self._label((each.group, each.key, each.value) for each in labels)

    def _note_times(self, records: Sequence[Record]) -> None:
        for each in records if self._window is None else ():
            if each.kind in TIME_COLUMN:
                time = getattr(each, TIME_COLUMN[each.kind])
                if not math.isfinite(time):
                    continue
                start, end = self._span or (time, time)
                self._span = (min(start, time), max(end, getattr(each, "end", time)))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors as `SinkError`."""
        try:
            yield
        except sqlite3.Error as exc:
            raise SinkError(self.path, reason(exc)) from exc
        except OSError as exc:
            raise SinkError(self.path, exc.strerror or str(exc)) from exc


def _topper_rows(window: int, group: int, measured: GroupWindow) -> Iterator[Row]:
    for each in measured.toppers:
        for rank, (key, value) in enumerate(each.items):
            yield (window, group, each.meter, each.smallest, rank, key, value, each.error)


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()
