"""Grouped horizontal bars as SVG text. Numbers in, text out; no dependency, and no file is touched.

Every text is given room by its estimated width, so none is cut or lies over another. The chart has its own background
and follows the reader's colour scheme, so it can be read on a light page and on a dark one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.harness import Column, Spread
from engine.cli.drawing import (
    BOLD_GLYPH,
    COLOURS,
    MARGIN,
    TEXT,
    WIDTH,
    Scale,
    document,
    head,
    legend,
    number,
    scale_for,
    text_at,
    text_width,
)

_BAR, _GAP, _GROUP_GAP = 18, 5, 22


@dataclass(frozen=True, slots=True)
class Bar:
    """One number, with the lowest and highest of its repeats. Without labels there is no legend."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Group:
    """Bars that belong together. Those with the same label have the same colour in all groups."""

    label: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Chart:
    """What a chart shows. `title` says what is seen in it, `axis` what is measured and in which unit."""

    title: str
    subtitle: str
    axis: str
    groups: Sequence[Group]


def bars(label: str, metrics: Mapping[str, Spread], columns: Sequence[Column]) -> Group:
    """A group with one bar for each of some metrics of a way; one alone needs no legend."""
    spreads = [(column.label if len(columns) > 1 else "", metrics[column.metric]) for column in columns]
    return Group(label, [Bar(name, each.median, each.low, each.high) for name, each in spreads])


def svg(chart: Chart) -> str:
    """The chart as an SVG document. Raises `ValueError` when there is nothing to show."""
    bars = [bar for group in chart.groups for bar in group.bars]
    if not bars:
        raise ValueError("a chart needs at least one bar")
    body, height = _body(chart, bars)
    return document(chart.title, _description(chart), body, height)


def _description(chart: Chart) -> str:
    """The chart in words, for those who do not see it."""
    groups = (
        f"{group.label}: {', '.join(f'{bar.label} {number(bar.value)}' for bar in group.bars)}"
        for group in chart.groups
    )
    return f"{chart.axis}. {'; '.join(groups)}."


def _body(chart: Chart, bars: Sequence[Bar]) -> tuple[list[str], float]:
    left = MARGIN + max(text_width(group.label, TEXT, BOLD_GLYPH) for group in chart.groups) + 12
    right = WIDTH - MARGIN - max(text_width(number(bar.value), TEXT) for bar in bars) - 10
    scale = scale_for([each for bar in bars for each in (bar.value, bar.low, bar.high)], left, right)
    heading, top = head(chart.title, chart.subtitle)
    labels = list(dict.fromkeys(bar.label for bar in bars))
    labelled = any(labels)
    names = legend(labels, left, top) if labelled else []
    top += 40 if labelled else 24
    drawn, bottom = _groups(chart.groups, labels, scale, top)
    axis = f"{chart.axis}, logarithmic scale" if scale.logarithmic else chart.axis
    grid = _grid(scale, axis, top - 10, bottom)
    return [*heading, *names, *grid, *drawn], bottom + 66


def _grid(scale: Scale, axis: str, top: float, bottom: float) -> Iterator[str]:
    for tick in scale.ticks():
        x = scale.place(tick)
        yield f'<line class="grid" x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom + 6:.1f}"/>'
        yield text_at(x, bottom + 24, number(tick), TEXT, 'class="quiet" text-anchor="middle"')
    middle = (scale.left + scale.right) / 2
    yield text_at(middle, bottom + 48, axis, TEXT, 'text-anchor="middle"')


def _groups(groups: Sequence[Group], labels: Sequence[str], scale: Scale, top: float) -> tuple[list[str], float]:
    lines, at = [], top
    for group in groups:
        height = len(group.bars) * (_BAR + _GAP) - _GAP
        place = at + height / 2 + TEXT * 0.35
        lines.append(text_at(scale.left - 12, place, group.label, TEXT, 'font-weight="600" text-anchor="end"'))
        for index, bar in enumerate(group.bars):
            lines += _bar(bar, labels.index(bar.label), scale, at + index * (_BAR + _GAP))
        at += height + _GROUP_GAP
    return lines, at - _GROUP_GAP + 8


def _bar(bar: Bar, colour: int, scale: Scale, top: float) -> Iterator[str]:
    end, low, high = scale.place(bar.value), scale.place(bar.low), scale.place(bar.high)
    middle = top + _BAR / 2
    width = max(end - scale.left, 1.0)
    yield (
        f'<rect class="bar{colour % COLOURS}" x="{scale.left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_BAR}">'
        f"<title>{escape(bar.label)}: {number(bar.value)} ({number(bar.low)}-{number(bar.high)})</title></rect>"
    )
    if high - low > 1:
        ends = "".join(f" M{x:.1f} {middle - 4:.1f} V{middle + 4:.1f}" for x in (low, high))
        yield f'<path class="whisker" fill="none" d="M{low:.1f} {middle:.1f} H{high:.1f}{ends}"/>'
    yield text_at(max(end, high) + 8, middle + TEXT * 0.35, number(bar.value), TEXT)
