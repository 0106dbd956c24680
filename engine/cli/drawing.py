"""What charts have in common: page, style, titles, the width of a text, and scales. Numbers in, SVG text out.

Knows no other module: charts of benchmarks are drawn with it as well.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 960
MARGIN = 28
_TITLE, _SUBTITLE, TEXT = 19, 14, 14  # font sizes
_GLYPH, BOLD_GLYPH = 0.58, 0.64  # width of an average letter, as a part of the font size; on the safe side
_DECADES = 2  # spanned by the values, beyond which the scale is logarithmic

_STYLE = """
text { font-family: system-ui, "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif; fill: #1f2328; }
.page { fill: #ffffff; stroke: #d1d9e0; }
.quiet { fill: #59636e; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
.whisker { stroke: #1f2328; stroke-width: 1.5; }
.line { fill: none; stroke: #0072b2; stroke-width: 1.8; stroke-linejoin: round; }
.line0 { stroke: #56b4e9; } .line1 { stroke: #0072b2; } .line2 { stroke: #d55e00; } .line3 { stroke: #009e73; }
.bar0 { fill: #56b4e9; } .bar1 { fill: #0072b2; } .bar2 { fill: #d55e00; } .bar3 { fill: #009e73; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.page { fill: #0d1117; stroke: #3d444d; }
.quiet { fill: #9198a1; }
.grid { stroke: #30363d; }
.whisker { stroke: #e6edf3; }
.line { stroke: #56b4e9; }
}
"""
COLOURS = 4


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to places along the axis."""

    left: float
    right: float
    start: float
    stop: float
    logarithmic: bool = False
    most: int = 8
    """Steps between grid lines."""

    def place(self, value: float) -> float:
        """Where a value goes; those off the scale are put on its end."""
        value = min(max(value, self.start), self.stop)
        part = _part(value, self.start, self.stop, self.logarithmic)
        return self.left + part * (self.right - self.left)

    def ticks(self) -> list[float]:
        """Where grid lines go: the decades, or four to eight round numbers from zero on."""
        if self.logarithmic:
            first, last = round(math.log10(self.start)), round(math.log10(self.stop))
            return [10.0**power for power in range(first, last + 1)]
        step = _round_step(self.stop, self.most)
        return [step * count for count in range(math.floor(self.stop / step + 1e-9) + 1)]


def _part(value: float, start: float, stop: float, logarithmic: bool) -> float:
    if logarithmic:
        return math.log(value / start) / math.log(stop / start)
    return (value - start) / (stop - start)


def _round_step(largest: float, most: int) -> float:
    """The smallest step of 1, 2 or 5 times a power of ten that takes at most so many of them to the largest value."""
    power = 10.0 ** math.floor(math.log10(largest / most))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * most >= largest * 0.999_999)


def scale_for(values: Sequence[float], left: float, right: float) -> Scale:
    """A scale that holds all values: logarithmic, over whole decades, when they span more than two of them."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    if math.log10(high / low) > _DECADES:
        start = 10.0 ** math.floor(math.log10(low * 0.8))  # so that the smallest bar can be seen
        return Scale(left, right, start, 10.0 ** math.ceil(math.log10(high)), logarithmic=True)
    return linear_scale(high, left, right)


def linear_scale(high: float, left: float, right: float, *, most: int = 8) -> Scale:
    """A scale from zero to a positive value or a little beyond, with at most so many steps."""
    step = _round_step(high, most)
    return Scale(left, right, 0.0, math.ceil(high / step - 1e-9) * step, most=most)


def number(value: float) -> str:
    """Three digits that count, more when they are before the point: ``0.052``, ``8.14``, ``91.6``, ``12,345``."""
    size = abs(value)
    if size >= 99.95 or value == int(value):
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.3g}"


def document(title: str, description: str, body: Iterable[str], height: float) -> str:
    """A whole SVG document; `description` is for those who do not see it."""
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
            f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="title desc">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="desc">{escape(description)}</desc>',
            f"<style>{_STYLE}</style>",
            f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8"/>',
            *body,
            "</svg>\n",
        )
    )


def head(title: str, subtitle: str) -> tuple[list[str], float]:
    """Title and subtitle as lines of SVG, and the height below them."""
    lines, at = [], float(MARGIN)
    parts = ((title, _TITLE, BOLD_GLYPH, 'font-weight="600"'), (subtitle, _SUBTITLE, _GLYPH, 'class="quiet"'))
    for words, size, glyph, style in parts:
        for line in textwrap.wrap(words, int((WIDTH - 2 * MARGIN) / (size * glyph))):
            at += size * 1.3
            lines.append(text_at(MARGIN, at - size * 0.3, line, size, style))
        at += 4
    return lines, at


def legend(names: Sequence[str], left: float, top: float) -> list[str]:
    """What the colours stand for, in one row of 36 pixels."""
    lines = []
    for at, name in enumerate(names):
        lines.append(
            f'<rect class="bar{at % COLOURS}" x="{left:.1f}" y="{top + 9:.1f}" width="14" height="14" rx="2"/>'
        )
        lines.append(text_at(left + 20, top + 21, name, TEXT))
        left += 20 + text_width(name, TEXT) + 26
    return lines


def text_at(x: float, y: float, text: str, size: int, style: str = "") -> str:
    """A text on its base line; it starts at `x` unless `style` anchors it otherwise."""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" {style}>{escape(text)}</text>'


def text_width(text: str, size: int, glyph: float = _GLYPH) -> float:
    """How much room a text is given."""
    return len(text) * size * glyph
