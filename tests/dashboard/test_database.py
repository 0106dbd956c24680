"""Questions on threads: limited in number and in time, and none left behind."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from engine.dashboard.database import WAITING, BusyError, Database
from engine.sinks.queries import Rows
from engine.sinks.sqlite import SqliteSink
from engine.values.errors import SinkError
from tests.support import eventually, no_threads_left

NOTHING = Rows(("x",), [])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    SqliteSink(tmp_path / "x.db", source="test").close_now()
    return tmp_path / "x.db"


def endless(db: sqlite3.Connection) -> Rows:
    query = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    return Rows(("count",), db.execute(query).fetchall())


async def test_a_question_is_asked_off_the_loop(path: Path) -> None:
    asked: list[threading.Thread] = []

    def question(db: sqlite3.Connection) -> Rows:
        asked.append(threading.current_thread())
        return Rows(("count",), db.execute("SELECT count(*) FROM windows").fetchall())

    with no_threads_left():
        database = Database(path)
        assert await database.ask(question) == b'{"rows":[{"count": 0}]}'
        assert asked[0] is not threading.main_thread()
        await database.close()


async def test_nothing_can_be_written(path: Path) -> None:
    database = Database(path)
    with pytest.raises(BusyError, match="readonly"):
        await database.ask(lambda db: Rows((), db.execute("DELETE FROM windows").fetchall()))
    await database.close()


async def test_a_question_that_takes_too_long_is_ended(path: Path) -> None:
    database = Database(path, seconds=0.05)
    with pytest.raises(BusyError, match=r"longer than 0\.05 seconds"):
        await database.ask(endless)
    assert (database.stats().asked, database.stats().failed, database.stats().pending) == (1, 1, 0)
    await database.close()


async def test_the_end_does_not_wait_for_a_long_question(path: Path) -> None:
    with no_threads_left():
        database = Database(path, seconds=1e6)
        asking = asyncio.create_task(database.ask(endless))
        await eventually(lambda: database.stats().pending)
        async with asyncio.timeout(10):
            await database.close()
        with pytest.raises(BusyError):
            await asking
        with pytest.raises(BusyError):
            await database.ask(lambda db: NOTHING)


async def test_more_than_so_many_are_refused_and_counted(path: Path) -> None:
    gate = threading.Event()

    def question(db: sqlite3.Connection) -> Rows:
        gate.wait(20)
        return NOTHING

    database = Database(path)
    asking = [asyncio.create_task(database.ask(question)) for _ in range(WAITING)]
    await eventually(lambda: database.stats().pending == WAITING)
    with pytest.raises(BusyError, match="ask again later"):
        await database.ask(question)
    gate.set()
    await asyncio.gather(*asking)
    counts = database.stats()
    assert (counts.asked, counts.answered, counts.failed, counts.pending, counts.refused) == (WAITING, WAITING, 0, 0, 1)
    await database.close()


async def test_who_leaves_does_not_end_a_thread_and_is_counted(path: Path) -> None:
    gate = threading.Event()
    database = Database(path)
    asking = asyncio.create_task(database.ask(lambda db: Rows((str(gate.wait(20)),), [])))
    await eventually(lambda: database.stats().pending)
    asking.cancel()
    gate.set()
    await eventually(lambda: database.stats().answered)
    await database.close()


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("something else entirely, and rather long at that")
    database = Database(tmp_path / "no.db")
    with pytest.raises(SinkError, match="is not a database"):
        await database.ask(lambda db: NOTHING)
    await database.close()
