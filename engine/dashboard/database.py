"""Questions to a database that is being written: asked on threads of their own, read-only, and for a limited time."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.sinks.queries import Rows, finite
from engine.sinks.schema import open_to_read, reason

SECONDS: Final = 10.0
"""What a question may take."""

THREADS: Final = 2
WAITING: Final = 16
"""Questions that are asked or wait to be; more are refused."""

_ROWS: Final = 16  # that are encoded at a time
_STEPS: Final = 20_000  # instructions of SQLite between two looks at the time

Question = Callable[[sqlite3.Connection], Rows]


class BusyError(Exception):
    """Raised when too many questions wait, or one takes too long."""


@dataclass(frozen=True, slots=True)
class DatabaseStats:
    """Questions. asked = answered + failed + pending; those refused are not among them."""

    asked: int = 0
    answered: int = 0
    failed: int = 0
    """Also those that took too long."""
    pending: int = 0
    refused: int = 0
    """As too many waited."""


class Database:
    """Answers questions of the loop. Loop thread only, but for what is said otherwise."""

    def __init__(self, path: Path, *, seconds: float = SECONDS) -> None:
        """Opens nothing yet."""
        self.path = path
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="offpath-questions")
        self._pending: set[asyncio.Future[bytes]] = set()
        self._over = False  # written on the loop, read on threads
        self._asked = self._answered = self._failed = self._refused = 0

    async def ask(self, question: Question) -> bytes:
        """The answer as JSON, ``{"rows": [...]}``.

        Raises `EngineError` for a question that makes no sense, or a database that can't be read, and `BusyError`.
        """
        if self._over or len(self._pending) >= WAITING:
            self._refused += 1
            raise BusyError("too many questions wait, ask again later")
        self._asked += 1
        until = time.monotonic() + self._seconds
        asked = asyncio.get_running_loop().run_in_executor(self._threads, self._answer, question, until)
        self._pending.add(asked)
        asked.add_done_callback(self._settle)
        return await asyncio.shield(asked)  # a listener that left does not end a thread

    def _settle(self, asked: asyncio.Future[bytes]) -> None:
        self._pending.discard(asked)
        if asked.cancelled() or asked.exception() is not None:
            self._failed += 1
        else:
            self._answered += 1

    def _answer(self, question: Question, until: float) -> bytes:
        """On a thread."""
        try:
            with closing(open_to_read(self.path)) as connection:
                connection.set_progress_handler(lambda: self._over or time.monotonic() > until, _STEPS)
                return _encoded(question(connection))
        except sqlite3.OperationalError as exc:
            if self._over or time.monotonic() > until:
                raise BusyError(f"it took longer than {self._seconds:g} seconds: ask for less") from None
            raise BusyError(f"{self.path.name}: {reason(exc)}") from exc

    async def close(self) -> None:
        """End what is being asked, and the threads."""
        self._over = True
        if self._pending:
            await asyncio.wait(self._pending)
        self._threads.shutdown()

    def stats(self) -> DatabaseStats:
        """Counts at this moment."""
        return DatabaseStats(self._asked, self._answered, self._failed, len(self._pending), self._refused)


def _encoded(rows: Rows) -> bytes:
    """Row by row, giving way after every few: to encode many at once would keep the loop's thread from running."""
    parts = []
    for number, row in enumerate(rows.rows, 1):
        if number % _ROWS == 0:
            time.sleep(0)
        parts.append(json.dumps({name: finite(value) for name, value in zip(rows.columns, row, strict=True)}))
    return f'{{"rows":[{",".join(parts)}]}}'.encode()
