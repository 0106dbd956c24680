"""Windows and records as Parquet files in a folder, for data frames. Needs pyarrow, the extra `parquet`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

from engine.sinks.rows import row_of
from engine.sinks.schema import RECORD_COLUMNS
from engine.sinks.writer import WriterSink
from engine.values.errors import SinkError
from engine.values.records import RECORD_TYPES, Record
from engine.values.windows import Window

_ROWS = 50_000  # that make a row group
_UNFINISHED = ".unfinished"

_COUNTERS: Mapping[str, type] = {"group": str, "name": str, "key": str, "label": str, "meter": int, "value": float}
_TOPPERS: Mapping[str, type] = {
    "group": str, "name": str, "meter": int, "smallest": bool, "rank": int, "key": str, "value": float, "error": float,
}  # fmt: skip

Columns = dict[str, list[Any]]


class ParquetSink(WriterSink):
    """Writes a file per kind and window, such as ``alert-20260102T030400Z.parquet``; also `counters` and `toppers`.

    A file appears when it is whole. What comes after the last window is in files whose names end in ``-rest``, and so
    is all of a run without windows. Files of another run for the same time are replaced: give each source a folder.
    """

    def __init__(self, folder: str | Path) -> None:
        """Makes the folder. Raises `SinkError` when that fails, or when pyarrow is not installed."""
        super().__init__(ParquetFolder(folder), name="offpath-parquet")


class ParquetFolder:
    """The files of the window that goes on. One thread at a time."""

    def __init__(self, folder: str | Path) -> None:
        """Raises `SinkError` as the sink does. Removes what a process that was killed left unfinished."""
        self.path = str(folder)
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as exc:
            raise SinkError(self.path, "needs pyarrow, install it with: pip install 'offpath[parquet]'") from exc
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        self._folder = Path(folder)
        self._rows: dict[str, list[Sequence[Any]]] = {}
        self._writers: dict[str, Any] = {}
        self._last_start: float | None = None
        self._schemas = {kind: self._schema_of(kind) for kind in RECORD_COLUMNS}
        with self._told():
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in self._folder.glob(f"*{_UNFINISHED}"):
                left.unlink()

    def _schema_of(self, kind: str) -> Any:
        hints = get_type_hints(RECORD_TYPES[kind])
        return self._schema({name: hints[name] for name in RECORD_COLUMNS[kind]})

    def _schema(self, columns: Mapping[str, Any]) -> Any:
        arrow = self._arrow
        known = {bool: arrow.bool_(), int: arrow.int64(), float: arrow.float64(), float | None: arrow.float64()}
        return arrow.schema([(name, known.get(kind, arrow.string())) for name, kind in columns.items()])

    # ---- from the writer's thread

    def add(self, records: Sequence[Record]) -> None:
        """Keep records, and write those that make a row group."""
        for record in records:
            self._rows.setdefault(record.kind, []).append(row_of(record))
        with self._told():
            for kind, rows in self._rows.items():
                if len(rows) >= _ROWS:
                    self._write_rows(kind)

    def window(self, window: Window) -> None:
        """Finish the files of a window."""
        with self._told():
            for kind in self._rows:
                self._write_rows(kind)
            self._write_groups(window)
            self._finish(_name_of(window.start))
        self._last_start = window.start

    def close(self) -> None:
        """Finish the files of what came after the last window."""
        with self._told():
            for kind in self._rows:
                self._write_rows(kind)
            self._finish("rest" if self._last_start is None else f"{_name_of(self._last_start)}-rest")

    def abort(self) -> None:
        """Leave what was finished, and nothing else."""
        for name, writer in self._writers.items():
            with suppress(Exception):  # it may be this file that failed
                writer.close()
            self._unfinished(name).unlink(missing_ok=True)
        self._writers.clear()

    # ---- files

    def _write_rows(self, kind: str) -> None:
        rows = self._rows[kind]
        if rows:
            columns = dict(zip(RECORD_COLUMNS[kind], map(list, zip(*rows, strict=True)), strict=True))
            rows.clear()
            self._write(kind, self._schemas[kind], columns)

    def _write_groups(self, window: Window) -> None:
        counters, toppers = self._schema(_COUNTERS), self._schema(_TOPPERS)
        for columns in _counters(window):
            self._write("counters", counters, columns)
        rows = [
            (each.group.guid, each.group.name, top.meter, top.smallest, rank, key, value, top.error)
            for each in window.groups
            for top in each.toppers
            for rank, (key, value) in enumerate(top.items)
        ]
        if rows:
            self._write("toppers", toppers, dict(zip(_TOPPERS, map(list, zip(*rows, strict=True)), strict=True)))

    def _write(self, name: str, schema: Any, columns: Columns) -> None:
        if name not in self._writers:
            self._writers[name] = self._parquet.ParquetWriter(self._unfinished(name), schema, compression="zstd")
        try:
            table = self._arrow.table(columns, schema=schema)
        except (UnicodeEncodeError, OverflowError, self._arrow.ArrowException):
            cleaned = {each: _storable(columns[each], schema.field(each).type == "int64") for each in columns}
            table = self._arrow.table(cleaned, schema=schema)
        self._writers[name].write_table(table)

    def _finish(self, stem: str) -> None:
        for name, writer in self._writers.items():
            writer.close()
            self._sync(name)
        for name in self._writers:
            self._unfinished(name).replace(self._folder / f"{name}-{stem}.parquet")
        self._writers.clear()

    def _sync(self, name: str) -> None:
        """Else a power cut may leave a file with its name and nothing in it."""
        with self._unfinished(name).open("rb") as file:
            os.fsync(file.fileno())

    def _unfinished(self, name: str) -> Path:
        return self._folder / f"{name}{_UNFINISHED}"

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors as `SinkError`."""
        try:
            yield
        except OSError as exc:  # Arrow's, too
            raise SinkError(self.path, os.strerror(exc.errno) if exc.errno else str(exc)) from exc


def _name_of(start: float) -> str:
    """A time as part of a file name, in UTC; with a fraction if it has one."""
    whole = datetime.fromtimestamp(int(start), UTC).strftime("%Y%m%dT%H%M%SZ")
    return whole if start == int(start) else f"{whole}-{start % 1:.6f}".replace("-0.", "-")


def _counters(window: Window) -> Iterator[Columns]:
    """A row per group, key and meter, some at a time."""
    for each in window.groups:
        group, labels, keys = each.group, each.labels, list(each.values)
        size = max(1, _ROWS // max(1, len(group.meters)))
        for at in range(0, len(keys), size):
            rows = [
                (group.guid, group.name, key, labels.get(key, ""), meter.number, value)
                for key in keys[at : at + size]
                for meter, value in zip(group.meters, each.values[key], strict=False)
            ]
            if rows:
                yield dict(zip(_COUNTERS, map(list, zip(*rows, strict=True)), strict=True))


def _storable(values: list[Any], whole: bool) -> list[Any]:
    """Text that UTF-8 can't hold with its surrogates written out, whole numbers cut to 64 bits."""
    if whole:
        return [min(max(int(value), -(1 << 63)), (1 << 63) - 1) for value in values]
    return [value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value for value in values]
