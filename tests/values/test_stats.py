"""Counts: frozen, zero at first, and the slowest hook found by name."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest

from engine.values import stats
from engine.values.stats import AsyncStats, EngineStats, HookStats, PluginStats, WorkerStats

GROUPS = [each for each in vars(stats).values() if isinstance(each, type) and is_dataclass(each)]


def test_all_groups_were_found() -> None:
    assert {each.__name__ for each in GROUPS} >= {"DecodeStats", "HttpStats", "AsyncStats", "EventStats", "EngineStats"}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_counts_are_frozen(group: type) -> None:
    required = {"name": "n", "script": "s", "block": "b", "kind": "thread", "state": "idle"}
    instance = group(**{each.name: required[each.name] for each in fields(group) if each.name in required})
    with pytest.raises(FrozenInstanceError):
        setattr(instance, fields(group)[0].name, 1)


def test_everything_starts_at_zero() -> None:
    counts = EngineStats()
    for group in (counts.decode, counts.http, counts.events, counts.messages, counts.records):
        assert {getattr(group, each.name) for each in fields(group)} == {0}
    assert set(counts.tasks.counts.values()) == {0}
    assert counts.tasks.waits.count == counts.tasks.runs.count == len(counts.tasks.workers) == 0
    assert (counts.alerts, counts.resources, counts.script_errors, counts.plugins) == (0, 0, 0, ())


def test_tasks_of_two_queues_add_up() -> None:
    some = AsyncStats(submitted=3, completed=2, pending=1, queued=1, workers=(WorkerStats("thread", "idle", 2),))
    others = AsyncStats(submitted=4, failed=4, timed_out=1, workers=(WorkerStats("process", "running"),))
    total = some + others
    assert (total.submitted, total.completed, total.failed, total.timed_out, total.queued) == (7, 2, 4, 1, 1)
    assert [each.kind for each in total.workers] == ["thread", "process"]


def test_no_hook_was_slowest_before_any_was_called() -> None:
    uncalled = PluginStats("p", "p.lua", "event_monitor", (HookStats("onevent", calls=0, errors=1),))
    assert EngineStats().slowest_hook is None
    assert EngineStats(plugins=(uncalled,)).slowest_hook is None


def test_the_slowest_single_call_counts_not_the_sum() -> None:
    busy = HookStats("onevent", calls=1_000, seconds=9.0, slowest=0.009)
    slow = HookStats("onfile_http", calls=1, seconds=0.5, slowest=0.5)
    plugins = (
        PluginStats("a", "a.lua", "event_monitor", (busy,)),
        PluginStats("b", "b.lua", "filex_monitor", (slow, busy), AsyncStats()),
    )
    assert EngineStats(plugins=plugins).slowest_hook == ("b.lua filex_monitor.onfile_http", 0.5)
