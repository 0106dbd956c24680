"""Counters: every meter type against a plain reading of it, however the updates are cut into runs."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.stream.counters import Counters, Run
from engine.stream.groups import Groups
from engine.stream.windows import bounds, close
from engine.values.windows import GROUP_TOTALS, CounterGroup, GroupWindow, Meter, MeterType, Window

GUID = "{11111111-0000-0000-0000-000000000000}"
TYPES = tuple(MeterType)
GROUP = CounterGroup(GUID, "all", "", tuple(Meter(n, kind, kind.name, top=2) for n, kind in enumerate(TYPES)))
SECONDS = 60.0

Update = tuple[str, int, int]
UPDATES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, len(TYPES) - 1), st.integers(-50, 50)), max_size=40)


def counters(limit: int = 100) -> Counters:
    groups = Groups()
    groups.register(GROUP)
    return Counters(groups, limit)


def closed(counts: Counters, number: int = 0) -> Window:
    """The window that is open, closed in one go."""
    work = close(counts, number, 0.0, SECONDS)
    while True:
        try:
            next(work)
        except StopIteration as done:
            window: Window = done.value
            return window


def only_group(counts: Counters) -> GroupWindow:
    [group] = closed(counts).groups
    return group


def sums(keys: Sequence[str], values: Sequence[float], meter: int = 0, kind: MeterType = MeterType.COUNTER) -> Run:
    """One update for each key, as a Lua state hands it over."""
    raw = [key.encode() for key in keys]
    lengths = array("I", map(len, raw)).tobytes()
    columns = array("d", [meter, kind, *values]).tobytes()
    return Run("{X}", b"".join(raw), lengths, array("d", [1.0] * len(raw)).tobytes(), columns)


@pytest.mark.parametrize(
    ("kind", "samples", "expected"),
    [
        (MeterType.COUNTER, [5, 2, 9], 16),
        (MeterType.RATE_COUNTER, [5, 2, 9], 16 / SECONDS),
        (MeterType.GAUGE, [5, 2, 9], 9),
        (MeterType.RUNNING_COUNTER, [5, -2, 9], 12),
        (MeterType.AVERAGE, [5, 2, 8], 5),
        (MeterType.DELTA_RATE_COUNTER, [5, 8, 20], 15 / SECONDS),
        (MeterType.DELTA_RATE_COUNTER, [5, 8, 2], 5 / SECONDS),  # began anew from 0
        (MeterType.MAXIMUM, [5, 9, 2], 9),
        (MeterType.MINIMUM, [5, 2, 9], 2),
    ],
)
def test_the_value_of_a_meter_is_what_its_type_says(kind: MeterType, samples: list[float], expected: float) -> None:
    counts = counters()
    for sample in samples:
        counts.add(GUID, "k", TYPES.index(kind), sample)
    values = only_group(counts).values
    assert values["k"][TYPES.index(kind)] == expected
    assert values[GROUP_TOTALS][TYPES.index(kind)] == expected


def test_some_types_know_the_window_before() -> None:
    counts = counters()
    for delta, running, expected in ((100, 3, (0, 3)), (160, 4, (1, 7)), (220, -2, (1, 5))):
        counts.add(GUID, "k", TYPES.index(MeterType.DELTA_RATE_COUNTER), delta)
        counts.add(GUID, "k", TYPES.index(MeterType.RUNNING_COUNTER), running)
        values = only_group(counts).values["k"]
        told = values[TYPES.index(MeterType.DELTA_RATE_COUNTER)], values[TYPES.index(MeterType.RUNNING_COUNTER)]
        assert told == expected


@given(UPDATES, st.integers(0, 40))
def test_totals_are_those_of_the_keys(updates: list[Update], limit: int) -> None:
    counts = counters(max(limit, 1))
    for key, meter, value in updates:
        counts.add(GUID, key, meter, value)
    window = closed(counts)
    for group in window.groups:
        meter = TYPES.index(MeterType.COUNTER)
        assert group.values[GROUP_TOTALS][meter] == sum(value for _, each, value in updates if each == meter)
        assert group.rejected + sum(key in group.values for key, _, _ in updates) == len(updates)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(-99, 99))), st.data())
def test_any_cut_gives_the_same_window(updates: list[tuple[str, int]], data: st.DataObject) -> None:
    whole, cut = counters(), counters()
    for key, value in updates:
        whole.put(sums([key], [value]))
    at = 0
    while at < len(updates):
        end = data.draw(st.integers(at + 1, len(updates)))
        part: dict[str, int] = {}
        for key, value in updates[at:end]:
            part[key] = part.get(key, 0) + value
        cut.put(sums(list(part), list(part.values())))
        at = end
    for each in (whole, cut):
        while each.work(1.0):
            pass
    first, second = closed(whole), closed(cut)
    assert [dict(group.values) for group in first.groups] == [dict(group.values) for group in second.groups]


def test_a_group_that_nobody_registered_has_counters() -> None:
    counts = counters()
    counts.put(sums(["a", "b"], [1, 2], meter=3))
    counts.work(1.0)
    group = only_group(counts)
    assert (group.group.guid, group.group.name) == ("{X}", "")
    assert dict(group.values) == {GROUP_TOTALS: (0, 0, 0, 3), "a": (0, 0, 0, 1), "b": (0, 0, 0, 2)}


def test_toppers_are_the_greatest_first_and_the_earlier_of_equals() -> None:
    counts = counters()
    meter = TYPES.index(MeterType.COUNTER)
    for key, value in (("a", 1), ("b", 5), ("c", 5), ("d", 2)):
        counts.add(GUID, key, meter, value)
    [toppers] = only_group(counts).toppers
    assert (toppers.items, toppers.error) == ((("b", 5.0), ("c", 5.0)), 0.0)


def test_labels_of_keys_are_with_the_window() -> None:
    counts = counters()
    counts.label(GUID, "a", "label of a")
    counts.label(GUID, "elsewhere", "not here")
    counts.add(GUID, "a", 0, 1)
    assert only_group(counts).labels == {"a": "label of a"}


@given(st.floats(0, 4e9), st.floats(0.1, 86_400))
def test_a_window_has_its_time_in_it(time: float, seconds: float) -> None:
    start, end = bounds(time, seconds)
    assert start <= time <= end
    assert not isnan(end)
