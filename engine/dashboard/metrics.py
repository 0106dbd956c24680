"""Every count of an engine as families of metrics, made from the fields of `engine.values.stats`. Pure.

A field that is new there is a metric at once, with the sentence that stands under it as its help.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Final

from engine.dashboard.exposition import Family, Labels
from engine.values import stats as stats_module
from engine.values.histogram import Histogram
from engine.values.stats import AsyncStats, EngineStats, HookStats, PluginStats, WorkerStats

_GAUGES: Final = frozenset(
    {
        "pending",
        "queued",
        "running",
        "waiting",
        "windows_waiting",
        "flows_live",
        "fragments_held",
        "stuck_threads",
        "clients",
        "open",
    }
)
"""Fields that go up and down; the others only go up."""

_RENAMED: Final = {
    ("AsyncStats", "bytes_copied"): "copied_bytes",
    ("AsyncStats", "waits"): "wait_seconds",
    ("AsyncStats", "runs"): "run_seconds",
}
_GROUPS: Final = {"tasks": "async"}

_HELP: Final = {
    "source_received": "Live packets that the kernel had for us.",
    "source_dropped": "Live packets that the kernel dropped for want of room in the ring.",
    "dns_cut": "DNS messages truncated by their sender, or over a limit.",
    "dns_malformed": "DNS messages of which not all could be read.",
    "flush_late": "Flush cycles that took longer than their window.",
    "async_timed_out": "Tasks that failed as they were past their timeout.",
    "async_queued": "Tasks that no worker has taken.",
    "async_running": "Tasks that are being run, and those that cross together with one.",
    "store_packets": "Packets written to the store.",
    "store_bytes": "Bytes written to the store.",
    "store_skipped": "Packets not chosen for the store, or past what is wanted of their flow.",
    "store_lost": "Packets chosen for the store that could not be written.",
    "store_shortened": "Stored packets of which only the headers are stored.",
}
"""What reads wrongly without the sentences around it."""


def families(
    stats: EngineStats, *, reading: bool, lag: Histogram, version: str, others: Iterable[Any]
) -> Iterator[Family]:
    """All families. `others` are counts of the dashboard's own, as dataclasses."""
    yield Family("offpath_info", "gauge", "What runs.", (((("version", version),), 1),))
    yield Family("offpath_source_reading", "gauge", "1 while a source is being read.", (((), int(reading)),))
    told = "How late the event loop was, looked at 50 times a second."
    yield Family("offpath_loop_lag_seconds", "histogram", told, (((), lag),))
    for each in fields(stats):
        value = getattr(stats, each.name)
        group = _GROUPS.get(each.name, each.name)
        if is_dataclass(value):
            yield from _of_counts(group, [((), value)])
        elif isinstance(value, int):
            yield _count(type(stats).__name__, "", each.name, [((), value)])
    for other in others:
        yield from _of_counts(f"dashboard_{type(other).__name__.removesuffix('Stats').lower()}", [((), other)])
    sinks = [((("sink", each.name), ("number", str(at))), each) for at, each in enumerate(stats.sinks)]
    yield from _of_counts("sink", sinks)
    yield from _of_plugins(stats.plugins)


def _of_counts(group: str, found: Sequence[tuple[Labels, Any]]) -> Iterator[Family]:
    """A family for each number and histogram of a dataclass, with a sample for each of those that are given."""
    if not found:
        return
    kind = type(found[0][1])
    for each in fields(kind):
        samples = [(labels, getattr(counts, each.name)) for labels, counts in found]
        if isinstance(samples[0][1], int | float | Histogram):
            yield _count(kind.__name__, group, each.name, samples)


def _count(kind: str, group: str, field: str, samples: Iterable[tuple[Labels, Any]]) -> Family:
    own = "_".join(part for part in (group, _RENAMED.get((kind, field), field)) if part)
    told = _HELP.get(own.removeprefix("plugin_")) or _docs().get((kind, field)) or _in_words(kind, field)
    taken = tuple(samples)
    if isinstance(taken[0][1], Histogram):
        return Family(f"offpath_{own}", "histogram", told, taken)
    if field in _GAUGES:
        return Family(f"offpath_{own}", "gauge", told, taken)
    return Family(f"offpath_{own}_total", "counter", told, taken)


