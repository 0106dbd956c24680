"""Text of reports: numbers, spreads, alignment, which side goes across."""

from __future__ import annotations

import pytest

from benchmarks.harness import Column, Ratio, Report, Spread
from benchmarks.table import number, report_lines, series_cells, spread, table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.05234, "0.0523"),
        (0.9994, "0.999"),
        (0.9996, "1.00"),
        (8.139, "8.14"),
        (9.996, "10.0"),
        (91.63, "91.6"),
        (99.96, "100"),
        (100.4, "100"),
        (12345.6, "12,346"),
        (3.0, "3"),
    ],
)
def test_numbers_keep_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_spread_shows_its_ends_only_when_they_differ() -> None:
    assert spread(Spread((3.5, 1.5, 2.5))) == "2.50 (1.50-3.50)"
    assert spread(Spread((88.0, 88.0))) == "88"


def test_table_is_aligned() -> None:
    assert table(["", "time"], [["a", "1"], ["long name", "12,345"]]) == [
        "             time",
        "---------  ------",
        "a               1",
        "long name  12,345",
    ]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        table(["a", "b"], [["1", "2", "3"]])


def _report(ways: int, columns: int) -> Report:
    names = [f"m{at}" for at in range(columns)]
    series = {f"way{way}": {name: Spread((way + 1.5,)) for name in names} for way in range(ways)}
    ratios = [Ratio("way1 takes {} times as long", Spread((2.5, 1.5, 3.5)))]
    return Report("name", "title", [Column(name, name, "s") for name in names], series, ratios, ["a note"])


def test_what_there_is_less_of_goes_across() -> None:
    assert series_cells(_report(2, 3)) == [
        ["", "way0", "way1"],
        ["m0, s", "1.50", "2.50"],
        ["m1, s", "1.50", "2.50"],
        ["m2, s", "1.50", "2.50"],
    ]
    assert series_cells(_report(2, 1)) == [["", "m0, s"], ["way0", "1.50"], ["way1", "2.50"]]


def test_ratios_come_before_the_table_and_notes_after() -> None:
    text = "\n".join(report_lines(_report(2, 3)))
    order = [text.index(each) for each in ("name: title", "* way1 takes 2.50 (1.50-3.50) times", "m0, s", "a note")]
    assert order == sorted(order)
