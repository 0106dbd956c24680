"""`offpath query`: questions, formats, drawings and refusals; and what `run --db` leaves for it."""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from engine.capture.synth import synthesize
from engine.cli.app import app
from engine.sinks.sqlite import SqliteSink
from tests.sinks.measured import key_of, records_of, start_of, window

RUN = [sys.executable, "-c", "from engine.cli.app import main; main()", "run"]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("query") / "x.db"
    sink = SqliteSink(path, source="test")
    for number in range(10):
        for record in records_of(number):
            sink.write(record)
        sink.write_window(window(number))
    sink.close_now()
    return path


def ask(*args: object) -> Result:
    return CliRunner().invoke(app, ["query", *map(str, args)], prog_name="offpath")


def rows(*args: object) -> list[dict[str, object]]:
    result = ask(*args, "--format", "json")
    assert result.exit_code == 0, result.stderr
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("group", ["Hosts", "hosts", "{4cd742b1-c1ca-4708-be78-0fca2eb01a86}"])
def test_toppers_are_those_of_all_windows(database: Path, group: str) -> None:
    found = rows(database, "toppers", group, "total", "--limit", 2)
    assert found == [
        {"rank": 1, "key": key_of(199), "label": "", "Total": 199.0},
        {"rank": 2, "key": key_of(198), "label": "", "Total": 198.0},
    ]
    assert rows("--db", database, "toppers", group, 1, "--limit", 1)[0]["Packets"] == 45.0
    assert rows(database, "toppers", group, 1, "--limit", 1, "--from", "-2m")[0]["Packets"] == 17.0


def test_a_series_by_key_or_label(database: Path) -> None:
    by_key = rows(database, "series", "hosts", key_of(2))
    assert by_key == rows(database, "series", "hosts", "second.example")
    assert [each["Packets"] for each in by_key] == [float(n) for n in range(10)]
    some = rows(database, "series", "hosts", key_of(2), 1, "--from", int(start_of(3)), "--to", int(start_of(5)))
    assert some == [{"start": start_of(n), "end": start_of(n + 1), "Packets": float(n)} for n in (3, 4)]


def test_records_newest_first(database: Path) -> None:
    assert [each["message"] for each in rows(database, "alerts", "--limit", 2)] == ["9:29", "9:28"]
    assert [each["id"] for each in rows(database, "flows", "--to", "2026-01-02T03:01:00Z")] == ["f0"]
    assert rows(database, "resources") == []


def test_search(database: Path) -> None:
    assert len(rows(database, "search", "host3.example", "index*", "--limit", 100)) == 30
    assert [each["id"] for each in rows(database, "search", "host3 index7.html")] == ["3.7"]
    assert rows(database, "search", 'no" AND (such') == []


def test_groups_and_windows(database: Path) -> None:
    (group,) = rows(database, "groups")
    assert (group["name"], group["windows"], group["most_keys"]) == ("Hosts", 10, 201)
    assert group["meters"] == "0 Total, 1 Packets, 2 Longest wait"
    found = rows(database, "windows", "--limit", 3)
    assert [(each["number"], each["records"], each["keys"]) for each in found] == [(n, 61, 201) for n in (9, 8, 7)]


def test_formats(database: Path) -> None:
    table = ask(database, "alerts", "--limit", 1).stdout.splitlines()
    assert len(table) == 3
    assert "2026-01-02 03:09:29" in table[2]
    text = ask(database, "alerts", "--limit", 1, "--format", "csv").stdout
    (found,) = csv.DictReader(io.StringIO(text))
    assert (found["message"], found["extra"]) == ("9:29", '{"n": 29}')


def test_drawings(database: Path, tmp_path: Path) -> None:
    for at, words in enumerate((("toppers", "hosts", "0"), ("series", "hosts", key_of(2)))):
        out = tmp_path / f"{at}.svg"
        assert ask(database, *words, "--plot", out).exit_code == 0
        assert ElementTree.parse(out).getroot().tag.endswith("svg")
        drawn = ask(database, *words, "--plot", "-")
        assert (drawn.exit_code, "█" in drawn.stdout) == (0, True)
    assert ask(database, "alerts", "--plot", "-").exit_code == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["toppers", "nix", "0"], "no counter group 'nix', there are: Hosts"),
        (["toppers", "hosts", "nix"], "no meter 'nix' in Hosts, there are: 0 Total, 1 Packets, 2 Longest wait"),
        (["series", "hosts", "nix"], "no key 'nix' in Hosts: offpath query FILE toppers shows some"),
        (["toppers", "hosts"], "write it as: toppers GROUP METER"),
        (["fly"], "no question 'fly', there are toppers, series, alerts, resources, flows, search, groups, windows"),
        ([], "ask a question: toppers, series, alerts, resources, flows, search, groups, windows"),
        (["alerts", "--from", "soon"], "'soon' is no time: "),
        (["search", "*"], "nothing to search for: give a word"),
    ],
)
def test_refusals_are_one_line_and_exit_code_2(database: Path, words: list[str], line: str) -> None:
    result = ask(database, *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = ask(tmp_path / "none.db", "alerts")
    assert (result.exit_code, result.stderr) == (2, f"{tmp_path / 'none.db'}: No such file or directory\n")


SCRIPT = """
TrisulPlugin = { id = { name = "x" }, filex_monitor = { onfile_http = function(engine, ts, flow, path, request)
  engine:add_alert("{B5F1DECB-51D5-4395-B71B-6FA730B772D9}", flow:id(), "sig", 1, request:get_path())
end } }
"""


def test_killed_runs_leave_nothing_and_the_same_capture_is_stored_once(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "in.pcap", files=300, seed=1)
    (tmp_path / "x.lua").write_text(SCRIPT)
    command = [*RUN, "x.lua", "--capture", "in.pcap", "--db", "x.db"]
    chosen = random.Random(4)
    for _ in range(5):
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
            try:
                process.wait(chosen.uniform(0.3, 1.2))
            except subprocess.TimeoutExpired:
                process.kill()
    fresh = [*command[:-1], "fresh.db"]
    for each in (command, command, fresh):
        subprocess.run(each, cwd=tmp_path, stdout=subprocess.DEVNULL, check=True, timeout=60)
    alerts = rows(tmp_path / "x.db", "alerts", "--limit", 10_000)
    assert len(alerts) >= len(made.files)
    assert alerts == rows(tmp_path / "fresh.db", "alerts", "--limit", 10_000)
    assert len(rows(tmp_path / "x.db", "windows")) == 1
    assert not list(tmp_path.glob("*-wal"))  # no log of a database is left
