"""`offpath synth` as a command: its one line, its manifest, and how it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from engine.cli.synth import synth


def run(*args: str | Path) -> Result:
    app = typer.Typer()
    app.command()(synth)
    return CliRunner().invoke(app, [str(each) for each in args])


def test_says_what_was_written(tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    result = run(out, "--files", "5", "--seed", "3")
    assert result.exit_code == 0
    line = rf"{re.escape(str(out))}: 5 files, \d+ packets, \d+\.\d [kM]B, seed 3\n"
    assert re.fullmatch(line, result.stdout)
    assert result.stderr == ""


def test_counts_incomplete_files_and_lists_them(tmp_path: Path) -> None:
    listing = tmp_path / "out.json"
    result = run(tmp_path / "out.pcap", "--files", "40", "--seed", "7", "--faults", "--manifest", listing)
    assert result.exit_code == 0
    contents = json.loads(listing.read_text(encoding="utf-8"))
    downloads = [each for each in contents["files"] if each["direction"] == "response"]
    incomplete = sum(not each["complete"] for each in downloads)
    assert len(downloads) == 40
    assert incomplete
    assert f": 40 files ({incomplete} incomplete), {contents['packets']} packets, " in result.stdout


def test_defaults_are_twenty_files_of_seed_one(tmp_path: Path) -> None:
    given, default = tmp_path / "a.pcap", tmp_path / "b.pcap"
    assert run(given, "--files", "20", "--seed", "1").exit_code == 0
    assert run(default).exit_code == 0
    assert given.read_bytes() == default.read_bytes()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["out.pcap", "--files", "0"], "files must be at least 1, not 0"),
        (["out.pcap", "--seed", "-1"], "seed must not be negative, not -1"),
        (["missing/out.pcap"], "missing/out.pcap: No such file or directory"),
        (["out.pcap", "--files", "1", "--manifest", "missing/out.json"], "missing/out.json: No such file or directory"),
        (["out.pcap", "--manifest", "out.pcap"], "out.pcap: the manifest can't go into the capture itself"),
    ],
)
def test_refuses_with_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == message + "\n"
