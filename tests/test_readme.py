"""Every code block of the README is run, and what it is said to print is what it prints.

The word behind the language says how: `file=NAME` writes the block to a file, `run` runs the commands in the folder of
these files and compares their output, `hook` is Lua for the inside of a hook. Commands of other blocks must exist.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from engine import Engine
from engine.cli.app import app

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "engine/README.md", "benchmarks/README.md")


class Block(NamedTuple):
    """A fenced block: language, the word behind it, text."""

    language: str
    how: str
    text: str


def blocks(document: str) -> list[Block]:
    """All fenced blocks that name a language."""
    found = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    return [Block(*each) for each in found]


def write_files(folder: Path) -> None:
    """Put the blocks that are files into a folder."""
    for block in blocks("README.md"):
        if block.how.startswith("file="):
            (folder / block.how.removeprefix("file=")).write_text(block.text)


def commands(text: str) -> list[tuple[str, str]]:
    """Each command of a console block with the output that is printed below it."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


def test_commands_print_what_the_readme_says(tmp_path: Path) -> None:
    write_files(tmp_path)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    shown = [each for block in blocks("README.md") if block.how == "run" for each in commands(block.text)]
    assert len(shown) >= 3
    for command, expected in shown:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout == expected, f"{command}: {done.stderr}"


def test_every_block_is_either_run_or_checked() -> None:
    for document in DOCUMENTS:
        for block in blocks(document):
            known = block.language == "console" or block.how == "hook" or block.how.startswith("file=")
            assert known, f"{document}: nothing runs this block:\n{block.text}"


async def test_lua_for_hooks_runs(tmp_path: Path) -> None:
    inside = [block.text for block in blocks("README.md") if block.how == "hook"]
    assert inside
    script = tmp_path / "hook.lua"
    body = "\n".join(inside)
    script.write_text(f'TrisulPlugin = {{ id = {{ name = "h" }}, onload = function()\n{body}\nend }}')
    async with asyncio.timeout(20), Engine(scripts=[script]) as engine:
        assert engine.load_errors == ()
    assert engine.stats.script_errors == 0
    assert engine.stats.tasks.completed == len(inside)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_other_commands_exist(document: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for block in blocks(document):
        if block.language != "console" or block.how:
            continue
        for command, _ in commands(block.text):
            words = command.split()
            if words[0] == "make":
                assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), command
            elif words[0] == "offpath":
                shown = CliRunner().invoke(app, [words[1], "--help"], env={"COLUMNS": "200"}).output
                for option in re.findall(r"--[a-z-]+", command):
                    assert option in shown, f"{command}: there is no {option}"
            elif words[0] == "python" and words[1].startswith("scripts/"):
                shown = subprocess.run(
                    [sys.executable, ROOT / words[1], "--help"],
                    env=os.environ | {"PYTHONPATH": str(ROOT)},
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
                for option in re.findall(r"--[a-z-]+", command):
                    assert option in shown, f"{command}: there is no {option}"
            else:
                assert command.startswith(("pip install", "python -m benchmarks")), f"cannot check: {command}"


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text()):
            assert target.startswith("http") or (folder / target).exists(), f"{document}: {target}"
