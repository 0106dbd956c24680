"""Alert and resource monitors: they hear of their own group, once, later, and never inside themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Config, Engine
from engine.values.records import Alert, Resource
from tests.scripts import (
    ALERTS,
    HASHES,
    OTHER_ALERTS,
    URIS,
    Collector,
    assert_counts_close,
    on_alert,
    on_event,
    on_resource,
    write,
)
from tests.support import eventually

FLOW = "06A:0A.00.00.02:p-4E20_C6.33.64.0A:p-0050"


async def heard(tmp_path: Path, body: str, *monitors: str) -> Collector:
    """All records after an event made a script raise alerts or resources."""
    scripts = [write(tmp_path, on_event(body), "source.lua")]
    scripts += [write(tmp_path, text, f"monitor{number}.lua") for number, text in enumerate(monitors)]
    collector = Collector()
    async with Engine(scripts, sinks=[collector]) as engine:
        assert engine.load_errors == ()
        await engine.emit("t", "go")
    assert_counts_close(engine.stats)
    assert collector.logged("ERROR") == []
    return collector


def alert(group: str, sigid: str = "sig") -> str:
    return f'engine:add_alert("{group}", nil, "{sigid}", 3, "text of {sigid}") '


def resource(group: str, uri: str = "uri") -> str:
    return f'engine:add_resource("{group}", "{FLOW}", "{uri}", "contents of {uri}") '


async def test_an_alert_monitor_hears_of_its_own_group_only(tmp_path: Path) -> None:
    collector = await heard(
        tmp_path,
        alert(ALERTS, "one") + alert(OTHER_ALERTS, "two") + alert(ALERTS, "three"),
        on_alert("T.loginfo('mine ' .. alert:sigid())"),
        on_alert("T.loginfo('other ' .. alert:sigid())", guid=f'"{OTHER_ALERTS}"'),
    )
    assert collector.logged() == ["mine one", "other two", "mine three"]
    assert [each.sigid for each in collector.of("alert")] == ["one", "two", "three"]


async def test_a_resource_monitor_hears_of_its_own_group_only(tmp_path: Path) -> None:
    collector = await heard(
        tmp_path,
        resource(HASHES, "one") + resource(URIS, "two"),
        on_resource("T.loginfo(resource:uri() .. '|' .. resource:label() .. '|' .. resource:flow():id())"),
    )
    assert collector.logged() == [f"one|contents of one|{FLOW}"]
    assert [each.uri for each in collector.of("resource")] == ["one", "two"]


async def test_groups_of_alerts_and_of_resources_are_apart_even_with_one_guid(tmp_path: Path) -> None:
    collector = await heard(
        tmp_path,
        alert(HASHES, "as alert") + resource(HASHES, "as resource"),
        on_alert("T.loginfo('alert ' .. alert:sigid())", guid=f'"{HASHES}"'),
        on_resource("T.loginfo('resource ' .. resource:uri())"),
    )
    assert collector.logged() == ["alert as alert", "resource as resource"]


async def test_the_monitor_sees_every_field_that_the_record_has(tmp_path: Path) -> None:
    collector = await heard(
        tmp_path,
        f'engine:add_alert_full("{ALERTS}", "{FLOW}", "sig", "class", 2, "a\\0message", "CLEAR")',
        on_alert(
            "T.loginfo(table.concat({ alert:sigid(), alert:classification(), alert:priority(), #alert:message(), "
            "alert:status(), alert:flow():id(), alert:source_ip(), alert:destination_port(), "
            "(alert:timestamp()) }, '|'))"
        ),
    )
    (record,) = collector.of("alert")
    assert record == Alert(ALERTS, FLOW, "sig", "class", 2, "a\0message", "CLEAR", "source.lua", record.time)
    assert collector.logged() == [f"sig|class|2|9|CLEAR|{FLOW}|10.0.0.2|80|{int(record.time)}"]


async def test_an_alert_without_a_flow_has_none(tmp_path: Path) -> None:
    collector = await heard(tmp_path, alert(ALERTS), on_alert("T.loginfo(tostring(alert:flow()))"))
    assert collector.logged() == ["nil"]
    assert collector.of("alert")[0].flow == ""


@pytest.mark.parametrize("declared", [str.lower, str.upper, str.title], ids=["lower", "upper", "mixed"])
@pytest.mark.parametrize("raised", [str.lower, str.upper], ids=["raised-lower", "raised-upper"])
async def test_guids_are_compared_in_any_letter_case(tmp_path: Path, declared: object, raised: object) -> None:
    assert callable(declared)
    assert callable(raised)
    collector = await heard(
        tmp_path,
        alert(raised(ALERTS)) + resource(raised(HASHES)),
        on_alert("T.loginfo('alert')", guid=f'"{declared(ALERTS)}"'),
        on_resource("T.loginfo('resource')", guid=f'"{declared(HASHES)}"'),
    )
    assert collector.logged() == ["alert", "resource"]
    assert {each.group for each in collector.of("alert")} == {ALERTS}


@pytest.mark.parametrize(
    "guid",
    [
        f'function() return "{ALERTS}" end',
        'function() return T.alertgroups["User Alerts"] end',
        f'{{ "{OTHER_ALERTS}", "{ALERTS}" }}',
        f'{{ "{ALERTS}", "{ALERTS.lower()}" }}',
        f'{{ function() return "{ALERTS}" end, "{ALERTS}" }}',
    ],
    ids=["function", "by-name", "array", "array-twice-the-same", "array-of-functions"],
)
async def test_the_group_may_be_given_in_several_ways(tmp_path: Path, guid: str) -> None:
    collector = await heard(tmp_path, alert(ALERTS), on_alert("T.loginfo(T.monitor_group_guid)", guid=guid))
    assert collector.logged() == [ALERTS]


async def test_a_group_function_may_use_what_onload_left(tmp_path: Path) -> None:
    text = on_resource(
        "T.loginfo('heard')",
        guid="function() if not T.group then TrisulPlugin.onload() end return T.group end",
        rest=f"onload = function() T.group = '{HASHES}' end",
    )
    assert (await heard(tmp_path, resource(HASHES), text)).logged() == ["heard"]


async def test_each_group_of_an_array_has_an_instance_of_its_own(tmp_path: Path) -> None:
    text = on_alert(
        "T.n = (T.n or 0) + 1; T.loginfo(T.monitor_group_guid .. T.n)", guid=f'{{ "{ALERTS}", "{OTHER_ALERTS}" }}'
    )
    collector = await heard(tmp_path, alert(ALERTS) + alert(OTHER_ALERTS) + alert(ALERTS), text)
    assert collector.logged() == [f"{ALERTS}1", f"{OTHER_ALERTS}1", f"{ALERTS}2"]


@pytest.mark.parametrize("guid", ["nil", "{}", "5", "function() end"])
async def test_a_monitor_without_a_group_is_not_loaded_and_says_so(tmp_path: Path, guid: str) -> None:
    collector = await heard(tmp_path, alert(ALERTS), on_alert("T.loginfo('heard')", guid=guid))
    assert collector.logged() == []
    assert collector.logged("WARN") == ["alert_monitor.alert_guid names no group; the block is not loaded"]


async def test_a_monitor_that_alerts_in_its_own_group_is_not_re_entered(tmp_path: Path) -> None:
    body = (
        "T.depth = (T.depth or 0) + 1 "
        "local number = tonumber(alert:sigid()) "
        f'if number < 5 then engine:add_alert("{ALERTS}", nil, number + 1, 1, "m") end '
        "T.loginfo(number .. ' at depth ' .. T.depth) T.depth = T.depth - 1"
    )
    collector = await heard(tmp_path, alert(ALERTS, "1"), on_alert(body))
    assert collector.logged() == [f"{number} at depth 1" for number in range(1, 6)]
    assert [each.sigid for each in collector.of("alert")] == ["1", "2", "3", "4", "5"]


async def test_a_monitor_that_alerts_for_ever_is_bounded_and_leaves_the_loop_its_turns(tmp_path: Path) -> None:
    """Each alert causes two more: the queue fills, what is too much is dropped and counted."""
    scripts = [write(tmp_path, on_event(alert(ALERTS)), "source.lua")]
    scripts.append(write(tmp_path, on_alert(alert(ALERTS) * 2), "monitor.lua"))
    async with Engine(scripts, config=Config(message_limit=50, drain_seconds=0)) as engine:
        await engine.emit("t", "go")
        await eventually(lambda: engine.stats.messages.dropped > 100)
        assert engine.stats.messages.pending <= 50
        assert_counts_close(engine.stats, ended=False)
        await engine.unload("monitor.lua")
        await eventually(lambda: not engine.stats.messages.pending)


async def test_an_error_in_a_monitor_is_contained(tmp_path: Path) -> None:
    scripts = [
        write(tmp_path, on_event(alert(ALERTS, "1") + alert(ALERTS, "2")), "source.lua"),
        write(tmp_path, on_alert("if alert:sigid() == '1' then error('first') end T.loginfo('a')"), "moody.lua"),
        write(tmp_path, on_alert("T.loginfo('b')"), "calm.lua"),
    ]
    collector = Collector()
    async with Engine(scripts, sinks=[collector]) as engine:
        await engine.emit("t", "go")
    assert sorted(collector.logged()) == ["a", "b", "b"]
    assert engine.stats.messages.failed == 1
    (error,) = collector.logged("ERROR")
    assert error.startswith("alert_monitor.onnewalert: moody.lua:")


async def test_a_monitor_may_do_async_work_and_record(tmp_path: Path) -> None:
    body = (
        "T.async:schedule{ data = resource:uri(), onexecute = function(uri) return uri:upper() end, "
        f'onresult = function(engine, uri, out) engine:add_resource("{URIS}", "", out, uri) end }}'
    )
    collector = await heard(tmp_path, resource(HASHES, "abc"), on_resource(body))
    made = collector.of("resource")[-1]
    assert made == Resource(URIS, "", "ABC", "abc", "monitor0.lua", made.time)
