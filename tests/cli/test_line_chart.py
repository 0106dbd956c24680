"""The panels: well-formed, nothing cut, every value on its panel."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from engine.cli.line_chart import LineChart, Panel, svg

SVG = "{http://www.w3.org/2000/svg}"
_GLYPH = 0.55  # of the font size: an average letter


def _lines(*values: list[float]) -> LineChart:
    times = [float(at) for at in range(1, len(values[0]) + 1)]
    return LineChart(
        "A <title>", "A subtitle.", "seconds", times, [Panel(f"panel {at}", [row]) for at, row in enumerate(values)]
    )


@pytest.mark.parametrize("rows", [[[1.0, 2.0]], [[0.0, 0.0]], [[1.0, 2.0], [5.0, 1e7], [0.001, 0.5]], [[3.0]] * 4])
def test_nothing_is_cut(rows: list[list[float]]) -> None:
    root = ElementTree.fromstring(svg(_lines(*rows)))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for each in root.iter(f"{SVG}text"):
        x, length = float(each.attrib["x"]), len(each.text or "") * float(each.attrib["font-size"]) * _GLYPH
        part = {"end": 1.0, "middle": 0.5}.get(each.attrib.get("text-anchor", ""), 0.0)
        assert x - length * part >= 0, each.text
        assert x + length * (1 - part) <= width, each.text
        assert 0 < float(each.attrib["y"]) < height, each.text
    for x, y in _points(root):
        assert 0 < x < width
        assert 0 < y < height


def _points(root: ElementTree.Element) -> list[tuple[float, float]]:
    paths = [each.attrib["d"] for each in root.iter(f"{SVG}path")]
    return [(float(x), float(y)) for path in paths for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]


def test_a_line_has_a_point_for_each_time_and_higher_values_are_higher_up() -> None:
    points = _points(ElementTree.fromstring(svg(_lines([1.0, 4.0, 2.0]))))
    assert len(points) == 3
    assert points[0][0] < points[1][0] < points[2][0]
    assert points[1][1] < points[2][1] < points[0][1]


def test_panels_are_titled_and_told_in_words() -> None:
    root = ElementTree.fromstring(svg(_lines([1.0, 2.0], [30.0, 20.0])))
    shown = [each.text for each in root.iter(f"{SVG}text")]
    assert {"A <title>", "panel 0", "panel 1"} <= set(shown)
    assert shown.count("seconds") == 2
    assert "panel 1: 30 at first, 20 at last, 20 to 30" in (root.findtext(f"{SVG}desc") or "")


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one panel with a line"):
        svg(LineChart("", "", "", [1.0], []))
    with pytest.raises(ValueError, match="zip"):
        svg(LineChart("", "", "", [1.0], [Panel("", [[1.0, 2.0]])]))
    with pytest.raises(ValueError, match="with a line"):
        svg(LineChart("", "", "", [1.0], [Panel("", [])]))


def _several(logarithmic: bool = False) -> ElementTree.Element:
    panels = [Panel("lost", [[1.0, 2.0, 4.0], [0.0, 0.0, 900.0]], logarithmic)]
    return ElementTree.fromstring(svg(LineChart("Title", "", "rate", [0.0, 5.0, 10.0], panels, ["one", "other"])))


def test_several_lines_have_colours_a_legend_and_a_mark_for_each_value() -> None:
    root = _several()
    assert [each.attrib["class"] for each in root.iter(f"{SVG}path")] == ["line line0", "line line1"]
    assert {"one", "other"} <= {each.text for each in root.iter(f"{SVG}text")}
    assert len(list(root.iter(f"{SVG}circle"))) == 6
    assert "lost, other: 0 at first, 900 at last" in (root.findtext(f"{SVG}desc") or "")


def test_a_scale_may_be_logarithmic_and_says_so() -> None:
    assert "lost, logarithmic scale" in {each.text for each in _several(logarithmic=True).iter(f"{SVG}text")}
    assert "lost" in {each.text for each in _several().iter(f"{SVG}text")}
