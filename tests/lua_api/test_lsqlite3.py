"""lsqlite3: the surface scripts use, and every misuse as a Lua error."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

OPEN = "local sqlite = require 'lsqlite3'\nlocal db = sqlite.open((...))\n"


@pytest.fixture
def database(tmp_path: Path) -> bytes:
    path = tmp_path / "keys.sqt"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE KEY_ATTRIBUTES (KEY, ATTR_NAME, ATTR_VALUE)")
        connection.executemany(
            "INSERT INTO KEY_ATTRIBUTES VALUES (?, ?, ?)",
            [("p-0016", "label", "ssh"), ("p-0050", None, 2.5), ("p-01BB", b"\0\xff", 2**60), ("é", 7, None)],
        )
        connection.commit()
    return str(path).encode()


def test_the_loop_scripts_use(lua: Any, database: bytes) -> None:
    source = """
    local sqlite = require "lsqlite3"
    local ok, db = pcall(sqlite.open, (...))
    local ok, stmt = pcall(db.prepare, db, "SELECT KEY, ATTR_NAME, ATTR_VALUE FROM KEY_ATTRIBUTES ORDER BY rowid")
    local rows = {}
    local ok, stepret = pcall(stmt.step, stmt)
    while stepret do
      local v = stmt:get_values()
      rows[#rows + 1] = { v[1], v[2] or "nil", v[3] or "nil", stmt:get_value(0), stmt:get_value(2) or "nil" }
      ok, stepret = pcall(stmt.step, stmt)
    end
    stmt:finalize()
    db:close()
    return rows, ok, stepret
    """
    rows, ok, last = lua.run(source, database)
    assert [list(row.values()) for row in rows.values()] == [
        [b"p-0016", b"label", b"ssh", b"p-0016", b"ssh"],
        [b"p-0050", b"nil", 2.5, b"p-0050", 2.5],
        [b"p-01BB", b"\0\xff", 2.0**60, b"p-01BB", 2.0**60],
        ["é".encode(), 7, b"nil", "é".encode(), b"nil"],
    ]
    assert (ok, last) == (True, False)


def test_a_statement_stays_done_until_reset(lua: Any) -> None:
    source = """
    local stmt = db:prepare("SELECT 1")
    local steps = { stmt:step(), stmt:step(), stmt:step() }
    stmt:reset()
    return steps[1], steps[2], steps[3], stmt:step(), stmt:columns(), stmt:get_value("0")
    """
    assert lua.run(OPEN + source, b":memory:") == (True, False, False, True, 1, 1)


def test_exec_bind_and_rows(lua: Any) -> None:
    source = """
    db:exec [[CREATE TABLE t (a, b); -- a comment; with a semicolon
      INSERT INTO t VALUES ('x;y', 1);]]
    local stmt = db:prepare("INSERT INTO t VALUES (?, ?)")
    for _, pair in ipairs { { "bytes\\255", 2.5 }, { nil, true } } do
      stmt:bind_values(pair[1], pair[2])
      assert(stmt:step() == false)
    end
    stmt:finalize()
    local out = {}
    for row in db:nrows("SELECT a, b FROM t ORDER BY rowid") do
      out[#out + 1] = tostring(row.a) .. "=" .. tostring(row.b)
    end
    for row in db:rows("SELECT count(*) FROM t") do out[#out + 1] = row[1] end
    for a, b in db:urows("SELECT 5, 6") do out[#out + 1] = a + b end
    return out
    """
    assert list(lua.run(OPEN + source, b":memory:").values()) == [b"x;y=1", b"bytes\xff=2.5", b"nil=1", 3, 11]


def test_prepare_does_not_run(lua: Any) -> None:
    source = """
    db:exec("CREATE TABLE t (a)")
    local insert = db:prepare("INSERT INTO t VALUES (1)")
    local count = db:prepare("SELECT count(*) FROM t")
    count:step()
    local before = count:get_value(0)
    insert:step()
    count:reset()
    count:step()
    return before, count:get_value(0)
    """
    assert lua.run(OPEN + source, b":memory:") == (0, 1)


def test_text_parameters_equal_text(lua: Any, database: bytes) -> None:
    source = """
    local stmt = db:prepare("SELECT ATTR_VALUE FROM KEY_ATTRIBUTES WHERE KEY = ?")
    stmt:bind_values("p-0016")
    stmt:step()
    return stmt:get_value(0)
    """
    assert lua.run(OPEN + source, database) == b"ssh"


def test_transactions_are_explicit(lua: Any) -> None:
    source = """
    db:exec("CREATE TABLE t (a)")
    db:exec("BEGIN")
    db:exec("INSERT INTO t VALUES (1)")
    db:exec("ROLLBACK")
    local stmt = db:prepare("SELECT count(*) FROM t")
    stmt:step()
    return stmt:get_value(0)
    """
    assert lua.run(OPEN + source, b":memory:") == 0


def test_open_fails_naming_file_and_line(lua: Any, tmp_path: Path) -> None:
    name = str(tmp_path / "absent" / "x.db")
    message = lua.error(OPEN, name.encode())
    assert message.startswith("test.lua:2:")
    assert name in message
    assert "open needs a file name" in lua.error("require('lsqlite3').open(nil)")
    assert "NUL in the file name" in lua.error(OPEN, b"a\0b")


@pytest.mark.parametrize("sql", ["SELEKT 1", "SELECT * FROM none", "SELECT 1; SELECT 2", ""])
def test_bad_sql_raises_at_prepare(lua: Any, sql: str) -> None:
    message = lua.error(OPEN + f"db:prepare('{sql}')", b":memory:")
    assert message.startswith("test.lua:3: lsqlite3: prepare: ")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("stmt:get_values()", "get_values without a row"),
        ("stmt:get_value(0)", "get_value without a row"),
        ("stmt:step() stmt:get_value(1)", "there is no column 1"),
        ("stmt:step() stmt:step() stmt:get_values()", "get_values without a row"),
        ("stmt:finalize() stmt:step()", "step on a statement that is closed"),
        ("stmt:step() stmt:finalize() stmt:get_values()", "get_values on a statement that is closed"),
        ("db:close() stmt:step()", "step on a statement of a database that is closed"),
        ("db:close() db:prepare('SELECT 1')", "prepare on a database that is closed"),
        ("db:close() db:exec('SELECT 1')", "exec on a database that is closed"),
        ("stmt.step({})", "step needs a statement, got a table"),
        ("db.prepare(nil, 'SELECT 1')", "prepare needs a database, got a nil"),
        ("db:prepare(nil)", "prepare needs SQL text, got a nil"),
        ("db:exec('nonsense')", "exec: near"),
        ("stmt:bind_values(1)", "has 0 parameters, 1 were given"),
        ("db:prepare('SELECT ?'):bind_values({})", "parameter 1 is a table"),
    ],
)
def test_misuse_is_a_clear_error(lua: Any, source: str, message: str) -> None:
    raised = lua.error(OPEN + "local stmt = db:prepare('SELECT 1')\n" + source, b":memory:")
    assert message in raised
    assert raised.startswith("test.lua:4:")


def test_closing_twice_is_fine(lua: Any) -> None:
    source = """
    local stmt = db:prepare("SELECT 1")
    stmt:step()
    db:close()
    db:close()
    stmt:finalize()
    stmt:finalize()
    return db:isopen()
    """
    assert lua.run(OPEN + source, b":memory:") is False


def test_a_locked_database_fails_at_once(lua: Any, database: bytes) -> None:
    with closing(sqlite3.connect(database.decode(), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        raised = lua.error(OPEN + "local stmt = db:prepare('SELECT * FROM KEY_ATTRIBUTES')\nstmt:step()", database)
        assert "locked" in raised
        other.execute("ROLLBACK")


def test_nothing_is_left_open_when_the_state_goes(lua: Any, database: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from lua_api.sqlite import Database

    closed = []
    close = Database.close
    monkeypatch.setattr(Database, "close", lambda self: (closed.append(self.connection is not None), close(self))[1])
    lua.run(OPEN + "db:prepare('SELECT 1'):step()", database)
    lua.run("collectgarbage() collectgarbage()")
    assert True in closed
