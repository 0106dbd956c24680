"""The table of limits in engine/README.md is what the code says."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from engine import CaptureLimits, EngineStats

README = Path(__file__).parents[1] / "engine" / "README.md"


def table() -> list[list[str]]:
    """Limit, default, what happens, count."""
    text = README.read_text(encoding="utf-8").partition("## Limits")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip("` ") for cell in cells] for cells in lines]


def test_every_limit_is_there_with_its_default() -> None:
    assert [(row[0], row[1]) for row in table()] == [
        (name, str(each)) for name, each in asdict(CaptureLimits()).items()
    ]


def test_every_count_is_one_of_the_summary() -> None:
    counts = EngineStats().flat()
    assert all(row[3] in counts for row in table())


def test_every_limit_says_what_happens() -> None:
    assert all(re.match("[a-z]", row[2]) for row in table())
