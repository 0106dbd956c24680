"""The command itself: its help, its version, and how it refuses a command line."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner, Result

from engine.cli.app import app


def run(*args: str) -> Result:
    return CliRunner().invoke(app, list(args), prog_name="offpath")


def test_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"offpath {version('offpath')}\n")


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_names_the_commands(args: list[str]) -> None:
    result = run(*args)
    assert result.exit_code == 0
    assert "Usage: offpath" in result.stdout
    assert "run " in result.stdout
    assert "query " in result.stdout
    assert "synth " in result.stdout


def test_no_line_of_the_list_of_commands_is_cut_off() -> None:
    _, commands = run("--help").stdout.split("Commands:")
    assert "..." not in commands


def test_help_of_run_names_every_option_and_exit_code() -> None:
    text = run("run", "--help").stdout
    options = "capture replay loop live duration packets promiscuous ring-mb records workers ramfs args set drain"
    options += " db parquet chunk-mb store store-size no-uvloop verbose"
    assert all(f"--{name}" in text for name in options.split())
    assert all(code in text for code in ("0  ", "1  ", "2  ", "130", "143"))


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["fly"], "offpath: No such command 'fly'."),
        (["run"], "offpath run: Missing argument 'SCRIPT"),
        (["run", "x.lua"], "x.lua: No such file or directory"),
        (["run", "x.lua", "--capture", "x", "--workers", "two"], "offpath run: Invalid value for '--workers'"),
        (["run", "x.lua", "--capture", "x", "--chunk-mb", "0"], "offpath run: Invalid value for '--chunk-mb'"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(args: list[str], line: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1


def test_help_needs_no_display_library() -> None:
    code = "import sys, engine.cli.app; print([name for name in ('rich', 'numpy', 'uvloop') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
