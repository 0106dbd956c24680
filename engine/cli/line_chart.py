"""Panels of lines over a common axis of numbers, as SVG text. Numbers in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.cli.drawing import (
    COLOURS,
    MARGIN,
    TEXT,
    WIDTH,
    Scale,
    document,
    head,
    legend,
    linear_scale,
    number,
    scale_for,
    text_at,
    text_width,
)

_ACROSS = 2
_GAP = 36  # between panels
_PLOT = 150  # height of what lies between the axes
_TALL = 260  # of a panel that has the page for itself
_ABOVE, _BELOW = 34, 62  # the title of a panel; its ticks and the axis
_LEGEND = 36
_DOTTED = 16  # points of a line, up to which each is marked


@dataclass(frozen=True, slots=True)
class Panel:
    """What is measured, in which unit, and for each line its value at each place along the axis."""

    title: str
    lines: Sequence[Sequence[float]]
    logarithmic: bool = False
    """Whether the scale may be so, when values span more than two decades."""


@dataclass(frozen=True, slots=True)
class LineChart:
    """What a chart shows. `axis` says what lies along the panels, and in which unit."""

    title: str
    subtitle: str
    axis: str
    along: Sequence[float]
    """Rising, from 0 or above."""
    panels: Sequence[Panel]
    names: Sequence[str] = ()
    """Of the lines of each panel; without them there is no legend."""


def svg(chart: LineChart) -> str:
    """The chart as an SVG document. Raises `ValueError` when there is nothing to show, or no value for a place."""
    if not chart.along or not chart.panels or not all(panel.lines for panel in chart.panels):
        raise ValueError("a chart needs at least one panel with a line, and one place along the axis")
    body, top = head(chart.title, chart.subtitle)
    if chart.names:
        body += legend(chart.names, MARGIN, top)
        top += _LEGEND
    across = min(_ACROSS, len(chart.panels))
    plot = _TALL if across == 1 else _PLOT
    width = (WIDTH - 2 * MARGIN - (across - 1) * _GAP) / across
    for index, panel in enumerate(chart.panels):
        row, column = divmod(index, across)
        left, above = MARGIN + column * (width + _GAP), top + row * (_ABOVE + plot + _BELOW)
        body += _panel(panel, chart, left, left + width, above, plot)
    rows = -(-len(chart.panels) // across)
    return document(chart.title, _description(chart), body, top + rows * (_ABOVE + plot + _BELOW) + 12)


def _description(chart: LineChart) -> str:
    """The chart in words, for those who do not see it."""
    told = (
        f"{', '.join(filter(None, (panel.title, name)))}: {number(line[0])} at first, {number(line[-1])} at last, "
        f"{number(min(line))} to {number(max(line))}"
        for panel in chart.panels
        for name, line in zip(chart.names or [""] * len(panel.lines), panel.lines, strict=True)
    )
    return f"{chart.axis} to {number(chart.along[-1])}. {'; '.join(told)}."


def _panel(panel: Panel, chart: LineChart, left: float, right: float, top: float, plot: float) -> Iterator[str]:
    upper, lower = top + _ABOVE, top + _ABOVE + plot
    values = [value for line in panel.lines for value in line]
    if panel.logarithmic:
        high = scale_for(values, lower, upper)
    else:
        high = linear_scale(max(*values, 1e-9), lower, upper, most=4)
    names = [number(tick) for tick in high.ticks()]
    start = left + max(text_width(name, TEXT) for name in names) + 10
    along = Scale(start, right - 14, 0.0, max(chart.along[-1], 1e-9), most=6)
    title = f"{panel.title}, logarithmic scale" if high.logarithmic else panel.title
    yield text_at(left, top + 20, title, TEXT, 'font-weight="600"')
    for tick, name in zip(high.ticks(), names, strict=True):
        y = high.place(tick)
        yield f'<line class="grid" x1="{start:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}"/>'
        yield text_at(start - 8, y + TEXT * 0.35, name, TEXT, 'class="quiet" text-anchor="end"')
    for tick in along.ticks():
        yield text_at(along.place(tick), lower + 22, number(tick), TEXT, 'class="quiet" text-anchor="middle"')
    yield text_at((start + right) / 2, lower + 42, chart.axis, TEXT, 'class="quiet" text-anchor="middle"')
    for at, line in enumerate(panel.lines):
        # A line alone has the colour that stands out best.
        # Of lines on top of each other, those below are wider.
        colour, below = at % COLOURS if chart.names else 1, len(panel.lines) - 1 - at
        points = [(along.place(x), high.place(value)) for x, value in zip(chart.along, line, strict=True)]
        yield from _line(points, colour, below)


def _line(points: Sequence[tuple[float, float]], colour: int, below: int) -> Iterator[str]:
    wide = f' style="stroke-width: {1.8 + 2 * below:.1f}"' if below else ""
    yield f'<path class="line line{colour}"{wide} d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'
    if len(points) <= _DOTTED:
        for x, y in points:
            yield f'<circle class="bar{colour}" cx="{x:.1f}" cy="{y:.1f}" r="{3.5 + 1.5 * below:.1f}"/>'
