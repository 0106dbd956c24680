"""The flush: once a window, all that was measured and published goes through the hooks of the slow path (spec 2.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from engine.pipeline.flowtracker import TopFlows
from engine.pipeline.flush_slices import Slices
from engine.pipeline.held import FLOWS, ITEM_KINDS, FlowItem, HeldItems, ItemKind
from engine.plugins.plugin import FAILED, Plugin
from engine.values.records import Record
from engine.values.stats import FlushStats
from engine.values.windows import GroupWindow, Toppers, Window


async def _drop(_window: Window) -> None:
    """Nobody takes windows."""


class Flusher:
    """Runs one cycle after the other. Loop thread only."""

    def __init__(
        self,
        plugins: Sequence[Plugin],
        publish: Callable[[Record], None],
        warn: Callable[[Plugin, str], None],
        slices: Slices,
        waiting_limit: int,
        monotonic: Callable[[], float],
    ) -> None:
        """`plugins` is the live list of the engine; `warn(plugin, text)` takes warnings about a plugin."""
        self._plugins = plugins
        self._publish = publish
        self._warn = warn
        self._slices = slices
        self._waiting_limit = waiting_limit
        self._monotonic = monotonic
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._trackers: dict[Plugin, TopFlows] = {}
        self._complained: set[tuple[Plugin, str]] = set()
        self._windows = self._late = self._dropped = self._kept = self._rejected = 0
        self.hand_on: Callable[[Window], Awaitable[None]] = _drop
        """Gets each window with what was kept of it, overrides applied; the next one waits for that."""

    async def flush(self, window: Window, items: HeldItems, *, last: bool = False) -> bool:
        """Run a cycle, after those before it. Nobody is asked about the window, which is counted, when too many wait.

        Whether the cycle was run. `last`: no window follows for now.
        """
        if self._waiting >= self._waiting_limit:
            self._dropped += 1
            await self.hand_on(window)
            return False
        self._waiting += 1
        try:
            async with self._turn:
                await self._cycle(window, items, last)
        finally:
            self._waiting -= 1
        return True

    async def _cycle(self, window: Window, items: HeldItems, last: bool) -> None:
        began, now = self._monotonic(), window.end
        self._slices.begin()
        outer = self._of("engine_monitor")
        await self._slices.tell(outer, "onbeginflush", now)
        groups = await self._flush_counters(window)
        for kind in ITEM_KINDS:
            await self._flush_items(kind, now, items.take(kind))
        await self._flush_flows(now, items.take(FLOWS), last)
        await self._slices.tell(outer, "onendflush", now)
        self._windows += 1
        taken = self._monotonic() - began
        await self.hand_on(replace(window, groups=groups))
        self._judge(taken, window.end - window.start)

    def _of(self, block: str) -> list[Plugin]:
        return [plugin for plugin in self._plugins if plugin.block.name == block]

    def _judge(self, taken: float, budget: float) -> None:
        """Name the script that took the longest when the cycle took longer than its window."""
        if taken <= budget or not self._slices.seconds:
            return
        self._late += 1
        plugin, seconds = max(self._slices.seconds.items(), key=lambda item: item[1])
        share = f"{plugin.label} took {seconds:.3g} s of them, the most of all"
        self._warn(plugin, f"a flush took {taken:.3g} s, its window has {budget:.3g} s: {share}")

    # ---- counters

    async def _flush_counters(self, window: Window) -> tuple[GroupWindow, ...]:
        measured = {group.group.guid: group for group in window.groups}
        monitors: dict[str, list[Plugin]] = {}
        for plugin in self._of("cg_monitor"):
            monitors.setdefault(plugin.group, []).append(plugin)
        for guid, plugins in monitors.items():
            await self._slices.tell(plugins, "onbeginflush", window.end)
            if guid in measured:
                measured[guid] = await self._flush_keys(plugins, window.end, measured[guid])
            await self._slices.tell(plugins, "onendflush", window.end)
            if guid in measured:
                measured[guid] = await self._flush_toppers(plugins, window.end, measured[guid])
        return tuple(measured[group.group.guid] for group in window.groups)

    async def _flush_keys(self, plugins: list[Plugin], now: float, group: GroupWindow) -> GroupWindow:
        if not any(plugin.hooks & {"onflushfilter", "onflush"} for plugin in plugins):
            self._kept += len(group.values)
            return group
        meters = len(group.group.meters)
        kept = await self._slices.keys(plugins, "onflushfilter", "onflush", now, group.values, meters, overrides=True)
        self._kept += len(kept)
        self._rejected += kept.rejected
        return replace(group, values=kept) if kept.rejected or kept.overridden else group

    async def _flush_toppers(self, plugins: list[Plugin], now: float, group: GroupWindow) -> GroupWindow:
        hooks = {"onbegintopperflush", "ontopperflushfilter", "ontopperflush", "onendtopperflush"}
        if not any(plugin.hooks & hooks for plugin in plugins):
            return group
        kept: list[Toppers] = []
        for meter in dict.fromkeys(toppers.meter for toppers in group.toppers):
            enabled = self._begin_toppers(plugins, now, meter)
            flushing = "ontopperflush" if enabled else ""
            same = [toppers for toppers in group.toppers if toppers.meter == meter]
            kept += [await self._flush_topper(plugins, now, toppers, flushing) for toppers in same]
            await self._slices.tell(plugins, "onendtopperflush", now, meter)
        return replace(group, toppers=tuple(kept))

    async def _flush_topper(self, plugins: list[Plugin], now: float, toppers: Toppers, flushing: str) -> Toppers:
        values = {key: (value,) for key, value in toppers.items}
        kept = await self._slices.keys(plugins, "ontopperflushfilter", flushing, now, values, 1)
        return replace(toppers, items=tuple(item for item in toppers.items if item[0] in kept))

    def _begin_toppers(self, plugins: list[Plugin], now: float, meter: int) -> bool:
        """Whether some plugin wants to hear of the toppers of a meter; one without the hook does (spec 2.1)."""
        enabled = False
        for plugin in plugins:
            answer: Any = True
            if "onbegintopperflush" in plugin.hooks and not plugin.closed:
                answer = self._slices.ask(plugin, "onbegintopperflush", now, meter)
                if answer is not FAILED and not isinstance(answer, bool):
                    self._complain(plugin, "onbegintopperflush")
            enabled = enabled or answer is not False
        return enabled

    def _complain(self, plugin: Plugin, hook: str) -> None:
        if (plugin, hook) not in self._complained:
            self._complained.add((plugin, hook))
            self._warn(plugin, f"{plugin.block.name}.{hook} returned no boolean, which counts as true")

    # ---- alerts, resources, documents, flows

    async def _flush_items(self, kind: ItemKind, now: float, items: list[Any]) -> None:
        by_group: dict[str, list[Any]] = {}
        for item in items:
            by_group.setdefault(kind.group(item), []).append(item)
        monitors: dict[str, list[Plugin]] = {}
        for plugin in self._of(kind.block):
            monitors.setdefault(plugin.group, []).append(plugin)
        for group, plugins in monitors.items():
            await self._slices.tell(plugins, "onbeginflush", now)
            await self._send(plugins, kind, now, by_group.pop(group, []))
            await self._slices.tell(plugins, "onendflush", now)
        for rest in by_group.values():  # their monitors are gone
            await self._send((), kind, now, rest)

    async def _flush_flows(self, now: float, flows: list[FlowItem], last: bool) -> None:
        monitors, trackers = self._of(FLOWS.block), self._of("flowtracker")
        await self._slices.tell([*trackers, *monitors], "onbeginflush", now)
        for plugin in trackers:
            if plugin not in self._trackers:
                self._trackers[plugin] = TopFlows(plugin, self._publish)
            metrics = await self._slices.metrics(plugin, FLOWS, now, flows)
            keys = (item.record.id for item in flows)
            self._trackers[plugin].add(zip(keys, metrics, strict=True))
        await self._send(monitors, FLOWS, now, flows)
        await self._slices.tell([*trackers, *monitors], "onendflush", now)
        self._trackers = {plugin: top for plugin, top in self._trackers.items() if plugin in trackers}
        for top in self._trackers.values():
            top.end_window(now, last=last)

    async def _send(self, plugins: Sequence[Plugin], kind: ItemKind, now: float, items: list[Any]) -> None:
        """Have items voted on, and publish those that are kept."""
        sent = 0
        for item in await self._slices.items(plugins, kind, now, items):
            sent += 1
            if isinstance(item, FlowItem):
                if not item.snapshot:
                    self._publish(item.record)
            else:
                self._publish(item)
            if not sent % 256:
                await self._slices.breathe()
        self._kept += sent
        self._rejected += len(items) - sent

    def stats(self, items: HeldItems) -> FlushStats:
        """Counts at this moment."""
        return FlushStats(
            windows=self._windows,
            late=self._late,
            waiting=self._waiting,
            dropped=self._dropped,
            kept=self._kept,
            rejected=self._rejected,
            unvoted=items.unvoted,
        )
