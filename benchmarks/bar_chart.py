"""Grouped horizontal bars as SVG text. Numbers in, text out; no dependency, and no file is touched.

Every text is given room by its estimated width, so none is cut or lies over another. The chart has its own background
and follows the reader's colour scheme, so it can be read on a light page and on a dark one.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.table import number

_WIDTH = 960
_MARGIN = 28
_BAR, _GAP, _GROUP_GAP = 18, 5, 22
_TITLE, _SUBTITLE, _TEXT = 19, 14, 14  # font sizes
_GLYPH, _BOLD_GLYPH = 0.58, 0.64  # width of an average letter, as a part of the font size; on the safe side
_DECADES = 2  # spanned by the values, beyond which the scale is logarithmic

_STYLE = """
text { font-family: system-ui, "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif; fill: #1f2328; }
.page { fill: #ffffff; stroke: #d1d9e0; }
.quiet { fill: #59636e; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
.whisker { stroke: #1f2328; stroke-width: 1.5; }
.bar0 { fill: #56b4e9; } .bar1 { fill: #0072b2; } .bar2 { fill: #d55e00; } .bar3 { fill: #009e73; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.page { fill: #0d1117; stroke: #3d444d; }
.quiet { fill: #9198a1; }
.grid { stroke: #30363d; }
.whisker { stroke: #e6edf3; }
}
"""
_COLOURS = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """One number, with the lowest and highest of its repeats. Without labels there is no legend."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Group:
    """Bars that belong together; the bars of all groups have the same labels in the same order."""

    label: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Chart:
    """What a chart shows. `title` says what is seen in it, `axis` what is measured and in which unit."""

    title: str
    subtitle: str
    axis: str
    groups: Sequence[Group]


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to places along the axis."""

    left: float
    right: float
    start: float
    stop: float
    logarithmic: bool

    def place(self, value: float) -> float:
        """The x of a value; those off the scale are put on its end."""
        value = min(max(value, self.start), self.stop)
        part = _part(value, self.start, self.stop, self.logarithmic)
        return self.left + part * (self.right - self.left)

    def ticks(self) -> list[float]:
        """Where grid lines go: the decades, or four to eight round numbers from zero on."""
        if self.logarithmic:
            first, last = round(math.log10(self.start)), round(math.log10(self.stop))
            return [10.0**power for power in range(first, last + 1)]
        step = _round_step(self.stop)
        return [step * count for count in range(round(self.stop / step) + 1)]


def _part(value: float, start: float, stop: float, logarithmic: bool) -> float:
    if logarithmic:
        return math.log(value / start) / math.log(stop / start)
    return (value - start) / (stop - start)


def _round_step(largest: float) -> float:
    """The smallest step of 1, 2 or 5 times a power of ten that takes at most eight of them to the largest value."""
    power = 10.0 ** math.floor(math.log10(largest / 8))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * 8 >= largest * 0.999_999)


def scale_for(values: Sequence[float], left: float, right: float) -> Scale:
    """A scale that holds all values: logarithmic, over whole decades, when they span more than two of them."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    if math.log10(high / low) > _DECADES:
        start = 10.0 ** math.floor(math.log10(low * 0.8))  # so that the smallest bar can be seen
        return Scale(left, right, start, 10.0 ** math.ceil(math.log10(high)), logarithmic=True)
    step = _round_step(high)
    return Scale(left, right, 0.0, math.ceil(high / step - 1e-9) * step, logarithmic=False)


def svg(chart: Chart) -> str:
    """The chart as an SVG document. Raises `ValueError` when there is nothing to show."""
    bars = [bar for group in chart.groups for bar in group.bars]
    if not bars:
        raise ValueError("a chart needs at least one bar")
    body, height = _body(chart, bars)
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height:.0f}" '
            f'viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-labelledby="title desc">',
            f'<title id="title">{escape(chart.title)}</title>',
            f'<desc id="desc">{escape(_description(chart))}</desc>',
            f"<style>{_STYLE}</style>",
            f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1:.0f}" rx="8"/>',
            *body,
            "</svg>\n",
        )
    )


def _description(chart: Chart) -> str:
    """The chart in words, for those who do not see it."""
    groups = (
        f"{group.label}: {', '.join(f'{bar.label} {number(bar.value)}' for bar in group.bars)}"
        for group in chart.groups
    )
    return f"{chart.axis}. {'; '.join(groups)}."


def _body(chart: Chart, bars: Sequence[Bar]) -> tuple[list[str], float]:
    left = _MARGIN + max(_width(group.label, _TEXT, _BOLD_GLYPH) for group in chart.groups) + 12
    right = _WIDTH - _MARGIN - max(_width(number(bar.value), _TEXT) for bar in bars) - 10
    scale = scale_for([each for bar in bars for each in (bar.value, bar.low, bar.high)], left, right)
    head, top = _head(chart)
    legend = _legend(chart.groups[0].bars, left, top) if any(bar.label for bar in bars) else []
    top += 40 if legend else 24
    drawn, bottom = _groups(chart.groups, scale, top)
    axis = f"{chart.axis}, logarithmic scale" if scale.logarithmic else chart.axis
    grid = _grid(scale, axis, top - 10, bottom)
    return [*head, *legend, *grid, *drawn], bottom + 66


def _head(chart: Chart) -> tuple[list[str], float]:
    """Title and subtitle, and the height below them."""
    lines, at = [], float(_MARGIN)
    title = (chart.title, _TITLE, _BOLD_GLYPH, 'font-weight="600"')
    subtitle = (chart.subtitle, _SUBTITLE, _GLYPH, 'class="quiet"')
    for text, size, glyph, style in (title, subtitle):
        for line in textwrap.wrap(text, int((_WIDTH - 2 * _MARGIN) / (size * glyph))):
            at += size * 1.3
            lines.append(_text(_MARGIN, at - size * 0.3, line, size, style))
        at += 4
    return lines, at


def _legend(bars: Sequence[Bar], left: float, top: float) -> list[str]:
    lines = []
    for at, bar in enumerate(bars):
        lines.append(
            f'<rect class="bar{at % _COLOURS}" x="{left:.1f}" y="{top + 9:.1f}" width="14" height="14" rx="2"/>'
        )
        lines.append(_text(left + 20, top + 21, bar.label, _TEXT))
        left += 20 + _width(bar.label, _TEXT) + 26
    return lines


def _grid(scale: Scale, axis: str, top: float, bottom: float) -> Iterator[str]:
    for tick in scale.ticks():
        x = scale.place(tick)
        yield f'<line class="grid" x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom + 6:.1f}"/>'
        yield _text(x, bottom + 24, number(tick), _TEXT, 'class="quiet" text-anchor="middle"')
    middle = (scale.left + scale.right) / 2
    yield _text(middle, bottom + 48, axis, _TEXT, 'text-anchor="middle"')


def _groups(groups: Sequence[Group], scale: Scale, top: float) -> tuple[list[str], float]:
    lines, at = [], top
    for group in groups:
        height = len(group.bars) * (_BAR + _GAP) - _GAP
        place = at + height / 2 + _TEXT * 0.35
        lines.append(_text(scale.left - 12, place, group.label, _TEXT, 'font-weight="600" text-anchor="end"'))
        for index, bar in enumerate(group.bars):
            lines += _bar(bar, index, scale, at + index * (_BAR + _GAP))
        at += height + _GROUP_GAP
    return lines, at - _GROUP_GAP + 8


def _bar(bar: Bar, index: int, scale: Scale, top: float) -> Iterator[str]:
    end, low, high = scale.place(bar.value), scale.place(bar.low), scale.place(bar.high)
    middle = top + _BAR / 2
    width = max(end - scale.left, 1.0)
    yield (
        f'<rect class="bar{index % _COLOURS}" x="{scale.left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_BAR}">'
        f"<title>{escape(bar.label)}: {number(bar.value)} ({number(bar.low)}-{number(bar.high)})</title></rect>"
    )
    if high - low > 1:
        ends = "".join(f" M{x:.1f} {middle - 4:.1f} V{middle + 4:.1f}" for x in (low, high))
        yield f'<path class="whisker" fill="none" d="M{low:.1f} {middle:.1f} H{high:.1f}{ends}"/>'
    yield _text(max(end, high) + 8, middle + _TEXT * 0.35, number(bar.value), _TEXT)


def _text(x: float, y: float, text: str, size: int, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" {style}>{escape(text)}</text>'


def _width(text: str, size: int, glyph: float = _GLYPH) -> float:
    return len(text) * size * glyph
