"""Ranges of time as people give them: epoch seconds, ISO 8601, or relative to the newest window. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from engine.values.errors import EngineError

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class QueryError(EngineError):
    """Raised when a query names what is not there, or can't be understood; the message says what there is."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` to before `end`, seconds since the epoch."""

    start: float = -math.inf
    end: float = math.inf


def parse_span(start: str | None, end: str | None, newest: float) -> Span:
    """A range from two texts, either of which may be missing. Raises `QueryError`.

    `newest` is what relative times such as ``-10m`` are relative to.
    """
    span = Span(
        -math.inf if start is None else parse_time(start, newest), math.inf if end is None else parse_time(end, newest)
    )
    if span.start > span.end:
        raise QueryError(f"the time range ends before it begins: {start} to {end}")
    return span


def parse_time(text: str, newest: float) -> float:
    """A time: ``1767322800``, ``2026-01-02T03:00:00Z`` (UTC unless it says so), ``-90s``, ``-10m``, ``-2h``."""
    relative = re.fullmatch(r"-(\d+(?:\.\d+)?)([smhdw]?)", text)
    if relative:
        return newest - float(relative[1]) * _UNITS[relative[2]]
    try:
        seconds = float(text)
    except ValueError:
        return _parse_iso(text)
    if not math.isfinite(seconds):
        raise _not_a_time(text)
    return seconds


def _parse_iso(text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise _not_a_time(text) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _not_a_time(text: str) -> QueryError:
    cure = "give epoch seconds, 2026-01-02T03:04:05Z, or -10m for before the newest window ends"
    return QueryError(f"{text!r} is no time: {cure}")
