"""`offpath run --db` is killed at random moments: whole windows only, and nothing twice when it is run again."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from engine.cli.app import main
from engine.sinks.schema import RECORD_COLUMNS, open_to_read
from engine.values.errors import SinkError
from tests.capture.packets import pcap, udp

WINDOWS, PACKETS, KEYS = 6, 60, 40
KILLS = 10
START = 1_700_000_040
GROUP = "{11111111-2222-4333-8444-555555555555}"
ALERTS = "{B5F1DECB-51D5-4395-B71B-6FA730B772D9}"
# Each step is a byte to the descriptor in T.args, at once: nothing is held back when the process is killed.
SCRIPT = f"""
local ffi = require("ffi")
ffi.cdef("long write(int fd, const void *bytes, size_t count);")
local function step() ffi.C.write(tonumber(T.args), ".", 1) end
local count = 0
TrisulPlugin = {{ id = {{ name = "steps" }},
  onload = step, onunload = step,
  countergroup = {{
    control = {{ guid = "{GROUP}", name = "Keys", description = "", bucketsize = 60 }},
    meters = {{ {{ 0, T.K.vartype.COUNTER, 5, 0, "n", "n" }} }},
  }},
  simplecounter = {{
    protocol_guid = "{{0A2C724B-5B9F-4BA6-9C97-B05080558574}}",
    onpacket = function(engine)
      count = count + 1
      for key = 1, {KEYS} do engine:update_counter("{GROUP}", "key " .. key, 0, key) end
      engine:add_alert("{ALERTS}", nil, "sig", 1, "alert " .. count)
      if count % 10 == 0 then step() end
    end,
  }},
  cg_monitor = {{
    counter_guid = "{GROUP}",
    onbeginflush = step, onflush = function() step() end, onendflush = step,
  }},
}}
"""


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    (folder / "steps.lua").write_text(SCRIPT)
    times = [START + 60 * window + at for window in range(WINDOWS) for at in range(PACKETS)]
    packets = [udp((f"10.0.0.{at % 50 + 1}", 4000), ("10.0.1.1", 53), b"q") for at in range(len(times))]
    (folder / "in.pcap").write_bytes(pcap(list(zip(times, packets, strict=True))))
    return folder


def offpath(folder: Path, db: Path, steps: Connection) -> None:
    """The command as a whole. In a process."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    script, capture = (str(folder / name) for name in ("steps.lua", "in.pcap"))
    sys.argv = ["offpath", "run", script, "--capture", capture, "--db", str(db), "--args", str(steps.fileno())]
    main()


def feed(folder: Path, db: Path, kill_after: int | None) -> int:
    """Run the command, and kill it when it has made so many steps; how many it made."""
    context = multiprocessing.get_context("forkserver")  # what is imported once need not be at each run
    context.set_forkserver_preload(["engine.cli.app", "engine.cli.runner", "engine.sinks.parquet", __name__])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=offpath, args=(folder, db, theirs))
    process.start()
    theirs.close()
    made = 0
    with ours:
        while os.read(ours.fileno(), 1):
            made += 1
            if made == kill_after:
                process.kill()
    process.join()
    assert process.exitcode == (0 if kill_after is None or made < kill_after else -signal.SIGKILL)
    process.close()
    return made


Contents = dict[float, dict[str, list[tuple[object, ...]]]]
"""By start of a window, rows of each table without the numbers that differ from run to run."""


def stored(path: Path) -> Contents:
    """What a database holds. Fails when it is broken or has rows that belong to no window, or windows twice."""
    with closing(open_to_read(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found: Contents = {}
        seen: Counter[str] = Counter()
        windows = db.execute("SELECT id, start, first, last FROM windows ORDER BY start").fetchall()
        groups = [number for (number,) in db.execute("SELECT id FROM groups")]
        for window, start, first, last in windows:
            assert start not in found
            rows = found[start] = {}
            for kind, columns in RECORD_COLUMNS.items():
                named = ", ".join(f'"{each}"' for each in columns)
                query = f"SELECT {named} FROM record_{kind} WHERE seq BETWEEN ? AND ? ORDER BY seq"
                rows[kind] = db.execute(query, (first, last)).fetchall()
            for group in groups:
                query = f"SELECT * FROM counters_{group} WHERE window = ? ORDER BY key"
                rows[f"counters_{group}"] = [row[1:] for row in db.execute(query, (window,))]
            query = 'SELECT "group", meter, smallest, rank, key, value FROM toppers WHERE window = ?'
            rows["toppers"] = sorted(db.execute(query, (window,)).fetchall())
            seen.update({name: len(each) for name, each in rows.items()})
        tables = [*(f"record_{kind}" for kind in RECORD_COLUMNS), *(f"counters_{group}" for group in groups), "toppers"]
        for table in tables:
            (count,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert count == seen[table.removeprefix("record_")], f"{table} has rows of no window"
    for rows in found.values():  # told once a run, and with other times in each
        rows["summary"] = [row[:1] for row in rows["summary"]]
        # A hook that was held up by the machine is warned of, at one run and not at another.
        rows["log"] = [row[-1:] for row in rows["log"] if not any("held the loop" in str(each) for each in row)]
    return found


def without_rest(contents: Contents) -> Contents:
    """Without what comes after the last window: it is stored as the rest of that one when the run ends."""
    return {start: {**rows, "summary": [], "log": []} for start, rows in contents.items()}


@pytest.fixture(scope="module")
def whole(room: Path) -> tuple[int, Contents]:
    """Steps of a run that nobody kills, and what it stores."""
    steps = feed(room, room / "whole.db", None)
    contents = stored(room / "whole.db")
    assert [*contents] == [START + 60 * window for window in range(WINDOWS)]
    for rows in contents.values():
        assert len(rows["alert"]) == PACKETS
        assert ("key 7", 7.0 * PACKETS) in rows["counters_1"]
    assert sum(len(rows["summary"]) for rows in contents.values()) == 1
    return steps, contents


def moments(seed: int, steps: int) -> Iterator[int]:
    """Steps after which to kill; some of the first and the last among them."""
    chosen = random.Random(seed)
    yield chosen.choice([1, 2, 3])
    yield steps - chosen.randrange(3)
    for _ in range(KILLS - 2):
        yield chosen.randint(1, steps)


@pytest.mark.parametrize("seed", range(5))
def test_whole_windows_are_left_and_nothing_is_there_twice(
    tmp_path: Path, room: Path, whole: tuple[int, Contents], seed: int
) -> None:
    steps, expected = whole
    path, before = tmp_path / "x.db", set[float]()
    for moment in moments(seed, steps):
        feed(room, path, moment)
        found: Contents = {}
        try:
            found = stored(path)
        except SinkError as exc:  # killed before there was a first table
            assert "is empty" in str(exc) or "No such file" in str(exc)
        assert before <= found.keys(), f"windows were lost: seed {seed}, killed after {moment} steps"
        before = set(found)
        for start, rows in without_rest(found).items():
            assert rows == without_rest(expected)[start], f"seed {seed}, killed after {moment} steps"
    feed(room, path, None)
    assert stored(path) == expected
    feed(room, path, None)  # nothing was killed, and nothing is stored a second time either
    assert stored(path) == expected
