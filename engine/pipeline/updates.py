"""Counters of the running second, for monitors that want each update and each new key (spec 2.4). Loop thread only."""

from __future__ import annotations

from collections.abc import Sequence

from engine.pipeline.flush_slices import Slices
from engine.plugins.plugin import Plugin
from engine.stream.counters import Run, samples
from engine.stream.keys import split_keys
from engine.values.windows import MeterType

_KEYS = 100_000
"""New keys of a second, and keys that a group remembers before it forgets them all, as a Bloom filter that is full."""
_METERS = 16
_SUMS = (MeterType.COUNTER, MeterType.RATE_COUNTER, MeterType.RUNNING_COUNTER)


class Updates:
    """Sums by group and key since the last second."""

    def __init__(self, plugins: Sequence[Plugin], slices: Slices) -> None:
        """`plugins` is the live list of the engine."""
        self._plugins = plugins
        self._slices = slices
        self._sums: dict[str, dict[str, list[float]]] = {}
        self._seen: dict[str, set[str]] = {}
        self.dropped = 0
        """Updates of keys past the limit."""

    def groups(self) -> frozenset[str]:
        """Groups of which some plugin wants updates."""
        return frozenset(
            plugin.group
            for plugin in self._plugins
            if plugin.block.name == "cg_monitor" and plugin.hooks & {"onupdate", "onnewkey"}
        )

    def add(self, run: Run) -> None:
        """Take what was counted in one of the groups that are wanted."""
        keys = split_keys(run.keys, run.lengths)
        there = self._sums.setdefault(run.group, {})
        for meter, kind, values in samples(run, len(keys)):
            if meter >= _METERS:
                continue
            adds = kind in _SUMS
            for key, value in zip(keys, values, strict=True):
                if value != value:
                    continue
                row = there.get(key) or self._row(there, key)
                if row is not None:
                    row.extend([0.0] * (meter + 1 - len(row)))
                    row[meter] = row[meter] + value if adds else value

    def _row(self, keys: dict[str, list[float]], key: str) -> list[float] | None:
        if len(keys) >= _KEYS:
            self.dropped += 1
            return None
        row = keys[key] = [0.0]
        return row

    @property
    def pending(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._sums)

    async def tell(self, now: float) -> None:
        """A second is over: onnewkey for keys not seen lately, then onupdate, in the order of their first update."""
        sums, self._sums = self._sums, {}
        for group, keys in sums.items():
            plugins = [each for each in self._plugins if each.block.name == "cg_monitor" and each.group == group]
            meters = max(map(len, keys.values()))
            seen = self._seen.setdefault(group, set())
            new = {key: values for key, values in keys.items() if key not in seen}
            if len(seen) + len(new) > _KEYS:
                seen.clear()
            seen.update(new)
            for hook, told in (("onnewkey", new), ("onupdate", keys)):
                if any(hook in plugin.hooks for plugin in plugins):
                    await self._slices.keys(plugins, "", hook, now, told, meters)
