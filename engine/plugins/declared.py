"""Groups that scripts declare: `countergroup`, `alertgroup`, `resourcegroup` (spec 2.3, 2.18). Checked when loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn

from engine.values.errors import ScriptLoadError
from engine.values.windows import CounterGroup, Meter, MeterType, NamedGroup

_GUID = re.compile(r"\{[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\}")
_MOST_METERS = 64
_BUCKET = 60

Cell = Mapping[str, Any]
"""What declared.lua says of a value: its kind and, when it is a scalar, the value."""

_KINDS: dict[str, Literal["alert", "resource"]] = {"alertgroup": "alert", "resourcegroup": "resource"}


def read_group(script: str, block: str, told: bytes) -> CounterGroup | NamedGroup:
    """The group of a block, out of what declared.lua gave.

    Raises `ScriptLoadError` that names the block, and the row where one is wrong.
    """
    return _Reader(script, block, json.loads(told.decode("utf-8", "replace"))).group()


class _Reader:
    def __init__(self, script: str, block: str, told: Mapping[str, Any]) -> None:
        self._script, self._block, self._told = script, block, told
        self._control: Mapping[str, Cell] = dict(told.get("control") or {})

    def group(self) -> CounterGroup | NamedGroup:
        guid, name = self._guid("guid"), self._text("name")
        if not name:
            self._wrong("control.name is missing")
        description = self._text("description")
        if self._block in _KINDS:
            return NamedGroup(_KINDS[self._block], guid, name, description)
        resolver = self._guid("resolver_guid") if "resolver_guid" in self._control else ""
        return CounterGroup(guid, name, description, self._meters(), self._bucket(), resolver, self._labels())

    def _wrong(self, what: str) -> NoReturn:
        raise ScriptLoadError(self._script, "load", f"{self._block}: {what}")

    def _text(self, field: str) -> str:
        value = self._control.get(field, {}).get("value", "")
        return str(value)

    def _guid(self, field: str) -> str:
        value = self._text(field)
        if not _GUID.fullmatch(value):
            self._wrong(f"control.{field} must be a GUID in braces, not {value!r}")
        return value.upper()

    def _bucket(self) -> float:
        cell = self._control.get("bucketsize")
        seconds = _number(cell) if cell is not None else _BUCKET
        if seconds is None or not 0 < seconds <= 86_400:
            self._wrong(f"control.bucketsize must be a number of seconds, not {_shown(cell or {})}")
        return float(seconds)

    def _meters(self) -> tuple[Meter, ...]:
        rows = self._told.get("meters")
        if not rows:
            self._wrong("meters must be an array with a row for each meter")
        found: dict[int, Meter] = {}
        for number, row in enumerate(rows, 1):
            meter = self._meter(f"meters, row {number}", row)
            if meter.number in found:
                self._wrong(f"meters, row {number}: there is a meter {meter.number} already")
            found[meter.number] = meter
        missing = set(range(len(found))) - found.keys()
        if missing:
            self._wrong(f"meters: there is no meter {min(missing)}, numbers must go from 0 without gaps")
        return tuple(found[number] for number in range(len(found)))

    def _meter(self, place: str, row: Mapping[str, Any]) -> Meter:
        """Seven columns, or six without the number of bottom keys (spec 2.3)."""
        if row["kind"] != "table":
            self._wrong(f"{place}: must be a table, not a {row['kind']}")
        cells: Sequence[Cell] = row["cells"]
        number = self._whole(place, 1, "meter's number", cells[0], most=_MOST_METERS - 1)
        kind = _number(cells[1])
        if kind not in set(MeterType):
            self._wrong(f"{place}, column 2: must be one of T.K.vartype, not {_shown(cells[1])}")
        top = self._whole(place, 3, "number of top keys", cells[2])
        has_bottom = _number(cells[3]) is not None
        bottom = self._whole(place, 4, "number of bottom keys", cells[3]) if has_bottom else 0
        texts = cells[4:7] if has_bottom else cells[3:6]
        if texts[0]["kind"] != "string":
            self._wrong(f"{place}, column {5 if has_bottom else 4}: must be the meter's name, not {_shown(texts[0])}")
        name, description, units = (str(each.get("value", "")) for each in texts)
        return Meter(number, MeterType(int(kind or 0)), name, description, units, top, bottom)

    def _whole(self, place: str, column: int, what: str, cell: Cell, most: int = 1 << 31) -> int:
        value = _number(cell)
        if value is None or value != int(value) or not 0 <= value <= most:
            self._wrong(f"{place}, column {column}: must be the {what}, not {_shown(cell)}")
        return int(value)

    def _labels(self) -> dict[str, str]:
        labels = {}
        for number, row in enumerate(self._told.get("keyinfo") or (), 1):
            cells = row.get("cells") or [{}, {}]
            if any("value" not in cell for cell in cells[:2]):
                self._wrong(f"keyinfo, row {number}: must be a key and its label")
            labels[str(cells[0]["value"])] = str(cells[1]["value"])
        return labels


def _number(cell: Cell) -> float | None:
    """A number, or a text that Lua takes for one."""
    if cell.get("kind") not in ("number", "string"):
        return None
    try:
        return float(cell["value"])
    except (KeyError, ValueError):
        return None


def _shown(cell: Cell) -> str:
    return repr(cell["value"]) if "value" in cell else f"a {cell.get('kind', 'nil')}"
