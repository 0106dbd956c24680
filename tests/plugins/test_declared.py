"""Groups that scripts declare: both row layouts, what they become, and what is said of rows that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Engine
from engine.values.windows import MeterType
from tests.scripts import Collector, plugin, write

GUID = "{12345678-abcd-0000-0000-000000000001}"
CONTROL = f"control = {{ guid = '{GUID}', name = 'Mine' }}"


def countergroup(meters: str, rest: str = "") -> str:
    return plugin(f"countergroup = {{ {CONTROL}, meters = {{ {meters} }} {rest} }}")


async def test_both_layouts_of_rows_load(tmp_path: Path) -> None:
    rows = """{ 0, T.K.vartype.RATE_COUNTER, 20, 10, "Bytes", "all of them", "Bps" },
              { 1, T.K.vartype.AVERAGE, 5, "Delay", "mean", "ms" }"""
    script = write(tmp_path, countergroup(rows, ", keyinfo = { { 'k', 'label' } }"))
    async with Engine([script]) as engine:
        assert engine.load_errors == ()
        group = engine._pipeline.groups.counter_group(GUID)
    assert group is not None
    first, second = group.meters
    assert (first.type, first.top, first.bottom, first.name, first.units) == (4, 20, 10, "Bytes", "Bps")
    assert (second.type, second.top, second.bottom, second.name) == (MeterType.AVERAGE, 5, 0, "Delay")
    assert (group.guid, group.labels, group.bucket_seconds) == (GUID.upper(), {"k": "label"}, 60)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("7", "row 1: must be a table"),
        ("{ -1, 2, 5, 'n' }", "row 1, column 1"),
        ("{ 0, 3, 5, 'n' }", "row 1, column 2"),
        ("{ 0, 2, 'x', 'n' }", "row 1, column 3"),
        ("{ 0, 2, 5 }", "row 1, column 4"),
        ("{ 0, 2, 5, 5 }", "row 1, column 5"),
        ("{ 0, 2, 5, 'n' }, { 0, 2, 5, 'n' }", "row 2: there is a meter 0 already"),
        ("{ 1, 2, 5, 'n' }", "there is no meter 0"),
        ("", "meters must be an array"),
    ],
)
async def test_a_row_that_is_wrong_is_named(tmp_path: Path, row: str, said: str) -> None:
    async with Engine([write(tmp_path, countergroup(row), "mine.lua")]) as engine:
        [error] = engine.load_errors
    assert "mine.lua" in str(error)
    assert "countergroup" in str(error)
    assert said in str(error)


async def test_the_first_definition_of_a_group_holds(tmp_path: Path) -> None:
    row = "{{ 0, T.K.vartype.COUNTER, 5, '{}' }}"
    scripts = [write(tmp_path, countergroup(row.format(name)), f"{at}.lua") for at, name in enumerate("aab")]
    collector = Collector()
    async with Engine(scripts, sinks=[collector]) as engine:
        group = engine._pipeline.groups.counter_group(GUID)
    assert group is not None
    assert group.meters[0].name == "a"
    assert len(collector.logged("WARN")) == 1


async def test_backend_scripts_find_groups_by_name(tmp_path: Path) -> None:
    declared = "".join(
        f"{kind}group = {{ control = {{ guid = '{GUID}', name = 'My {kind}s', description = 'd' }} }}, "
        for kind in ("alert", "resource")
    )
    say = "T.loginfo(T.alertgroups['My alerts'] .. T.resourcegroups['My resources'] .. T.countergroups.Hosts)"
    monitor = f"resource_monitor = {{ resource_guid = '{GUID}', onnewresource = function() end }}, "
    script = write(tmp_path, plugin(f"{declared} {monitor} onload = function() {say} end"))
    collector = Collector()
    async with Engine([script], sinks=[collector]) as engine:
        assert engine.load_errors == ()
    [line] = collector.logged("INFO")
    assert line.count(GUID.upper()) == 2
    assert "{4CD742B1-C1CA-4708-BE78-0FCA2EB01A86}" in line
