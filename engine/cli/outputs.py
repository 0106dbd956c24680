"""The sinks of a run: opened together, closed together, and what they call the source."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from engine.sinks.jsonl import JsonLinesSink
from engine.sinks.parquet import ParquetSink
from engine.sinks.sqlite import SqliteSink
from engine.sources import Capture, Captures, Live, Pipe, Replay
from engine.values.records import Record
from engine.values.sources import Script, Source, name_of


class OutputSink(Protocol):
    """A sink that can also be closed where no loop runs."""

    def write(self, record: Record) -> None:
        """As in `engine.Sink`."""

    async def flush(self) -> None:
        """As in `engine.Sink`."""

    async def close(self) -> None:
        """As in `engine.Sink`."""

    def close_now(self) -> None:
        """The same, blocking. Idempotent."""


def open_sinks(*, records: Path | None, db: Path | None, parquet: Path | None, source: str) -> tuple[OutputSink, ...]:
    """Those that are named. Raises `SinkError`, and closes the others, when one can't be opened."""
    with ExitStack() as opened:
        sinks: list[OutputSink] = []
        for path, make in ((records, JsonLinesSink), (parquet, ParquetSink)):
            if path is not None:
                sinks.append(make(path))
                opened.callback(sinks[-1].close_now)
        if db is not None:
            sinks.append(SqliteSink(db, source=source))
        opened.pop_all()
        return tuple(sinks)


def close_now(sinks: Iterable[OutputSink]) -> None:
    """Close all; an error of the last one that fails is raised."""
    with ExitStack() as stack:
        for each in sinks:
            stack.callback(each.close_now)


def identity(source: Source | None, scripts: Sequence[Path]) -> str:
    """What a database calls the source: the same for what is the same when it is read again.

    Captures are known by their full paths, and a script that makes packets by its own. What comes from an interface
    or a pipe does not come again, so these have the time in their names.
    """
    if isinstance(source, Live | Pipe):
        return f"{name_of(source)} at {time.time():.6f}"
    if isinstance(source, Captures | Replay):
        paths = [Path(each) for each in source.paths]
    elif isinstance(source, Capture | Script):
        paths = [Path(source.path)]
    else:
        paths = list(scripts)
    return ", ".join(str(each.resolve()) for each in paths)
