"""Small panels of one line each over a common time, as SVG text. Numbers in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.cli.drawing import MARGIN, TEXT, WIDTH, Scale, document, head, linear_scale, number, text_at, text_width

_ACROSS = 2
_GAP = 36  # between panels
_PLOT = 150  # height of what lies between the axes
_ABOVE, _BELOW = 34, 62  # the title of a panel; its ticks and the axis


@dataclass(frozen=True, slots=True)
class Panel:
    """One line: what is measured, in which unit, and its value at each time."""

    title: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Lines:
    """What a chart shows. `axis` says what the times are, and in which unit."""

    title: str
    subtitle: str
    axis: str
    times: Sequence[float]
    panels: Sequence[Panel]


def svg(chart: Lines) -> str:
    """The chart as an SVG document. Raises `ValueError` when there is nothing to show, or no value for a time."""
    if not chart.times or not chart.panels:
        raise ValueError("a chart needs at least one panel and one time")
    body, top = head(chart.title, chart.subtitle)
    width = (WIDTH - 2 * MARGIN - (_ACROSS - 1) * _GAP) / _ACROSS
    for index, panel in enumerate(chart.panels):
        row, column = divmod(index, _ACROSS)
        left, above = MARGIN + column * (width + _GAP), top + row * (_ABOVE + _PLOT + _BELOW)
        body += _panel(panel, chart, left, left + width, above)
    rows = -(-len(chart.panels) // _ACROSS)
    return document(chart.title, _description(chart), body, top + rows * (_ABOVE + _PLOT + _BELOW) + 12)


def _description(chart: Lines) -> str:
    """The chart in words, for those who do not see it."""
    told = (
        f"{panel.title}: {number(panel.values[0])} at first, {number(panel.values[-1])} at last, "
        f"{number(min(panel.values))} to {number(max(panel.values))}"
        for panel in chart.panels
    )
    return f"{chart.axis} to {number(chart.times[-1])}. {'; '.join(told)}."


def _panel(panel: Panel, chart: Lines, left: float, right: float, top: float) -> Iterator[str]:
    upper, lower = top + _ABOVE, top + _ABOVE + _PLOT
    high = linear_scale(max(*panel.values, 1e-9), lower, upper, most=4)
    names = [number(tick) for tick in high.ticks()]
    start = left + max(text_width(name, TEXT) for name in names) + 10
    along = Scale(start, right - 14, 0.0, max(chart.times[-1], 1e-9), most=6)
    yield text_at(left, top + 20, panel.title, TEXT, 'font-weight="600"')
    for tick, name in zip(high.ticks(), names, strict=True):
        y = high.place(tick)
        yield f'<line class="grid" x1="{start:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}"/>'
        yield text_at(start - 8, y + TEXT * 0.35, name, TEXT, 'class="quiet" text-anchor="end"')
    for tick in along.ticks():
        yield text_at(along.place(tick), lower + 22, number(tick), TEXT, 'class="quiet" text-anchor="middle"')
    yield text_at((start + right) / 2, lower + 42, chart.axis, TEXT, 'class="quiet" text-anchor="middle"')
    points = [(along.place(at), high.place(value)) for at, value in zip(chart.times, panel.values, strict=True)]
    yield f'<path class="line" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'
