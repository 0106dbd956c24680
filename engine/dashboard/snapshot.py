"""What an engine shows of itself once a second, as JSON can hold it. Pure: counts in, mappings out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from heapq import nlargest
from typing import Any, Final

from engine.dashboard.lag import LagPoint
from engine.values.records import Alert, Log, Record
from engine.values.stats import EngineStats, PluginStats
from engine.values.windows import GROUP_TOTALS, CounterGroup, GroupWindow, Toppers, Window

TOP: Final = 10
"""Toppers of a meter that are shown."""

GROUPS: Final = 40
"""Counter groups of a window that are shown."""

_SORTED: Final = 5_000  # keys of a group without toppers that are looked through for the greatest
_WRONG: Final = frozenset({"EMERG", "FATAL", "ALERT", "CRIT", "ERROR", "WARN"})
_TEXT: Final = 500  # characters of a text that is shown
_LOSS = re.compile(
    r"(^|_)(dropped|rejected|failed|lost|skipped|malformed|cut|abandoned|timed_out|oversized|bombs|errors"
    r"|gaps|too_deep|held_over|late_results|stuck_threads|unvoted)$"
)
_NO_LOSS: Final = frozenset({"flows_timed_out", "store_skipped", "flush_rejected", "script_errors"})
"""Counts that are called so and are nothing that got lost, or are shown elsewhere."""


def losses(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts of what got lost, as far as they are not zero, by their names in `EngineStats.flat`."""
    return {name: value for name, value in counts.items() if value and _is_loss(name)}


@cache
def _is_loss(name: str) -> bool:
    return bool(_LOSS.search(name)) and name not in _NO_LOSS


def totals(stats: EngineStats) -> dict[str, int]:
    """The counts that the page shows by themselves."""
    return {
        "packets": stats.decode.packets,
        "bytes": stats.decode.wire_bytes,
        "flows": stats.decode.flows,
        "files": stats.http.files,
        "events": stats.events.received,
        "records": stats.records.made,
        "alerts": stats.alerts,
        "resources": stats.resources,
        "script_errors": stats.script_errors,
        "windows": stats.flush.windows,
    }


def rates(before: Mapping[str, int], now: Mapping[str, int], seconds: float) -> dict[str, float]:
    """How many a second there were of what is counted."""
    return {
        name: round(max(now[name] - before[name], 0) / seconds, 1) if seconds > 0 else 0.0
        for name in ("packets", "bytes", "events", "records", "alerts")
    }


def plugin_rows(plugins: Iterable[PluginStats]) -> list[dict[str, Any]]:
    """A row for each plugin: its hooks as one, and its tasks."""
    return [_plugin_row(each) for each in plugins]


def _plugin_row(plugin: PluginStats) -> dict[str, Any]:
    tasks = plugin.tasks
    return {
        "name": plugin.name,
        "script": plugin.script,
        "block": plugin.block,
        "calls": sum(hook.calls for hook in plugin.hooks),
        "errors": sum(hook.errors for hook in plugin.hooks),
        "seconds": round(sum(hook.seconds for hook in plugin.hooks), 6),
        "slowest": max((hook.slowest for hook in plugin.hooks), default=0.0),
        "submitted": tasks.submitted,
        "queued": tasks.queued,
        "running": tasks.running,
        "completed": tasks.completed,
        "failed": tasks.failed,
        "rejected": tasks.rejected + tasks.abandoned,
        "wait_p99": finite(tasks.waits.percentile(99)),
        "run_p99": finite(tasks.runs.percentile(99)),
    }


def queues(plugins: Iterable[PluginStats]) -> dict[str, int]:
    """Unfinished async work by script, for those that ever had some."""
    found: dict[str, int] = {}
    for each in plugins:
        if each.tasks.submitted:
            found[each.script] = found.get(each.script, 0) + each.tasks.pending
    return found


def point(time: float, rate: Mapping[str, float], lag: LagPoint, waiting: Mapping[str, int]) -> dict[str, Any]:
    """One place on the charts; times are in seconds."""
    lags = {"median": lag.median, "p99": lag.p99, "worst": lag.worst}
    return {"time": round(time, 3), "rates": dict(rate), "lag": _rounded(lags), "queues": dict(waiting)}


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items()}


def is_note(record: Record) -> bool:
    """Whether it is an alert, or a line about something that went wrong."""
    return isinstance(record, Alert) or (isinstance(record, Log) and record.level in _WRONG)


def note(record: Record) -> dict[str, Any]:
    """An alert or a line as the page shows it."""
    if isinstance(record, Alert):
        return {
            "kind": "alert",
            "time": record.time,
            "priority": record.priority,
            "text": _cut(record.message or record.sigid),
            "script": record.script,
            "flow": record.flow,
            "group": record.group,
        }
    assert isinstance(record, Log)
    text, _, _ = record.text.partition("\nstack traceback:")
    return {"kind": "log", "time": record.time, "level": record.level, "text": _cut(text), "script": record.script}


def window(found: Window) -> dict[str, Any]:
    """A window with the toppers of its groups. Of one whose groups carry no toppers, the greatest values are taken."""
    groups = [_group(each) for each in found.groups if len(each.values) > (GROUP_TOTALS in each.values)]
    return {
        "number": found.number,
        "start": found.start,
        "end": found.end,
        "left_out": max(len(groups) - GROUPS, 0),
        "groups": groups[:GROUPS],
    }


def _group(measured: GroupWindow) -> dict[str, Any]:
    group = measured.group
    shown = [each for each in measured.toppers if each.items] or _greatest(measured)
    names = {each.number: each for each in group.meters}
    return {
        "guid": group.guid,
        "name": group.name or group.guid,
        "keys": len(measured.values) - (GROUP_TOTALS in measured.values),
        "rejected": measured.rejected,
        "meters": [
            {
                "number": each.meter,
                "name": (each.meter in names and names[each.meter].name) or f"meter {each.meter}",
                "units": names[each.meter].units if each.meter in names else "",
                "smallest": each.smallest,
                "items": [_item(group, measured, *item) for item in each.items[:TOP]],
            }
            for each in shown
        ],
    }


def _item(group: CounterGroup, measured: GroupWindow, key: str, value: float) -> dict[str, Any]:
    return {
        "key": _cut(key),
        "label": _cut(measured.labels.get(key) or group.labels.get(key, "")),
        "value": finite(value),
    }


def _greatest(measured: GroupWindow) -> list[Toppers]:
    made: list[Toppers] = []
    if len(measured.values) > _SORTED:
        return made
    for meter in measured.group.meters[:4]:
        values = [
            (key, row[meter.number])
            for key, row in measured.values.items()
            if key != GROUP_TOTALS and meter.number < len(row)
        ]
        best = nlargest(TOP, values, key=lambda item: item[1])
        if best and best[0][1]:
            made.append(Toppers(meter.number, tuple(best)))
    return made


def finite(value: float) -> float | None:
    """A number that JSON has."""
    return value if math.isfinite(value) else None


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"
