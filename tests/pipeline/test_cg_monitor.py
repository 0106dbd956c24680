"""Monitors of counter groups: attachment, order of hooks, votes, overrides, toppers (spec 1.7, 2.1, 2.4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Engine
from engine.values.windows import Toppers
from tests.pipeline.flush_rig import GROUP, OTHER_GROUP, flushed, group_window, telling, window
from tests.scripts import write

TS = 1_000_000_080
ALL = {
    "onbeginflush": "",
    "onflushfilter": "return true",
    "onflush": "",
    "onendflush": "",
    "onbegintopperflush": "return true",
    "ontopperflushfilter": "return true",
    "ontopperflush": "",
    "onendtopperflush": "",
}
HERE = f'counter_guid = "{GROUP}",'


async def test_all_hooks_in_the_order_of_the_spec(tmp_path: Path) -> None:
    toppers = (Toppers(0, (("b", 3.0), ("a", 1.0))), Toppers(1, (("a", 2.0),)))
    group = group_window({"a": (1.0, 2.0), "b": (3.0, 4.5)}, toppers)
    lines, kept, _, engine = await flushed(tmp_path, {"a.lua": telling("cg_monitor", ALL, fields=HERE)}, window(group))
    assert lines == [
        f"onbeginflush {TS}",
        f"onflushfilter {TS} a [1 2]",
        f"onflush {TS} a [1 2]",
        f"onflushfilter {TS} b [3 4.5]",
        f"onflush {TS} b [3 4.5]",
        f"onendflush {TS}",
        f"onbegintopperflush {TS} 0",
        "ontopperflushfilter b 3",
        "ontopperflush b 3",
        "ontopperflushfilter a 1",
        "ontopperflush a 1",
        "onendtopperflush 0",
        f"onbegintopperflush {TS} 1",
        "ontopperflushfilter a 2",
        "ontopperflush a 2",
        "onendtopperflush 1",
    ]
    assert kept == [window(group)]
    assert (engine.stats.flush.windows, engine.stats.flush.kept, engine.stats.flush.rejected) == (1, 2, 0)


async def test_a_key_is_dropped_when_every_script_rejects_it(tmp_path: Path) -> None:
    scripts = {
        "a.lua": telling("cg_monitor", {"onflushfilter": "return select(3, ...) == 'x'", "onflush": ""}, fields=HERE),
        "b.lua": telling("cg_monitor", {"onflushfilter": "return select(3, ...) == 'y'", "onflush": ""}, fields=HERE),
    }
    group = group_window({"x": (1.0, 0.0), "y": (2.0, 0.0), "z": (3.0, 0.0)})
    lines, kept, _, engine = await flushed(tmp_path, scripts, window(group))
    assert dict(kept[0].groups[0].values) == {"x": (1.0, 0.0), "y": (2.0, 0.0)}
    told = [line.split()[0] + line.split()[2] for line in lines if line.startswith("onflush")]
    assert told == [*(["onflushfilterx", "onflushfiltery", "onflushfilterz"] * 2), *(["onflushx", "onflushy"] * 2)]
    assert (engine.stats.flush.kept, engine.stats.flush.rejected) == (2, 1)


async def test_a_script_without_the_filter_counts_as_yes(tmp_path: Path) -> None:
    scripts = {
        "a.lua": telling("cg_monitor", {"onflushfilter": "return false", "onflush": ""}, fields=HERE),
        "b.lua": telling("cg_monitor", {"onendflush": ""}, fields=HERE),
    }
    lines, kept, _, _ = await flushed(tmp_path, scripts, window(group_window({"x": (1.0, 0.0)})))
    assert f"onflush {TS} x [1 0]" in lines
    assert dict(kept[0].groups[0].values) == {"x": (1.0, 0.0)}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ("true, { 7 }", (7.0, 2.0, 3.0)),
        ("true, { -1, 0 }", (1.0, 0.0, 3.0)),
        ("true, { 4, 5, 6, 7 }", (4.0, 5.0, 6.0)),
        ('true, { "8" }', (8.0, 2.0, 3.0)),
        ("true, { 0 / 0, math.huge, {} }", (1.0, 2.0, 3.0)),
        ("true, 5", (1.0, 2.0, 3.0)),
        ("true, { -1, -1, -1 }", (1.0, 2.0, 3.0)),
    ],
)
async def test_a_filter_may_override_values(tmp_path: Path, result: str, expected: tuple[float, ...]) -> None:
    scripts = {
        "a.lua": telling("cg_monitor", {"onflushfilter": f"return {result}"}, fields=HERE),
        "b.lua": telling("cg_monitor", {"onflush": ""}, fields=HERE),
    }
    lines, kept, _, _ = await flushed(tmp_path, scripts, window(group_window({"k": (1.0, 2.0, 3.0)}, meters=3)))
    assert dict(kept[0].groups[0].values) == {"k": expected}
    assert lines[-1] == f"onflush {TS} k [{' '.join(f'{value:g}' for value in expected)}]"


@pytest.mark.parametrize("result", ["", "return nil", "return 1", "return 'false'"])
async def test_only_a_literal_false_rejects_and_the_rest_is_named_once(tmp_path: Path, result: str) -> None:
    script = telling("cg_monitor", {"onflushfilter": result}, fields=HERE)
    group = group_window({"a": (1.0, 0.0), "b": (1.0, 0.0)})
    _, kept, collector, _ = await flushed(tmp_path, {"a.lua": script}, window(group), window(group, number=1))
    assert [len(each.groups[0].values) for each in kept] == [2, 2]
    assert collector.logged("WARN") == ["cg_monitor.onflushfilter returned no boolean, which counts as true"]


async def test_an_error_keeps_the_key_and_the_script(tmp_path: Path) -> None:
    script = telling("cg_monitor", {"onflushfilter": "error('no')", "onflush": "error('neither')"}, fields=HERE)
    _, kept, collector, engine = await flushed(tmp_path, {"a.lua": script}, window(group_window({"a": (1.0, 0.0)})))
    assert dict(kept[0].groups[0].values) == {"a": (1.0, 0.0)}
    errors = [line.split("\n")[0] for line in collector.logged("ERROR")]
    assert [each.split(":")[0] for each in errors] == ["cg_monitor.onflushfilter", "cg_monitor.onflush"]
    assert engine.stats.script_errors == 2


@pytest.mark.parametrize(("answers", "called"), [(["true"], 1), (["false"], 0), (["false", "true"], 2), (["nil"], 1)])
async def test_begin_of_toppers_gates_their_hook_only(tmp_path: Path, answers: list[str], called: int) -> None:
    scripts = {
        f"{at}.lua": telling(
            "cg_monitor",
            {"onbegintopperflush": f"return {answer}", "ontopperflush": "", "onendtopperflush": ""},
            fields=HERE,
        )
        for at, answer in enumerate(answers)
    }
    group = group_window({"a": (1.0, 0.0)}, (Toppers(0, (("a", 1.0),)),))
    lines, kept, _, _ = await flushed(tmp_path, scripts, window(group))
    assert sum(line == "ontopperflush a 1" for line in lines) == called
    assert sum(line == "onendtopperflush 0" for line in lines) == len(answers)
    assert kept[0].groups[0].toppers == group.toppers


async def test_toppers_are_voted_on(tmp_path: Path) -> None:
    script = telling("cg_monitor", {"ontopperflushfilter": "return select(3, ...) > 1"}, fields=HERE)
    group = group_window({}, (Toppers(0, (("a", 3.0), ("b", 1.0))),))
    _, kept, _, _ = await flushed(tmp_path, {"a.lua": script}, window(group))
    assert kept[0].groups[0].toppers == (Toppers(0, (("a", 3.0),)),)


async def test_groups_that_measured_nothing_have_a_cycle_all_the_same(tmp_path: Path) -> None:
    lines, _, _, _ = await flushed(tmp_path, {"a.lua": telling("cg_monitor", ALL, fields=HERE)}, window())
    assert lines == [f"onbeginflush {TS}", f"onendflush {TS}"]


@pytest.mark.parametrize(
    "fields",
    [
        f'counter_guid = {{ "{GROUP}", function() return "{OTHER_GROUP}" end }},',
        'counter_name_match = "by NAME",',
        'counter_name_match = { "hosts by", "apps BY" },',
        'counter_name_regex = "^(Hosts|Apps) by",',
        f'counter_guid = "{GROUP.lower()}", counter_name_match = "by name",',
    ],
)
async def test_one_isolated_instance_for_each_group(tmp_path: Path, fields: str) -> None:
    body = "T.n = (T.n or 0) + 1 T.loginfo(T.n .. T.monitor_group_guid .. tostring(T.monitor_group_name))"
    script = telling("cg_monitor", {"onbeginflush": body}, fields=fields)
    groups = (group_window({}), group_window({}, guid=OTHER_GROUP, name="Apps by name"))
    first = {"first.lua": telling("cg_monitor", {"onflush": ""}, fields=HERE)}
    lines, _, _, _ = await flushed(tmp_path, {**first, "a.lua": script}, window(*groups), window(*groups, number=1))
    told = [line for line in lines if line[0].isdigit() and line[1] == "{"]
    assert sorted(line.partition("}")[0] + "}" for line in told) == [
        f"{n}{guid}" for n in (1, 2) for guid in (GROUP, OTHER_GROUP)
    ]
    known = "counter_guid" not in fields  # else the group is bound before it has a title
    assert all(line.endswith("by name") for line in told) or not known


async def test_a_bad_regular_expression_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, telling("cg_monitor", {"onflush": ""}, fields='counter_name_regex = "(",'))
    async with Engine([path]) as engine:
        (error,) = engine.load_errors
    assert "cg_monitor.counter_name_regex is no regular expression" in str(error)


async def test_new_keys_and_updates_each_second(tmp_path: Path) -> None:
    script = telling("cg_monitor", {"onnewkey": "", "onupdate": ""}, fields=HERE)
    body = f'engine:update_counter("{GROUP}", "k", 1, 5) engine:update_counter("{GROUP}", "k", 0, 2)'
    lines, _, _, _ = await flushed(tmp_path, {"a.lua": script}, before=body)
    assert [(line.split()[0], *line.split()[2:]) for line in lines] == [
        ("onnewkey", "k"),
        ("onupdate", "k", "[2", "5]"),
    ]


async def test_keys_of_any_bytes_arrive_whole(tmp_path: Path) -> None:
    script = telling("cg_monitor", {"onflush": "T.loginfo(#select(3, ...))"}, fields=HERE)
    keys = ["", "a\0b", "ü", "SYS:GROUP_TOTALS", "x" * 5000]
    lines, _, _, _ = await flushed(tmp_path, {"a.lua": script}, window(group_window(dict.fromkeys(keys, (1.0, 2.0)))))
    assert lines[1::2] == ["0", "3", "2", "16", "5000"]
