"""Ranges of time as people give them."""

from __future__ import annotations

import math

import pytest

from engine.sinks.timespan import QueryError, Span, parse_span, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1767322800", 1_767_322_800.0),
        ("1.5", 1.5),
        ("2026-01-02T03:00:00Z", 1_767_322_800.0),
        ("2026-01-02T03:00:00", 1_767_322_800.0),
        ("2026-01-02T04:00:00+01:00", 1_767_322_800.0),
        ("2026-01-02", 1_767_312_000.0),
        ("-90", 10_000.0 - 90),
        ("-10m", 10_000.0 - 600),
        ("-1.5h", 10_000.0 - 5_400),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text, 10_000.0) == seconds


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "-10x", "2026-13-01"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(QueryError, match="is no time: give epoch seconds"):
        parse_time(text, 0.0)


def test_spans() -> None:
    assert parse_span(None, None, 5.0) == Span(-math.inf, math.inf)
    assert parse_span("-5", "10", 10.0) == Span(5.0, 10.0)
    with pytest.raises(QueryError, match="ends before it begins"):
        parse_span("10", "5", 0.0)
