"""Reports as text for a terminal. Pure: a report in, lines out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.harness import Benchmark, Ratio, Report, Spread
from engine.cli.drawing import number


def spread(values: Spread) -> str:
    """``median (low-high)``; the number alone when all repeats agree."""
    low, middle, high = (number(each) for each in (values.low, values.median, values.high))
    return middle if low == high else f"{middle} ({low}-{high})"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines under a rule: the first column to the left, the others to the right."""
    widths = [max(len(row[at]) for row in (headings, *rows)) for at in range(len(headings))]
    rule = ["-" * width for width in widths]
    return ["  ".join(_cells(row, widths)).rstrip() for row in (headings, rule, *rows)]


def _cells(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    padded = zip(row, widths, strict=True)
    return [cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(padded)]


def report_lines(report: Report) -> list[str]:
    """Ratios, then the table, then what to know about it."""
    headings, *rows = series_cells(report)
    ratios = [f"* {ratio_text(each)}" for each in report.ratios]
    return [f"{report.name}: {report.title}", "", *ratios, "", *table(headings, rows), "", *report.notes]


def ratio_text(ratio: Ratio) -> str:
    """A ratio as a sentence, with what was aimed at."""
    goal = f" (goal: {ratio.goal})" if ratio.goal else ""
    return ratio.text.format(spread(ratio.spread)) + goal


def series_cells(report: Report) -> list[list[str]]:
    """The cells of a report's table, headings first. What there is less of, ways or metrics, goes across.

    Ways that could not be measured say so, with what to do about it.
    """
    cells = [["", *(column.heading for column in report.columns)]]
    for way, metrics in report.series.items():
        cells.append([way, *(_cell(metrics.get(column.metric)) for column in report.columns)])
    for way, install in report.missing.items():
        cells.append([f"{way} ({install})", *["not installed"] * len(report.columns)])
    if len(cells) - 1 < len(report.columns):
        return [list(row) for row in zip(*cells, strict=True)]
    return cells


def _cell(values: Spread | None) -> str:
    return "-" if values is None else spread(values)


def list_lines(benchmarks: Mapping[str, Benchmark]) -> list[str]:
    """The benchmarks, one a line."""
    width = max(map(len, benchmarks), default=0)
    return [f"{each.name:<{width}}  {each.line}" for each in benchmarks.values()]
