"""The public API as strict type checkers of other projects see it: the program in `typed/`, which also runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import on_event, write

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "tests" / "typed" / "service.py"


def run(*command: str | Path) -> str:
    """What a command prints; it must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_mypy_takes_it(tmp_path: Path) -> None:
    told = run(sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", PROGRAM)
    assert "no issues found" in told


def test_pyright_takes_it(tmp_path: Path) -> None:
    checker = shutil.which("basedpyright")  # pyright as a wheel, which fetches nothing when it runs
    if checker is None:
        pytest.skip("basedpyright is not installed: pip install basedpyright")
    settings = {"include": [str(PROGRAM)], "extraPaths": [str(ROOT)], "typeCheckingMode": "strict"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    assert "0 errors, 0 warnings" in run(checker, "-p", tmp_path, "--pythonpath", sys.executable)


def test_it_runs(tmp_path: Path) -> None:
    script = write(tmp_path, on_event("if topic == 'ask' then return T.host.call.double(21) end", topics="{ '**' }"))
    assert run(sys.executable, PROGRAM, script).splitlines() == ["True [42]  7", "1"]
