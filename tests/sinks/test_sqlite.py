"""The database sink: what goes in comes out, a window is there with its records or not at all, failures are told."""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sinks import queries, writer
from engine.sinks.schema import SCHEMA_VERSION, open_to_read, statements
from engine.sinks.sqlite import SqliteSink
from engine.sinks.writer import WriterSink
from engine.values.errors import SinkError
from engine.values.records import Alert, Dns, DnsAnswer, DnsQuestion, KeyInfo, Log, Record, Summary, TrackedFlow
from engine.values.windows import CounterGroup, GroupWindow, Meter, MeterType, Window
from tests.sinks.measured import HOSTS, KEYS, flow, key_of, records_of, start_of, window
from tests.support import eventually


def store(path: Path, *things: Record | Window, source: str = "test") -> None:
    sink = SqliteSink(path, source=source)
    for each in things:
        if isinstance(each, Window):
            sink.write_window(each)
        else:
            sink.write(each)
    sink.close_now()


def ask(path: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    with closing(open_to_read(path)) as db:
        return db.execute(query, values).fetchall()


def count(path: Path, table: str) -> object:
    return ask(path, f"SELECT count(*) FROM {table}")[0][0]


def test_windows_and_records_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    for number in range(3):
        store(path, *records_of(number), window(number))
    with closing(open_to_read(path)) as db:
        group = queries.find_group(db, "hosts")
        assert group.meters == HOSTS.meters
        found = queries.series(db, group, key_of(7)).rows
        assert found == [(start_of(n), start_of(n + 1), 7.0, float(n), 7.0 * n) for n in range(3)]
        assert len(queries.records(db, "alert", limit=1_000).rows) == 90
    assert count(path, "counters_1") == 3 * (KEYS + 1)
    assert ask(path, "SELECT meter, smallest, rank, key, value, error FROM toppers WHERE window = 1") == [
        (0, 0, at, key_of(KEYS - 1 - at), KEYS - 1.0 - at, 0.5) for at in range(3)
    ]
    assert ask(path, "SELECT number, rejected FROM group_windows g JOIN windows w ON w.id = g.window") == [
        (0, 0), (1, 1), (2, 2),
    ]  # fmt: skip
    assert ask(path, "SELECT key, label FROM labels") == [(key_of(1), "first"), (key_of(2), "second.example")]


numbers = st.floats(allow_nan=False)
texts = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.dictionaries(texts, st.tuples(numbers, numbers), max_size=20), st.lists(texts, max_size=5))
def test_what_goes_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Sequence[float]], said: list[str]
) -> None:
    path = tmp_path_factory.mktemp("db") / "x.db"
    group = CounterGroup("{G}", "G", "", (Meter(0, MeterType.GAUGE, "a"), Meter(5, MeterType.GAUGE, "b")))
    logs = [Log("INFO", text, text, 1.5) for text in said]
    store(path, *logs, Window(0, 60.0, 120.0, (GroupWindow(group, values, {}),)))
    assert ask(path, "SELECT level, script, text, time FROM record_log ORDER BY seq") == [
        ("INFO", text, text, 1.5) for text in said
    ]
    if values:
        assert {key: (a, b) for key, a, b in ask(path, "SELECT key, m0, m5 FROM counters_1")} == values


