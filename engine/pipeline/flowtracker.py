"""The flows with the greatest metrics, by the word of `flowtracker` scripts (spec 2.9). Loop thread only."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engine.plugins.plugin import Plugin
from engine.values.records import TrackedFlow

_BUCKET_SECONDS, _COUNT, _MOST = 300.0, 100, 10_000


class TopFlows:
    """The top flows of one tracker, bucket by bucket of stream time."""

    def __init__(self, plugin: Plugin, publish: Callable[[TrackedFlow], None]) -> None:
        control = plugin.control()
        self._name = str(control.get("name", plugin.name))
        self._script = plugin.script
        self._count = min(int(_number(control, "count", _COUNT)), _MOST)
        self._seconds = _number(control, "bucketsize", _BUCKET_SECONDS)
        self._publish = publish
        self._metrics: dict[str, float] = {}
        self._bucket: float | None = None

    def add(self, flows: Iterable[tuple[str, float]]) -> None:
        """Take metrics by flow key; of a flow that is seen again, the greatest counts."""
        metrics = self._metrics
        for key, metric in flows:
            if metric > 0 and math.isfinite(metric):
                metrics[key] = max(metric, metrics.get(key, 0.0))
                if len(metrics) > 4 * self._count:
                    self._metrics = metrics = dict(self._top())

    def end_window(self, end: float, *, last: bool = False) -> None:
        """A window is over: publish the bucket when it is over, too, or when no window follows."""
        bucket = end // self._seconds
        if self._bucket is None:
            self._bucket = (end - 1e-9) // self._seconds
        if bucket == self._bucket and not last:
            return
        for rank, (key, metric) in enumerate(self._top(), 1):
            self._publish(TrackedFlow(self._name, key, metric, rank, self._script, end))
        self._metrics, self._bucket = {}, bucket

    def _top(self) -> list[tuple[str, float]]:
        return heapq.nsmallest(self._count, self._metrics.items(), key=lambda item: (-item[1], item[0]))


def _number(control: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = control.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 1 else otherwise
