"""Answers of queries as text: a table for people, JSON, or CSV. Rows in, text out."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from engine.cli.drawing import number
from engine.sinks.queries import Rows
from engine.stream.builtin_groups import NAMED_GROUPS

_TIMES = frozenset({"start", "end", "time"})
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LEFT_OUT = frozenset({"tags", "attributes", "meters", "duration", "terminated", "extra"})
_GROUPS = {guid: name for _, name, guid in NAMED_GROUPS}
_CELL = 60  # characters of a text in a table; JSON and CSV have all of it


def as_table(rows: Rows) -> list[str]:
    """Aligned lines under their names; times in UTC, long texts cut, columns without a value left out."""
    kept = [at for at, name in enumerate(rows.columns) if name not in _LEFT_OUT or any(row[at] for row in rows.rows)]
    names = [rows.columns[at] for at in kept]
    cells = [[_cell(name, row[at]) for at, name in zip(kept, names, strict=True)] for row in rows.rows]
    right = [_is_number(name, [row[at] for row in rows.rows]) for at, name in zip(kept, names, strict=True)]
    headings = _headings(rows)
    heads = [headings[at] for at in kept]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    return [_aligned(row, widths, right) for row in (heads, ["-" * width for width in widths], *cells)]


def _headings(rows: Rows) -> list[str]:
    units = ["" for _ in rows.columns[len(rows.units) :]] + list(rows.units)
    return [f"{name}, {unit}" if unit else name for name, unit in zip(rows.columns, units, strict=True)]


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = zip(cells, widths, right, strict=True)
    return "  ".join(cell.rjust(width) if flush else cell.ljust(width) for cell, width, flush in padded).rstrip()


def _is_number(name: str, values: Sequence[Any]) -> bool:
    return name not in _TIMES and any(isinstance(each, int | float) for each in values)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in _TIMES:
        return moment(value)
    if name == "group":
        value = _GROUPS.get(value, value)
    if isinstance(value, float):
        return number(value) if math.isfinite(value) else str(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = _CONTROLS.sub(_escape, text)
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


def _escape(found: re.Match[str]) -> str:
    """Control characters come from captures: a terminal must not obey them."""
    sign = found.group()
    return " " if sign in "\n\r\t" else f"\\x{ord(sign):02x}"


def moment(seconds: float) -> str:
    """A time in UTC, with milliseconds when it has such."""
    time = datetime.fromtimestamp(round(seconds, 3), UTC)
    text = time.strftime("%Y-%m-%d %H:%M:%S")
    return text if not time.microsecond else f"{text}.{time.microsecond // 1_000:03d}"


def as_json(rows: Rows) -> str:
    """One array of objects; numbers that JSON lacks become null."""
    return json.dumps(rows.as_json(), indent=1)


def as_csv(rows: Rows) -> str:
    """Names, then rows; mappings and lists as JSON."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows.columns)
    writer.writerows(
        [json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value for value in row]
        for row in rows.rows
    )
    return out.getvalue().removesuffix("\n")
