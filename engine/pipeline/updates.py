"""Counters of the running second, for monitors that want each update and each new key (spec 2.4). Loop thread only."""

from __future__ import annotations

from collections.abc import Sequence

from engine.pipeline.flush_slices import Slices
from engine.plugins.plugin import Plugin

_KEYS = 100_000
"""New keys of a second, and keys that a group remembers before it forgets them all, as a Bloom filter that is full."""
_METERS = 16


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

    def add(self, group: str, key: str, meter: int, value: float) -> None:
        """Take an update of a counter of one of the groups that are wanted."""
        keys = self._sums.setdefault(group, {})
        values = keys.get(key)
        if values is None:
            if len(keys) >= _KEYS:
                self.dropped += 1
                return
            values = keys[key] = []
        if 0 <= meter < _METERS:
            values.extend([0.0] * (meter + 1 - len(values)))
            values[meter] += value

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
