"""What an engine shows of itself, as mappings."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest

from engine.dashboard import snapshot
from engine.values.records import Alert, Flow, Log
from engine.values.stats import AsyncStats, DecodeStats, EngineStats, EventStats, PluginStats
from engine.values.windows import GROUP_TOTALS, CounterGroup, GroupWindow, Meter, MeterType, Toppers, Window
from tests.sinks.measured import window as measured_window

GROUP = CounterGroup(
    "{A}", "Hosts", "", (Meter(0, MeterType.COUNTER, "Total", units="bytes"), Meter(1, MeterType.COUNTER, "Hits"))
)


def test_losses_are_what_is_not_zero() -> None:
    stats = EngineStats(decode=DecodeStats(packets=9, malformed=2), events=EventStats(dropped=3), script_errors=1)
    assert snapshot.losses(stats.flat()) == {"malformed": 2, "events_dropped": 3}


@pytest.mark.parametrize("name", sorted(EngineStats().flat()))
def test_each_count_that_sounds_like_a_loss_is_one_or_is_known_to_be_none(name: str) -> None:
    sounds = re.search(r"drop|reject|fail|lost|malform|cut|abandon|oversize|bomb|error|over$|deep|late_|unvoted", name)
    none = {"flush_rejected", "script_errors"}
    assert bool(snapshot.losses({name: 1})) or not sounds or name in none


def test_rates() -> None:
    before = dict.fromkeys(snapshot.totals(EngineStats()), 0)
    now = before | {"packets": 500, "events": 3}
    assert snapshot.rates(before, now, 2.0)["packets"] == 250.0
    assert snapshot.rates(before, now, 2.0)["events"] == 1.5
    assert snapshot.rates(now, before, 2.0)["packets"] == 0.0
    assert snapshot.rates(before, now, 0.0)["packets"] == 0.0


def test_queues_are_by_script_and_of_those_that_ever_had_work() -> None:
    busy = PluginStats("a", "a.lua", "x", (), AsyncStats(submitted=5, pending=2))
    plugins = [busy, replace(busy, block="y"), PluginStats("b", "b.lua", "x")]
    assert snapshot.queues(plugins) == {"a.lua": 4}


def test_an_alert_and_a_line_as_they_are_shown() -> None:
    alert = Alert("{G}", "flow", "sig", "", 2, "m" * 600, "", "a.lua", 1.0)
    assert snapshot.is_note(alert)
    assert snapshot.note(alert)["text"] == "m" * 499 + "…"
    assert snapshot.note(replace(alert, message=""))["text"] == "sig"
    line = Log("ERROR", "a.lua", "wrong\nstack traceback:\n\tx", 1.0)
    assert snapshot.note(line) == {"kind": "log", "time": 1.0, "level": "ERROR", "text": "wrong", "script": "a.lua"}


@pytest.mark.parametrize("level", ["NOTICE", "INFO", "DEBUG"])
def test_what_went_well_is_no_note(level: str) -> None:
    assert not snapshot.is_note(Log(level, "a.lua", "fine", 1.0))
    assert not snapshot.is_note(Flow("f", "tcp", "1.1.1.1", 1, "2.2.2.2", 2, 1, 1, 1, 1, 0.0, 1.0))


def test_toppers_of_a_window() -> None:
    shown = snapshot.window(measured_window(3))
    (group,) = shown["groups"]
    assert (group["name"], group["keys"], shown["number"]) == ("Hosts", 200, 3)
    assert [each["name"] for each in group["meters"]][:1] == ["Total"]
    assert group["meters"][0]["items"][0] == {"key": "0A.00.00.C7", "label": "", "value": 199.0}


def test_without_toppers_the_greatest_values_are_shown() -> None:
    values = {f"k{at}": (float(at), 0.0) for at in range(30)} | {GROUP_TOTALS: (1e9, 0.0)}
    shown = snapshot.window(Window(0, 0.0, 60.0, (GroupWindow(GROUP, values, {"k29": "best"}),)))
    (group,) = shown["groups"]
    (meter,) = group["meters"]  # of Hits there were none
    assert (meter["name"], meter["units"], len(meter["items"])) == ("Total", "bytes", snapshot.TOP)
    assert meter["items"][0] == {"key": "k29", "label": "best", "value": 29.0}
    assert all(each["key"] != GROUP_TOTALS for each in meter["items"])


def test_a_window_is_bounded_and_json() -> None:
    toppers = (Toppers(0, tuple(("k" * 2000, math.inf) for _ in range(1000))),)
    many = tuple(
        GroupWindow(replace(GROUP, guid=f"{{{at}}}"), {"k": (math.nan, 1.0)}, {}, toppers) for at in range(100)
    )
    shown = snapshot.window(Window(0, 0.0, 60.0, (*many, GroupWindow(GROUP, {GROUP_TOTALS: (1.0, 1.0)}, {}))))
    assert (len(shown["groups"]), shown["left_out"]) == (snapshot.GROUPS, 60)
    assert len(json.dumps(shown, allow_nan=False)) < 400_000
