"""A process that stores windows is killed at random moments: the file has whole windows, each of them once."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from engine.sinks.schema import open_to_read
from engine.values.errors import SinkError
from tests.sinks.measured import ALERTS, KEYS, start_of

ROOT = Path(__file__).parents[2]
WINDOWS = 12
KILLS = 10


def feed(path: Path, kill_after: int | None) -> int:
    """Run the program, and kill it when it has made so many steps; how many it made."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.sinks.measured", str(path), str(WINDOWS)], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        made = 0
        while process.stdout.read(1):
            made += 1
            if made == kill_after:
                process.kill()
    assert process.returncode == (0 if kill_after is None else -9)
    return made


def stored(path: Path) -> set[float]:
    """The starts of all windows, after a look at whether all is well."""
    with closing(open_to_read(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.execute("PRAGMA query_only = OFF")
        db.execute("INSERT INTO document_text (document_text, rank) VALUES ('integrity-check', 1)")  # raises
        windows = db.execute("SELECT id, number, start, first, last FROM windows").fetchall()
        for window, number, start, first, last in windows:
            assert start == start_of(number)
            within = "WHERE seq BETWEEN ? AND ?"
            messages = db.execute(f"SELECT message FROM record_alert {within}", (first, last)).fetchall()
            assert sorted(messages) == sorted((f"{number}:{at}",) for at in range(ALERTS))
            (documents,) = db.execute(f"SELECT count(*) FROM record_document {within}", (first, last)).fetchone()
            assert documents == ALERTS
            counted = db.execute(
                "SELECT count(*), max(m1) FROM counters_1 WHERE window = ? AND key LIKE '0A%'", [window]
            )
            assert counted.fetchone() == (KEYS, number)
        for table, each in (("record_alert", ALERTS), ("record_document", ALERTS), ("counters_1", KEYS + 1)):
            exists = db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
            count = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] if exists else 0
            assert count == each * len(windows)  # none that belong to no window
        starts = [start for _, _, start, _, _ in windows]
    assert len(set(starts)) == len(starts)
    return set(starts)


@pytest.mark.parametrize("seed", range(5))
def test_a_kill_leaves_whole_windows_and_a_restart_no_duplicates(tmp_path: Path, seed: int) -> None:
    path, chosen = tmp_path / "x.db", random.Random(seed)
    steps, before = WINDOWS * 5 + 1, set[float]()
    for _ in range(KILLS):
        feed(path, chosen.randint(1, steps))
        try:
            now = stored(path)
        except SinkError as exc:  # killed before there was a first table
            assert "is empty" in str(exc)
            now = set()
        assert before <= now  # what was stored once stays
        before = now
    feed(path, None)
    assert stored(path) == {start_of(number) for number in range(WINDOWS)}
    with closing(open_to_read(path)) as db:
        assert db.execute("SELECT count(*) FROM record_flow").fetchone() == (WINDOWS + 1,)