def test_values_that_a_database_lacks(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    odd = Alert("{A}", "", "s", "c", 1 << 70, "\udc80 alone\x00", "", "x", math.nan, {"n": 1})
    store(path, odd)
    assert ask(path, "SELECT priority, message, time, extra FROM record_alert") == [
        (float(1 << 70), "\\udc80 alone\x00", None, '{"n": 1}')
    ]


def test_nested_values_are_json(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    dns = Dns("f", "dns", "udp", 1, True, 0, (DnsQuestion("a", "A"),), (DnsAnswer("a", "A", "::1", 5),), True, 3.0)
    store(path, dns, Summary(1, 2.0, {"files": 3}))
    with closing(open_to_read(path)) as db:
        (found,) = queries.records(db, "dns").as_mappings()
    assert found["questions"] == [{"name": "a", "type": "A"}]
    assert found["answers"] == [{"name": "a", "type": "A", "data": "::1", "ttl": 5}]
    assert ask(path, "SELECT counts FROM record_summary") == [('{"files": 3}',)]


def test_a_window_of_the_same_source_and_time_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    for _ in range(3):
        store(path, *records_of(0), window(0), *records_of(1), window(1), flow(9))
    assert (count(path, "windows"), count(path, "record_alert"), count(path, "record_flow")) == (2, 60, 3)
    assert count(path, "counters_1") == 2 * (KEYS + 1)
    assert ask(path, "SELECT count(*) FROM document_text WHERE document_text MATCH 'host0'") == [(30,)]
    store(path, window(0), source="another")
    assert count(path, "windows") == 3


def test_a_run_without_windows_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    for _ in range(2):
        store(path, flow(1), flow(2))
    assert ask(path, "SELECT number, start, end, last - first FROM windows") == [(-1, start_of(1), start_of(2) + 5, 1)]
    assert count(path, "record_flow") == 2


def test_the_rest_belongs_to_the_last_window(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store(path, flow(0), window(0), flow(1), flow(2))
    assert ask(path, "SELECT number, last - first + 1 FROM windows") == [(0, 3)]


async def test_nothing_of_a_window_is_there_before_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    sink = SqliteSink(path)
    for at in range(writer._BATCH * 2):
        sink.write(flow(at))
    await eventually(lambda: not sink.stats().waiting)
    assert count(path, "record_flow") == 0
    sink.write_window(window(0))
    await sink.close()
    assert count(path, "record_flow") == writer._BATCH * 2


def test_a_group_may_get_more_meters(tmp_path: Path) -> None:
    path, more = tmp_path / "x.db", Meter(7, MeterType.GAUGE, "more")
    store(path, window(0))
    grown = CounterGroup(HOSTS.guid, "Hosts 2", "", (*HOSTS.meters, more))
    store(path, Window(1, start_of(1), start_of(2), (GroupWindow(grown, {"k": (1, 2, 3, 4)}, {}),)))
    assert ask(path, "SELECT m0, m7 FROM counters_1 WHERE key = 'k'") == [(1.0, 4.0)]
    assert ask(path, "SELECT name FROM groups") == [("Hosts 2",)]


def test_labels_of_key_records_are_known(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store(path, KeyInfo("{G}", "k", "label", "old"), KeyInfo("{G}", "k", "label", "new"), KeyInfo("{G}", "k", "x", "y"))
    assert ask(path, "SELECT * FROM labels") == [("{G}", "k", "new")]


def test_the_layout_has_not_changed_without_its_version() -> None:
    """When this fails, raise SCHEMA_VERSION with the numbers here, and see that older files are still read."""
    tables = [each.split("(")[0].strip() for each in statements() if each.lstrip().startswith("CREATE TABLE")]
    assert (SCHEMA_VERSION, len(tables), sum(map(len, statements()))) == (4, 22, 4384)


def test_an_older_file_is_brought_up_to_date(tmp_path: Path) -> None:
    """The first version had no `state` of flows, and no top flows; later ones no `a_payload` and on."""
    path = tmp_path / "x.db"
    store(path, flow(1))
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "DROP TABLE record_tracked_flow; DROP INDEX counter_by_time; PRAGMA user_version = 1;"
            "ALTER TABLE record_counter DROP COLUMN time;"
            + "".join(
                f"ALTER TABLE record_flow DROP COLUMN {name};"
                for name in ("state", "a_payload", "z_payload", "setup_rtt", "retransmissions")
            )
        )
    store(path, flow(2), TrackedFlow("t", "f", 2.0, 1, "s", 3.0), source="other")
    assert ask(path, "SELECT state, a_payload, retransmissions FROM record_flow") == [(None, None, None), (1, 0, 0)]
    assert ask(path, "SELECT metric FROM record_tracked_flow") == [(2.0,)]
    assert ask(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


# ---- failures


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store(path, flow(1))
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for attempt in (SqliteSink, open_to_read):
        with pytest.raises(SinkError, match=r"x\.db: has schema 5, made by a newer offpath; this one knows 4"):
            attempt(path)


@pytest.mark.parametrize("attempt", [SqliteSink, open_to_read])
def test_other_files_are_refused(tmp_path: Path, attempt: type) -> None:
    (tmp_path / "text").write_bytes(b"hello, this is text" * 100)
    with pytest.raises(SinkError, match="text: is not a database"):
        attempt(tmp_path / "text")
    with closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.execute("CREATE TABLE x (y)")
    with pytest.raises(SinkError, match=r"other\.db: is a database, but none of offpath"):
        attempt(tmp_path / "other.db")
    with pytest.raises(SinkError, match="No such file or directory"):
        attempt(tmp_path / "none" / "x.db")
    with pytest.raises(SinkError, match=r"(?i)is a (folder|directory)"):
        attempt(tmp_path)


def test_one_writer_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.sinks.store import WindowStore

    first = SqliteSink(tmp_path / "x.db")
    with pytest.raises(SinkError, match="is locked: another program writes to it"):
        WindowStore(tmp_path / "x.db", "", lock_seconds=0.01)
    first.close_now()
    store(tmp_path / "x.db", flow(1))


class Failing:
    """A backend that takes so many batches."""

    path = "there"

    def __init__(self, batches: int, error: Exception) -> None:
        self.left, self.error, self.ended = batches, error, ""

    def add(self, records: Sequence[Record]) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.error

    def window(self, window: Window) -> None:
        self.add([])

    def close(self) -> None:
        self.ended += "closed"

    def abort(self) -> None:
        self.ended += "aborted"


@pytest.mark.parametrize("error", [SinkError("there", "is full"), ValueError("is full")])
async def test_a_failure_is_told_once_and_the_rest_is_counted(error: Exception) -> None:
    backend = Failing(1, error)
    sink = WriterSink(backend, name="offpath-test")
    for at in range(writer._BATCH * 3):
        sink.write(flow(at))
    with pytest.raises(SinkError, match=r"there: .*is full"):
        await sink.close()
    await sink.close()
    sink.close_now()
    assert "offpath-test" not in {thread.name for thread in threading.enumerate()}
    stats = sink.stats()
    assert (stats.records, stats.failed, stats.dropped) == (writer._BATCH * 3, writer._BATCH * 2, writer._BATCH)
    assert (stats.stored, stats.pending, stats.waiting) == (0, 0, 0)
    assert backend.ended == "aborted"


async def test_a_full_disk_is_told(tmp_path: Path) -> None:
    sink = SqliteSink(tmp_path / "x.db")
    sink._backend._db.execute("PRAGMA max_page_count = 150")  # type: ignore[attr-defined]
    for at in range(20_000):
        sink.write(flow(at))
    with pytest.raises(SinkError, match=r"x\.db: database or disk is full"):
        await sink.close()
    assert count(tmp_path / "x.db", "record_flow") == 0


class Gated(Failing):
    """A backend that waits in its first batch."""

    def __init__(self) -> None:
        super().__init__(1_000, ValueError())
        self.gate = threading.Event()

    def add(self, records: Sequence[Record]) -> None:
        assert self.gate.wait(20)


async def test_flush_waits_for_room_and_is_counted() -> None:
    backend = Gated()
    sink = WriterSink(backend, name="offpath-test")
    for at in range(writer._MOST_RECORDS + writer._BATCH):
        sink.write(flow(at))
    async with anyio.create_task_group() as group:
        group.start_soon(sink.flush)
        await eventually(lambda: sink.stats().waits)
        backend.gate.set()
    assert sink.stats().waiting <= writer._MOST_RECORDS
    await sink.close()
    assert sink.stats().waiting == 0


async def test_close_stores_the_rest_even_when_cancelled(tmp_path: Path) -> None:
    sink = SqliteSink(tmp_path / "x.db")
    sink.write(flow(1))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await sink.close()
    assert sink.closed
    assert count(tmp_path / "x.db", "record_flow") == 1
