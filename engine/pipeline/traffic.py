"""The counter groups that the platform itself fills: who wants them, and when they are counted. Loop thread only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from engine.capture.measures import MEASURED, Measures
from engine.pipeline.slowpath import SlowPath
from engine.plugins.plugin import Plugin
from engine.stream.builtin_groups import COUNTER_GROUPS
from engine.stream.counters import Counters, Run

_SCRIPTS_ONLY = "HostsIPv6 (scripts)"
"""The same hosts under a GUID that scripts use: counted for those alone."""

_GUIDS = {name: guid for name, guid, _ in COUNTER_GROUPS if name in MEASURED}

Breathe = Callable[[], Awaitable[None]]


class Traffic:
    """Brings what decoders counted into the window that is open."""

    def __init__(
        self,
        counters: Counters,
        plugins: Sequence[Plugin],
        slow: SlowPath,
        measures: Callable[[], Measures | None],
        breathe: Breathe,
    ) -> None:
        """`plugins` is the live list of the engine; `measures()` are those of the source that is read."""
        self._counters = counters
        self._plugins = plugins
        self._slow = slow
        self._measures = measures
        self._breathe = breathe

    def begin(self, *, windows: bool) -> tuple[str, ...]:
        """The groups that are wanted of a source: all when somebody takes `windows`, else those that have monitors."""
        for guid in _GUIDS.values():
            self._counters.forget(guid)  # flows of another source are over
        watched = {plugin.group for plugin in self._plugins if plugin.block.name == "cg_monitor" and plugin.hooks}
        return tuple(name for name, guid in _GUIDS.items() if guid in watched or (windows and name != _SCRIPTS_ONLY))

    async def gather(self) -> None:
        """A window, or a second of which monitors want updates, is over: count all there is."""
        await self._take(flows=True)

    async def relieve(self) -> None:
        """Between two batches: count what was summed when there is no room for more of it."""
        measures = self._measures()
        if measures is not None and measures.full:
            await self._take(flows=False)

    async def _take(self, *, flows: bool) -> None:
        measures = self._measures()
        for sums in measures.sums(flows=flows) if measures is not None else ():
            if sums is not None:
                run = Run(_GUIDS[sums.group], *sums[1:], by_script=False)
                self._counters.put(run)
                self._slow.counted(run)
                self._counters.work(0)
            await self._breathe()