def _in_words(kind: str, field: str) -> str:
    words, about = field.replace("_", " "), _docs().get((kind, ""), "")
    return f"{about}: {words}." if about else f"{words.capitalize()}."


# ---- plugins


def _of_plugins(plugins: Iterable[PluginStats]) -> Iterator[Family]:
    """Of instances that one block has many of, as one for each group of a monitor, the counts are one."""
    tasks: dict[Labels, AsyncStats] = {}
    hooks: dict[Labels, HookStats] = {}
    for plugin in plugins:
        labels = (("plugin", plugin.name), ("script", plugin.script), ("block", plugin.block))
        tasks[labels] = tasks.get(labels, AsyncStats()) + plugin.tasks
        for hook in plugin.hooks:
            place = (*labels, ("hook", hook.name))
            hooks[place] = _both(hooks[place], hook) if place in hooks else hook
    yield from _of_counts("plugin_async", list(tasks.items()))
    yield from _of_workers(tasks)
    yield from _of_hooks(hooks)


def _both(one: HookStats, other: HookStats) -> HookStats:
    return HookStats(
        one.name,
        one.calls + other.calls,
        one.errors + other.errors,
        one.seconds + other.seconds,
        max(one.slowest, other.slowest),
    )


def _of_hooks(hooks: dict[Labels, HookStats]) -> Iterator[Family]:
    shown: tuple[tuple[str, Callable[[HookStats], float], str], ...] = (
        ("calls_total", lambda hook: hook.calls, "Calls of a hook."),
        ("errors_total", lambda hook: hook.errors, "Calls of a hook that raised."),
        ("seconds_total", lambda hook: hook.seconds, "Seconds that a hook ran."),
        ("slowest_seconds", lambda hook: hook.slowest, "The longest single call of a hook."),
    )
    for name, get, told in shown:
        samples = tuple((labels, get(hook)) for labels, hook in hooks.items())
        yield Family(f"offpath_hook_{name}", "counter" if name.endswith("_total") else "gauge", told, samples)


def _of_workers(tasks: dict[Labels, AsyncStats]) -> Iterator[Family]:
    """Workers that there are now, by kind and state; so all of this goes up and down."""
    found: dict[Labels, list[WorkerStats]] = {}
    for labels, each in tasks.items():
        for worker in each.workers:
            found.setdefault((*labels, ("kind", worker.kind), ("state", worker.state)), []).append(worker)
    shown: tuple[tuple[str, Callable[[WorkerStats], float], str], ...] = (
        ("workers", lambda _: 1, "Workers that there are now."),
        ("worker_tasks", lambda worker: worker.tasks_run, "Tasks that the workers there are now have run."),
        ("worker_states", lambda worker: worker.states_built, "Lua states that the workers there are now have built."),
        ("worker_memory_bytes", lambda worker: worker.memory_bytes, "What the Lua states of the workers use."),
    )
    for name, get, told in shown:
        samples = tuple((labels, sum(map(get, workers))) for labels, workers in found.items())
        yield Family(f"offpath_plugin_{name}", "gauge", told, samples)


# ---- help


@cache
def _docs() -> dict[tuple[str, str], str]:
    """The sentences under the fields of the classes of counts, by class and field; none where there is no source.

    Under no field: what the class is about.
    """
    try:
        tree = ast.parse(inspect.getsource(stats_module))
    except (OSError, SyntaxError):
        return {}
    return {
        (found.name, name): text
        for found in tree.body
        if isinstance(found, ast.ClassDef)
        for name, text in _under(found)
    }


def _under(found: ast.ClassDef) -> Iterator[tuple[str, str]]:
    yield "", (ast.get_docstring(found) or "").partition(".")[0]
    for field, after in zip(found.body, found.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            yield field.target.id, " ".join(after.value.value.split())
