"""The chart: well-formed, nothing cut or on top of another, scales, and the numbers in it."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from benchmarks.bar_chart import Bar, Chart, Group, svg
from engine.cli.drawing import scale_for

SVG = "{http://www.w3.org/2000/svg}"
_GLYPH = 0.55  # of the font size: an average letter


def _chart(values: list[list[float]], label: str = "way") -> Chart:
    groups = [
        Group(f"{label} {at}", [Bar(f"p{index}", value, value * 0.8, value * 1.5) for index, value in enumerate(row)])
        for at, row in enumerate(values)
    ]
    return Chart('A title with <marks> & "quotes"', "A subtitle. " * 20, "time, µs", groups)


def _texts(document: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(document).iter(f"{SVG}text"))


def test_is_well_formed_and_shows_titles_and_numbers() -> None:
    document = svg(_chart([[1.5, 20, 31_400], [2.5, 30, 456.7]]))
    shown = [each.text for each in _texts(document)]
    assert {"1.50", "20", "31,400", "2.50", "30", "457"} <= set(shown)
    assert {"way 0", "way 1", "p0", "p1", "p2", "time, µs, logarithmic scale"} <= set(shown)
    assert 'A title with <marks> & "quotes"' in shown
    described = ElementTree.fromstring(document).findtext(f"{SVG}desc")
    assert described is not None
    assert "way 1: p0 2.50, p1 30, p2 457" in described


@pytest.mark.parametrize("values", [[[1.5, 20, 31_400.0]], [[1, 2, 3], [4, 5, 6]], [[0.001, 99_999_999.0]] * 5])
@pytest.mark.parametrize("label", ["w", "a way with a rather long name"])
def test_no_text_is_cut(values: list[list[float]], label: str) -> None:
    document = svg(_chart(values, label))
    root = ElementTree.fromstring(document)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for each in _texts(document):
        left, right = _extent(each)
        assert left >= 0, each.text
        assert right <= width, each.text
        assert 0 < float(each.attrib["y"]) < height, each.text


def _extent(text: ElementTree.Element) -> tuple[float, float]:
    x, length = float(text.attrib["x"]), len(text.text or "") * float(text.attrib["font-size"]) * _GLYPH
    part = {"end": 1.0, "middle": 0.5}.get(text.attrib.get("text-anchor", ""), 0.0)
    return x - length * part, x + length * (1 - part)


def test_lines_of_text_do_not_overlap() -> None:
    rows: dict[float, list[tuple[float, float]]] = {}
    for each in _texts(svg(_chart([[1, 50, 900], [2, 60, 70_000.0]], "a longer name"))):
        rows.setdefault(float(each.attrib["y"]), []).append(_extent(each))
    for extents in rows.values():
        assert all(before[1] < after[0] for before, after in pairwise(sorted(extents)))
    heights = sorted(rows)
    assert all(below - above > 5 for above, below in pairwise(heights))


def test_scale_is_logarithmic_beyond_two_decades() -> None:
    scale = scale_for([3.0, 301.0], 0, 100)
    assert scale.logarithmic
    assert scale.ticks() == [1, 10, 100, 1000]
    assert [round(scale.place(value)) for value in (1, 10, 100, 1000, 0, 5000)] == [0, 33, 67, 100, 0, 100]


def test_scale_starts_at_zero_within_two_decades() -> None:
    scale = scale_for([3.0, 300.0], 0, 100)
    assert not scale.logarithmic
    assert scale.ticks() == [0, 50, 100, 150, 200, 250, 300]
    assert scale.place(150) == 50


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [1e-9], [7.0], [8.0], [1e12]])
def test_any_values_have_a_scale(values: list[float]) -> None:
    scale = scale_for(values, 0, 100)
    assert scale.start < scale.stop
    assert max(values) <= scale.stop * 1.000_001
    assert 2 <= len(scale.ticks()) <= 9


def test_bars_grow_with_their_values() -> None:
    document = svg(_chart([[1, 50, 900.0]]))
    bars = [each for each in ElementTree.fromstring(document).iter(f"{SVG}rect") if len(each)]
    widths = [float(each.attrib["width"]) for each in bars]
    assert len(widths) == 3
    assert widths == sorted(widths)


def test_without_labels_there_is_no_legend() -> None:
    document = svg(Chart("title", "", "time, s", [Group("a", [Bar("", 1, 1, 1)]), Group("b", [Bar("", 2, 2, 2)])]))
    assert {each.text for each in _texts(document)} >= {"a", "b", "title"}
    assert [each.get("class") for each in ElementTree.fromstring(document).iter(f"{SVG}rect")] == [
        "page",
        "bar0",
        "bar0",
    ]


def test_a_label_has_one_colour_in_all_groups_and_a_place_in_the_legend() -> None:
    ours, theirs, others = (Bar(name, 2, 1, 3) for name in ("ours", "theirs", "others"))
    document = svg(Chart("", "", "s", [Group("a", [ours]), Group("b", [ours, others]), Group("c", [ours, theirs])]))
    rects = [each.get("class") for each in ElementTree.fromstring(document).iter(f"{SVG}rect")]
    assert rects == ["page", "bar0", "bar1", "bar2", "bar0", "bar0", "bar1", "bar0", "bar2"]
    assert {each.text for each in _texts(document)} >= {"ours", "theirs", "others"}


def test_an_empty_chart_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one bar"):
        svg(Chart("", "", "", []))
