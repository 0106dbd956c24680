"""A window is closed: sums become values in display form, toppers and labels, a slice at a time. Loop thread only."""

from __future__ import annotations

from collections.abc import Generator
from math import floor

from engine.stream.counters import Counters, GroupSums
from engine.stream.key_names import name_of, names_keys
from engine.stream.keys import TOTALS_ROW, KeyValues
from engine.stream.toppers import Selection
from engine.values.windows import GroupWindow, Toppers, Window

SLICE = 2_048
"""Rows that are dealt with between two looks at the clock: about a millisecond for a meter."""


def bounds(time: float, seconds: float) -> tuple[float, float]:
    """Begin and end of the window of a time: multiples of its length, so that minutes are those of the clock."""
    start = floor(time / seconds) * seconds
    return (start, start + seconds) if start <= time else (start - seconds, start)


def close(counters: Counters, number: int, start: float, end: float) -> Generator[None, None, Window]:
    """Take what was counted and make a window of it: yields when others may have their turn, and returns the window.

    What is counted from the first step on belongs to the next window. Groups are in the order of their GUIDs, keys in
    the order in which they came.
    """
    taken = counters.take()
    groups: list[GroupWindow] = []
    for guid in sorted(taken):
        closed = yield from _close_group(taken[guid], counters, end - start)
        groups.append(closed)
    return Window(number, start, end, tuple(groups))


def _close_group(sums: GroupSums, counters: Counters, seconds: float) -> Generator[None, None, GroupWindow]:
    group = sums.described()
    size = len(sums.rows)
    columns = [sums.columns.get(meter.number) for meter in group.meters]
    for column in columns:
        if column is None:
            continue
        column.extend(size)
        yield
        for first in range(TOTALS_ROW + 1, size, SLICE):
            column.finish(first, min(first + SLICE, size), seconds)
            yield
        column.finish_total(seconds)
    values = KeyValues(sums.rows, [column.cells if column is not None else None for column in columns])
    labels = yield from _labels(sums, counters)
    toppers = yield from _toppers(sums)
    return GroupWindow(group, values, labels, toppers, sums.rejected, sums.by_script)


def _toppers(sums: GroupSums) -> Generator[None, None, tuple[Toppers, ...]]:
    found: list[Toppers] = []
    for meter in sums.group.meters:
        column = sums.columns.get(meter.number)
        if column is None or not (meter.top or meter.bottom):
            continue
        selection, cells = Selection(meter), column.cells
        for first in range(TOTALS_ROW + 1, len(cells), SLICE):
            selection.look_at(cells, first, min(first + SLICE, len(cells)))
            yield
        found += selection.toppers(sums.rows, abs(cells[TOTALS_ROW]) if sums.rejected else 0.0)
    return tuple(found)


def _labels(sums: GroupSums, counters: Counters) -> Generator[None, None, dict[str, str]]:
    sources = [each for each in counters.labels_of(sums.group) if each]
    guid = sums.group.guid
    named = names_keys(guid)
    labels: dict[str, str] = {}
    for keys in sums.rows.blocks() if sources or named else ():
        for key in keys:
            label = next((source[key] for source in sources if key in source), None)
            if label is None and named:
                label = name_of(guid, key)
            if label:
                labels[key] = label
        yield
    return labels
