"""The host side of `require "lsqlite3"`: databases and statements as opaque handles.

No function raises into Lua: each gives its results, or None and a message. Text and blobs are bytes.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

Failure = tuple[None, bytes]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_EXACT = 1 << 53
_BINDINGS = re.compile(r"statement uses (\d+)")


class Database:
    """One connection. Statements ask it for cursors, so closing it ends them all."""

    def __init__(self, path: bytes) -> None:
        self.connection: sqlite3.Connection | None = None
        # No waiting for locks unless asked for (`busy_timeout`), and no implicit transactions.
        self.connection = sqlite3.connect(os.fsdecode(path), timeout=0, isolation_level=None)
        self.connection.text_factory = bytes

    def open_connection(self) -> sqlite3.Connection:
        """The connection; raises `ProgrammingError` after `close`."""
        if self.connection is None:
            raise sqlite3.ProgrammingError("the database is closed")
        return self.connection

    def close(self) -> None:
        """Close. Idempotent."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def __del__(self) -> None:
        # The state that held the handle is gone; on another thread than its own, freeing is all that is left to do.
        with contextlib.suppress(sqlite3.Error):
            self.close()


class Statement:
    """One prepared statement. It runs at its first step, and once: after the last row it stays done until `reset`."""

    def __init__(self, database: Database, sql: str) -> None:
        self.database = database
        self.sql = sql
        self.values: tuple[Any, ...] = ()
        self.cursor: sqlite3.Cursor | None = None
        self.done = False
        self._compile()

    def _compile(self) -> None:
        connection = self.database.open_connection()
        try:
            connection.execute("EXPLAIN " + self.sql).close()
        except sqlite3.ProgrammingError as exc:
            # SQLite had compiled it when Python found the bindings missing.
            found = _BINDINGS.search(str(exc))
            if found is None:
                raise
            self.values = (None,) * int(found[1])

    def step(self) -> tuple[Any, ...]:
        """(True, column...) for the next row, (False,) after the last."""
        if self.done:
            return (False,)
        if self.cursor is None:
            self.cursor = self.database.open_connection().execute(self.sql, self.values)
        row = self.cursor.fetchone()
        if row is None:
            self.done = True
            return (False,)
        return (True, *map(_to_lua, row))

    def names(self) -> tuple[bytes, ...]:
        """The names of the columns; known once it was stepped."""
        described = self.cursor.description if self.cursor is not None else None
        return tuple(_encode(column[0]) for column in described or ())

    def reset(self) -> None:
        """Start over at the next step."""
        if self.cursor is not None:
            self.cursor.close()
            self.cursor = None
        self.done = False


def _guard(function: Callable[_P, _T]) -> Callable[_P, _T | Failure]:
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _T | Failure:
        try:
            return function(*args, **kwargs)
        except (sqlite3.Error, sqlite3.Warning) as exc:
            return None, _encode(str(exc))
        except Exception as exc:  # a name with a NUL, a number too large, no memory: all are for the script
            return None, _encode(f"{type(exc).__name__}: {exc}")

    return guarded


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _to_lua(value: Any) -> Any:
    # Numbers are doubles in Lua; said here, so that an integer never arrives as some other type.
    if isinstance(value, int) and not -_EXACT <= value <= _EXACT:
        return float(value)
    return value


def _to_sql(value: Any) -> Any:
    # Lua strings are TEXT wherever they can be, since SQLite never finds a BLOB equal to a TEXT.
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
    return value


def _each_statement(sql: str) -> Iterator[str]:
    """The statements of a script: cut at semicolons that end one."""
    pending = ""
    for part in re.split(r"(?<=;)", sql):
        pending += part
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending


@_guard
def open_database(path: bytes) -> Database:
    """A handle of the database in a file, which is created when absent."""
    return Database(path)


@_guard
def close_database(database: Database) -> bool:
    """Close a database."""
    database.close()
    return True


@_guard
def execute(database: Database, sql: bytes) -> bool:
    """Run all statements of a text, and drop their rows."""
    connection = database.open_connection()
    for statement in _each_statement(_decode(sql)):
        connection.execute(statement).close()
    return True


@_guard
def prepare(database: Database, sql: bytes) -> Statement:
    """A handle of a statement, checked but not run."""
    return Statement(database, _decode(sql))


@_guard
def bind(statement: Statement, *values: Any) -> bool:
    """Set the parameters and start over."""
    if len(values) != len(statement.values):
        raise sqlite3.ProgrammingError(
            f"the statement has {len(statement.values)} parameters, {len(values)} were given"
        )
    statement.reset()
    statement.values = tuple(map(_to_sql, values))
    return True


@_guard
def step(statement: Statement) -> tuple[Any, ...]:
    """(True, column...) for the next row, (False,) after the last."""
    return statement.step()


@_guard
def names(statement: Statement) -> tuple[bytes, ...]:
    """The names of the columns of a statement that was stepped."""
    return statement.names()


@_guard
def reset(statement: Statement) -> bool:
    """Let a statement run again; its parameters stay."""
    statement.reset()
    return True


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqlite_open": open_database,
    "sqlite_close": close_database,
    "sqlite_exec": execute,
    "sqlite_prepare": prepare,
    "sqlite_bind": bind,
    "sqlite_step": step,
    "sqlite_names": names,
    "sqlite_reset": reset,
}
"""What the module `offpath.host` offers for `lsqlite3`."""
