"""A sink that can't store: told once, counted, and neither the engine nor other sinks stop."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from engine import Capture, Engine
from engine.sinks.sqlite import SqliteSink
from engine.sinks.writer import WriterSink
from engine.values.errors import SinkError
from engine.values.records import Record
from engine.values.stats import SinkStats
from engine.values.windows import Window
from tests.capture.packets import pcap, udp
from tests.scripts import ALERTS, Collector, plugin, write

WINDOWS, PACKETS = 5, 40
COUNT = plugin(
    f"""simplecounter = {{ protocol_guid = "{{0A2C724B-5B9F-4BA6-9C97-B05080558574}}", onpacket = function(engine)
      n = (n or 0) + 1
      for key = 1, 50 do engine:update_counter("{{11111111-0000-4000-8000-000000000000}}", n .. " " .. key, 0, 1) end
      engine:add_alert("{ALERTS}", nil, "sig", 1, ("m"):rep(500)) end }}"""
)


@pytest.fixture
def capture(tmp_path: Path) -> Capture:
    path = tmp_path / "in.pcap"
    times = [60.0 * window + at for window in range(WINDOWS) for at in range(PACKETS)]
    path.write_bytes(pcap([(time, udp(("10.0.0.1", 4000), ("10.0.0.2", 53), b"q")) for time in times]))
    return Capture(path)


def assert_closed(stats: SinkStats) -> None:
    """What came in is stored or lost, and nothing waits any more."""
    assert stats.records == stats.stored + stats.lost
    assert stats.windows == stats.windows_stored + stats.windows_lost
    assert (stats.pending, stats.waiting, stats.windows_waiting) == (0, 0, 0)


async def run(script: Path, capture: Capture, sink: WriterSink) -> tuple[Engine, Collector, str]:
    """Read a capture into a sink that fails; the engine, what another sink got, and the error at the end."""
    other = Collector()
    engine = Engine([script], sinks=[sink, other])
    with pytest.raises(SinkError) as caught:
        async with engine:
            await engine.run(capture)
            await engine.run(capture)  # it goes on after the failure
    return engine, other, str(caught.value)


class Store:
    """A backend that stores so many windows."""

    path = "there"

    def __init__(self, windows: int) -> None:
        self.left = windows

    def add(self, records: Sequence[Record]) -> None:
        """All records are stored."""

    def window(self, window: Window) -> None:
        if not self.left:
            raise SinkError(self.path, "is full")
        self.left -= 1

    def close(self) -> None:
        """As always."""

    def abort(self) -> None:
        """As always."""


async def test_the_engine_and_other_sinks_go_on(tmp_path: Path, capture: Capture) -> None:
    engine, other, error = await run(write(tmp_path, COUNT), capture, WriterSink(Store(2), name="offpath-test"))
    assert error == "there: is full"
    assert len(other.of("alert")) == 2 * WINDOWS * PACKETS
    assert len(other.of("summary")) == 1
    [stats] = engine.stats.sinks
    assert_closed(stats)
    assert (stats.name, stats.windows, stats.windows_stored) == ("there", 2 * WINDOWS, 2)
    assert (stats.windows_failed, stats.windows_dropped) == (1, 2 * WINDOWS - 3)
    assert stats.stored >= 2 * PACKETS
    assert stats.failed >= PACKETS
    assert stats.dropped >= PACKETS
    assert engine.stats.flat()["sinks_windows_failed"] == 1


async def test_a_failure_is_logged_once(tmp_path: Path, capture: Capture) -> None:
    _, other, _ = await run(write(tmp_path, COUNT), capture, WriterSink(Store(0), name="offpath-test"))
    assert other.logged("ERROR") in ([], ["there: is full; it gets nothing more"])  # none if it is at the very end


async def test_a_full_disk_leaves_whole_windows(tmp_path: Path, capture: Capture) -> None:
    sink = SqliteSink(tmp_path / "x.db")
    sink._backend._db.execute("PRAGMA max_page_count = 110")  # type: ignore[attr-defined]
    engine, other, error = await run(write(tmp_path, COUNT), capture, sink)
    assert error.endswith("x.db: database or disk is full")
    assert len(other.of("alert")) == 2 * WINDOWS * PACKETS
    [stats] = engine.stats.sinks
    assert_closed(stats)
    assert 0 < stats.windows_stored < 2 * WINDOWS
    assert stats.seconds > 0
    with closing(sqlite3.connect(tmp_path / "x.db")) as db:
        [windows] = db.execute("SELECT count(*) FROM windows").fetchone()
        assert db.execute("SELECT count(*) FROM record_alert").fetchone() == (windows * PACKETS,)
        assert 0 < windows <= stats.windows_stored


async def test_another_writer_in_between_is_told(tmp_path: Path, capture: Capture) -> None:
    sink = SqliteSink(tmp_path / "x.db")
    mine = sink._backend._db  # type: ignore[attr-defined]
    mine.execute("COMMIT")
    mine.execute("PRAGMA busy_timeout = 10")
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as theirs:
        theirs.execute("BEGIN IMMEDIATE")
        engine, _, error = await run(write(tmp_path, COUNT), capture, sink)
    assert error.endswith("x.db: is locked: another program writes to it")
    [stats] = engine.stats.sinks
    assert_closed(stats)
    assert stats.stored == stats.windows_stored == 0
