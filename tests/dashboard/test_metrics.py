"""Metrics as Prometheus' own parser reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from engine.dashboard.database import DatabaseStats
from engine.dashboard.exposition import Family, render
from engine.dashboard.feed import FeedStats
from engine.dashboard.metrics import families
from engine.values.histogram import Histogram, Recorder
from engine.values.stats import AsyncStats, DecodeStats, EngineStats, HookStats, PluginStats, SinkStats, WorkerStats


def recorded(*seconds: float) -> Histogram:
    recorder = Recorder()
    for each in seconds:
        recorder.add(each)
    return recorder.snapshot()


def plugin(name: str = "sha1", hooks: Iterable[HookStats] = ()) -> PluginStats:
    workers = (WorkerStats("thread", "idle", 5, 1, 1000), WorkerStats("thread", "idle", 6, 1, 2000))
    tasks = AsyncStats(submitted=9, completed=7, pending=2, queued=1, running=1, waits=recorded(0.5), workers=workers)
    return PluginStats(name, f"{name}.lua", "filex_monitor", tuple(hooks), tasks)


STATS = EngineStats(
    decode=DecodeStats(packets=7, wire_bytes=900, flows_live=3),
    tasks=AsyncStats(submitted=9, waits=recorded(3e-6, 0.1), runs=recorded(0.2), bytes_copied=11),
    script_errors=2,
    plugins=(plugin(hooks=[HookStats("onfile_http", 4, 1, 0.25, 0.125)]), plugin("other")),
)


def parsed(stats: EngineStats = STATS) -> dict[str, Metric]:
    made = families(stats, reading=True, lag=recorded(0.001), version="1", others=[FeedStats(), DatabaseStats()])
    found = list(text_string_to_metric_families(render(made)))
    assert len({each.name for each in found}) == len(found)
    return {each.name: each for each in found}


def value(metric: Metric, suffix: str = "", **labels: str) -> float:
    wanted = {
        sample.value for sample in metric.samples if sample.name == metric.name + suffix and sample.labels == labels
    }
    assert len(wanted) == 1, metric
    return float(wanted.pop())


def test_counts_have_their_names_types_and_values() -> None:
    found = parsed()
    packets = found["offpath_decode_packets"]
    assert (packets.type, value(packets, "_total")) == ("counter", 7)
    assert value(found["offpath_decode_wire_bytes"], "_total") == 900
    assert (found["offpath_decode_flows_live"].type, value(found["offpath_decode_flows_live"])) == ("gauge", 3)
    assert value(found["offpath_script_errors"], "_total") == 2
    assert value(found["offpath_async_copied_bytes"], "_total") == 11
    assert value(found["offpath_source_reading"]) == 1


def numbers(kind: type[Any]) -> list[str]:
    plain = kind(*("x" for each in fields(kind) if each.name in ("kind", "state")))
    return [each.name for each in fields(kind) if isinstance(getattr(plain, each.name), int | float | Histogram)]


@pytest.mark.parametrize("group", [each.name for each in fields(EngineStats) if each.name not in ("plugins", "sinks")])
def test_everything_that_is_counted_is_there(group: str) -> None:
    found = parsed()
    counts = getattr(STATS, group)
    if not is_dataclass(counts):
        assert f"offpath_{group}" in found
        return
    name = {"tasks": "async"}.get(group, group)
    renamed = {"bytes_copied": "copied_bytes", "waits": "wait_seconds", "runs": "run_seconds"}
    assert {f"offpath_{name}_{renamed.get(each, each)}" for each in numbers(type(counts))} <= found.keys()


def test_every_family_has_help_and_a_name_by_the_rules() -> None:
    made = list(families(STATS, reading=True, lag=recorded(0.1), version="1", others=[FeedStats(), DatabaseStats()]))
    for each in made:
        assert each.help.strip(), each.name
        assert (each.kind == "counter") == each.name.endswith("_total"), each.name
        assert "second" not in each.name or each.name.removesuffix("_total").endswith("seconds"), each.name
        assert "byte" not in each.name or each.name.removesuffix("_total").endswith("bytes"), each.name
    told = {each.name: each.help for each in made}
    assert told["offpath_http_bombs_total"] == "Bodies cut at the decompression limit."
    assert told["offpath_decode_packets_total"] == "Packets, flows and TCP streams: packets."


def test_counts_of_connections_only_go_up() -> None:
    assert parsed()["offpath_tls_connections"].type == "counter"


def test_plugins_have_their_tasks_hooks_and_workers() -> None:
    found = parsed()
    place = {"plugin": "sha1", "script": "sha1.lua", "block": "filex_monitor"}
    assert value(found["offpath_plugin_async_completed"], "_total", **place) == 7
    assert value(found["offpath_plugin_async_queued"], **place) == 1
    assert value(found["offpath_plugin_async_wait_seconds"], "_sum", **place) == 0.5
    assert value(found["offpath_plugin_async_wait_seconds"], "_bucket", le="0.524288", **place) == 1
    assert value(found["offpath_plugin_async_wait_seconds"], "_bucket", le="0.262144", **place) == 0
    assert value(found["offpath_hook_calls"], "_total", hook="onfile_http", **place) == 4
    assert value(found["offpath_hook_slowest_seconds"], hook="onfile_http", **place) == 0.125
    assert value(found["offpath_plugin_workers"], kind="thread", state="idle", **place) == 2
    assert value(found["offpath_plugin_worker_memory_bytes"], kind="thread", state="idle", **place) == 3000


def test_each_sink_has_its_counts() -> None:
    stats = EngineStats(sinks=(SinkStats("a.db", records=5, stored=3, pending=2, seconds=0.5), SinkStats("a.db")))
    found = parsed(stats)
    assert {f"offpath_sink_{each}" for each in numbers(SinkStats)} <= found.keys()
    assert value(found["offpath_sink_records"], "_total", sink="a.db", number="0") == 5
    assert value(found["offpath_sink_records"], "_total", sink="a.db", number="1") == 0
    assert value(found["offpath_sink_pending"], sink="a.db", number="0") == 2
    assert value(found["offpath_sink_seconds"], "_total", sink="a.db", number="0") == 0.5


def test_instances_of_one_block_are_counted_as_one() -> None:
    hooks = [HookStats("onflush", 2, 0, 1.0, 0.5)]
    found = parsed(EngineStats(plugins=(plugin(hooks=hooks), plugin(hooks=hooks))))
    place = {"plugin": "sha1", "script": "sha1.lua", "block": "filex_monitor"}
    assert value(found["offpath_hook_calls"], "_total", hook="onflush", **place) == 4
    assert value(found["offpath_hook_slowest_seconds"], hook="onflush", **place) == 0.5
    assert value(found["offpath_plugin_async_submitted"], "_total", **place) == 18


def test_an_engine_without_plugins() -> None:
    assert not [name for name in parsed(EngineStats()) if name.startswith(("offpath_plugin", "offpath_hook"))]


@given(st.lists(st.floats(0, 200), max_size=50))
def test_buckets_add_up(seconds: list[float]) -> None:
    family = Family("x_seconds", "histogram", "x", (((), recorded(*seconds)),))
    (metric,) = text_string_to_metric_families(render([family]))
    buckets = [(float(each.labels["le"]), each.value) for each in metric.samples if each.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == (math.inf, len(seconds))
    assert value(metric, "_count") == len(seconds)
    assert value(metric, "_sum") == pytest.approx(sum(seconds))
    for bound, count in buckets:
        assert count <= sum(each <= bound for each in seconds)


@given(st.text(), st.floats() | st.integers(0, 2**60))
def test_any_label_and_any_number_can_be_written(text: str, number: float) -> None:
    family = Family("x", "gauge", f"help {text}", (((("script", text), ("other", "y")), number),))
    ((sample,),) = (each.samples for each in text_string_to_metric_families(render([family])))
    assert sample.labels == {"script": text.encode("utf-8", "replace").decode(), "other": "y"}
    assert sample.value == pytest.approx(number, nan_ok=True)
