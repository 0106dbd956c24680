"""Windows and records in an SQLite database, for `offpath query` and for any program that speaks SQL."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from engine.sinks.store import WindowStore
from engine.sinks.writer import WriterSink


class SqliteSink(WriterSink):
    """Stores windows and records. A window and all records before it are stored in one transaction, or not at all.

    What comes after the last window is stored by `close`, as the rest of that window. So a process may be killed at
    any moment, and the file has whole windows.

    `source` says what is read. A window is known by its source and its start: when the same source is read into the
    same file again, its windows replace those of the time before, and nothing is there twice. A source that can't be
    read again, like an interface, must have a name of its own at every run, such as one with the time.

    The file can be read at all times, by any number of readers. One writer has it at a time.
    """

    asks_for: ClassVar = frozenset({"document", "resource"})

    def __init__(self, path: str | Path, *, source: str = "") -> None:
        """Opens or makes the file. Raises `SinkError` when that fails, and for a file of a newer version."""
        super().__init__(WindowStore(path, source), name="offpath-sqlite")
