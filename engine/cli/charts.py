"""Answers of queries as charts: lines over time, and bars. Numbers in, SVG text or lines for a terminal out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from xml.sax.saxutils import escape

from engine.cli.drawing import (
    MARGIN,
    TEXT,
    WIDTH,
    Scale,
    document,
    head,
    linear_scale,
    number,
    text_at,
    text_width,
)

_PLOT = 170  # height between the axes of a line
_ABOVE, _BELOW = 34, 48  # the title of a panel; the times
_BAR, _GAP = 18, 7
_KEY_GLYPH = 0.72  # keys may be capitals and digits only, and are bold
_LABEL = 44  # characters of a key that are shown
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_PARTS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True, slots=True)
class Lines:
    """A panel per measure over common times, seconds since the epoch; None is a gap."""

    title: str
    times: Sequence[float]
    panels: Sequence[tuple[str, Sequence[float | None]]]


@dataclass(frozen=True, slots=True)
class Bars:
    """Names and values, in the order in which they are shown; `axis` says what is measured."""

    title: str
    axis: str
    items: Sequence[tuple[str, float]]


# ---- SVG


def lines_svg(chart: Lines) -> str:
    """The panels, one below the other, as an SVG document."""
    body, top = head(chart.title, f"{_moment(chart.times[0])} to {_moment(chart.times[-1])} UTC")
    scales = [linear_scale(max(*_seen(values), 0.0, 1e-9), _PLOT, 0.0, most=4) for _, values in chart.panels]
    ticks = [number(tick) for scale in scales for tick in scale.ticks()]
    left = MARGIN + max(text_width(tick, TEXT) for tick in ticks) + 10
    for (name, values), scale in zip(chart.panels, scales, strict=True):
        body += _panel(name, chart.times, values, replace(scale, left=top + _ABOVE + _PLOT, right=top + _ABOVE), left)
        top += _ABOVE + _PLOT + _BELOW
    told = "; ".join(
        f"{name}: {number(min(seen))} to {number(max(seen))}"
        for name, values in chart.panels
        if (seen := _seen(values))
    )
    return document(chart.title, told, body, top + 8)


def _panel(
    name: str, times: Sequence[float], values: Sequence[float | None], high: Scale, left: float
) -> Iterator[str]:
    lower, upper = high.left, high.right
    right = WIDTH - MARGIN
    yield text_at(MARGIN, upper - _ABOVE + 20, name, TEXT, 'font-weight="600"')
    for tick in high.ticks():
        y = high.place(tick)
        yield f'<line class="grid" x1="{left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}"/>'
        yield text_at(left - 8, y + TEXT * 0.35, number(tick), TEXT, 'class="quiet" text-anchor="end"')
    along = Scale(left + 8, right - 8, times[0], max(times[-1], times[0] + 1.0))
    for moment in time_ticks(times[0], times[-1], int((right - left) / 90)):
        x = min(max(along.place(moment), left + 30), right - 30)
        yield text_at(x, lower + 24, _clock(moment, times), TEXT, 'class="quiet" text-anchor="middle"')
    yield from _strokes([(along.place(at), value, high) for at, value in zip(times, values, strict=True)])


def _strokes(points: Sequence[tuple[float, float | None, Scale]]) -> Iterator[str]:
    """A path for each run of values without a gap; one value alone is a dot."""
    run: list[str] = []
    for x, value, scale in [*points, (0.0, None, points[0][2])]:
        if value is not None and math.isfinite(value):
            run.append(f"{x:.1f} {scale.place(value):.1f}")
        elif run:
            if len(run) == 1:
                place = run[0].split()
                yield f'<circle class="bar1" cx="{place[0]}" cy="{place[1]}" r="3"/>'
            else:
                yield f'<path class="line" d="M{" L".join(run)}"/>'
            run = []


def bars_svg(chart: Bars) -> str:
    """Horizontal bars as an SVG document."""
    names = [_short(name) for name, _ in chart.items]
    body, top = head(chart.title, chart.axis)
    left = MARGIN + max(text_width(name, TEXT, _KEY_GLYPH) for name in names) + 12
    right = WIDTH - MARGIN - max(text_width(number(value), TEXT) for _, value in chart.items) - 10
    scale = linear_scale(max(*(value for _, value in chart.items), 0.0, 1e-9), left, right)
    top += 12
    for name, (_, value) in zip(names, chart.items, strict=True):
        end = max(scale.place(value), left + 1)
        base = top + _BAR / 2 + TEXT * 0.35
        body.append(text_at(left - 12, base, name, TEXT, 'font-weight="600" text-anchor="end"'))
        body.append(
            f'<rect class="bar1" x="{left:.1f}" y="{top:.1f}" width="{end - left:.1f}" height="{_BAR}">'
            f"<title>{escape(name)}: {number(value)}</title></rect>"
        )
        body.append(text_at(end + 8, base, number(value), TEXT))
        top += _BAR + _GAP
    told = "; ".join(f"{name} {number(value)}" for name, (_, value) in zip(names, chart.items, strict=True))
    return document(chart.title, told, body, top + 16)


# ---- terminal


def lines_text(chart: Lines, width: int, height: int = 8) -> list[str]:
    """The panels as columns of blocks; where there are more times than columns, each shows the greatest of its own."""
    drawn = [chart.title]
    for name, values in chart.panels:
        high = max(*_seen(values), 0.0, 1e-9)
        labels = [number(high), *[""] * (height - 2), "0"]
        margin = max(map(len, labels))
        columns = _columns([value or 0.0 for value in values], max(width - margin - 3, 8))
        drawn += ["", name]
        for row in range(height):
            floor = height - 1 - row
            blocks = (_EIGHTHS[min(max(round(value / high * height * 8) - floor * 8, 0), 8)] for value in columns)
            drawn.append(f"{labels[row]:>{margin}} │{''.join(blocks)}".rstrip())
        start, end = _moment(chart.times[0]), _moment(chart.times[-1])
        gap = max(len(columns) - len(start) - len(end), 4)
        drawn.append(f"{'':>{margin}} └{'─' * len(columns)}")
        drawn.append(f"{'':>{margin}}  {start}{' ' * gap}{end}" if len(chart.times) > 1 else f"{'':>{margin}}  {start}")
    return drawn


def _columns(values: Sequence[float], width: int) -> list[float]:
    """As many values as there is room for; few are made wider."""
    if len(values) <= width:
        wide = max(1, min(width // len(values), 8))
        return [value for value in values for _ in range(wide)]
    edges = [at * len(values) // width for at in range(width + 1)]
    return [max(values[start:end]) for start, end in pairwise(edges)]


def bars_text(chart: Bars, width: int) -> list[str]:
    """A line per bar."""
    names = [_short(name) for name, _ in chart.items]
    margin = max(map(len, names))
    room = max(width - margin - 4 - max(len(number(value)) for _, value in chart.items), 8)
    high = max(*(value for _, value in chart.items), 0.0, 1e-9)
    drawn = [chart.title, chart.axis, ""]
    for name, (_, value) in zip(names, chart.items, strict=True):
        eighths = round(max(value, 0.0) / high * room * 8)
        bar = "█" * (eighths // 8) + _PARTS[eighths % 8].strip()
        drawn.append(f"{name:>{margin}}  {bar} {number(value)}")
    return drawn


# ---- times


def time_ticks(start: float, end: float, most: int) -> list[float]:
    """At most so many round times from start to end, at least one."""
    step = next((each for each in _STEPS if (end - start) / each <= most - 1), None)
    if step is None:
        step = 86_400 * math.ceil((end - start) / 86_400 / max(most - 1, 1))
    first = math.ceil(start / step) * step
    return [first + at * step for at in range(int((end - first) // step) + 1)] or [start]


def _clock(moment: float, times: Sequence[float]) -> str:
    shape = "%H:%M:%S" if times[-1] - times[0] < 600 else "%H:%M"
    if times[-1] - times[0] > 86_400:
        shape = "%m-%d %H:%M" if times[-1] - times[0] < 7 * 86_400 else "%Y-%m-%d"
    return datetime.fromtimestamp(moment, UTC).strftime(shape)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _seen(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _short(name: str) -> str:
    return name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…"
