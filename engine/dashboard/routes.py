"""The one table of what may be asked over HTTP: paths, parameters, and the queries behind them.

The application answers by this table and `openapi` describes it, so the two can't disagree.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from engine.sinks import queries
from engine.sinks.queries import Rows
from engine.sinks.schema import RECORD_COLUMNS
from engine.sinks.timespan import QueryError, Span, parse_span

MOST_ROWS: Final = 10_000
_LONGEST: Final = 1_000  # characters of a parameter


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of the query string."""

    name: str
    description: str
    required: bool = False
    repeatable: bool = False
    number: int | None = None
    """Set for a whole number from 1 to `MOST_ROWS`: what stands for it when it is not given."""

    def schema(self) -> dict[str, Any]:
        """As JSON Schema."""
        if self.number is not None:
            return {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": self.number}
        text = {"type": "string", "minLength": 1, "maxLength": _LONGEST}
        return {"type": "array", "items": text} if self.repeatable else text

    def read(self, given: Sequence[str]) -> Any:
        """The value of what was given. Raises `QueryError`."""
        if not given:
            if self.required:
                raise QueryError(f"{self.name} is missing: {self.description}")
            return () if self.repeatable else self.number
        if len(given) > 1 and not self.repeatable:
            raise QueryError(f"{self.name} is given {len(given)} times")
        for each in given:
            if not 1 <= len(each) <= _LONGEST:
                raise QueryError(f"{self.name} must have 1 to {_LONGEST} characters")
        if self.number is None:
            return tuple(given) if self.repeatable else given[0]
        if not (given[0].isascii() and given[0].isdigit() and 1 <= int(given[0]) <= MOST_ROWS):
            raise QueryError(f"{self.name} must be a whole number from 1 to {MOST_ROWS}, not {given[0]!r}")
        return int(given[0])


Values = Mapping[str, Any]
"""Parameters by name, as `Param.read` gives them."""

Ask = Callable[[sqlite3.Connection, Values, Span], Rows]


@dataclass(frozen=True, slots=True)
class Route:
    """A question to the database."""

    name: str
    """Also of the question of `offpath query`; the path is ``/api/NAME``."""
    summary: str
    ask: Ask
    params: tuple[Param, ...] = ()
    columns: tuple[str, ...] = ()
    """Names that every row has; there may be others."""

    @property
    def path(self) -> str:
        """Where it is asked."""
        return f"/api/{self.name}"

    def read(self, given: Sequence[tuple[str, str]]) -> Values:
        """The parameters of a query string. Raises `QueryError` for one that is unknown, missing or out of range."""
        known = {each.name for each in self.params}
        for name, _ in given:
            if name not in known:
                raise QueryError(f"no parameter {name!r}, there {_are(sorted(known))}")
        return {each.name: each.read([value for name, value in given if name == each.name]) for each in self.params}

    def question(self, values: Values) -> Callable[[sqlite3.Connection], Rows]:
        """What is asked of a connection; raises `QueryError` when it names what is not there."""

        def ask(db: sqlite3.Connection) -> Rows:
            span = parse_span(values.get("from"), values.get("to"), queries.newest(db))
            return self.ask(db, values, span)

        return ask


def _are(names: Sequence[str]) -> str:
    return f"are: {', '.join(names)}" if names else "are none"


def _toppers(db: sqlite3.Connection, values: Values, span: Span) -> Rows:
    group = queries.find_group(db, values["group"])
    return queries.toppers(db, group, queries.find_meter(group, values["meter"]), span, values["limit"])


def _series(db: sqlite3.Connection, values: Values, span: Span) -> Rows:
    group = queries.find_group(db, values["group"])
    key = queries.find_key(db, group, values["key"])
    meters = [queries.find_meter(group, each) for each in values["meter"]]
    return queries.series(db, group, key, meters, span, values["limit"])


def _records(kind: str) -> Ask:
    return lambda db, values, span: queries.records(db, kind, span, values["limit"])


def _limit(number: int) -> Param:
    return Param("limit", "So many rows at most.", number=number)


_GROUP = Param("group", "A counter group by name or GUID.", required=True)
_SPAN = (
    Param("from", "Epoch seconds, ISO 8601, or -10m before the newest window ends."),
    Param("to", "Up to, but not including this time."),
)

ROUTES: Final = (
    Route(
        "toppers",
        "Keys with the greatest values of a meter over all windows of the time",
        _toppers,
        (_GROUP, Param("meter", "A meter by name or number.", required=True), *_SPAN, _limit(10)),
        ("rank", "key", "label"),
    ),
    Route(
        "series",
        "Meters of a key, window by window",
        _series,
        (
            _GROUP,
            Param("key", "A key or its label.", required=True),
            Param("meter", "Meters by name or number; all of them when none is given.", repeatable=True),
            *_SPAN,
            _limit(1_000),
        ),
        ("start", "end"),
    ),
    *(
        Route(
            f"{kind}s",
            f"Records of kind {kind}, newest first",
            _records(kind),
            (*_SPAN, _limit(100)),
            RECORD_COLUMNS[kind],
        )
        for kind in ("alert", "resource", "flow")
    ),
    Route(
        "search",
        "Documents with all words of a text, best first",
        lambda db, values, span: queries.search(db, values["text"], span, values["limit"]),
        (Param("text", "Words; WORD* stands for all that begin so.", required=True), *_SPAN, _limit(20)),
        ("time", "group", "flow", "id", "text"),
    ),
    Route(
        "groups",
        "Counter groups, their meters, and in how many windows they are",
        lambda db, _values, _span: queries.groups(db),
        (),
        ("name", "guid", "meters", "windows", "most_keys", "description"),
    ),
    Route(
        "windows",
        "What was stored, newest first; number -1 stands for a run in which no window ended",
        lambda db, values, span: queries.windows(db, span, values["limit"]),
        (*_SPAN, _limit(100)),
        ("start", "end", "number", "source", "records", "groups", "keys"),
    ),
)
"""All questions."""
