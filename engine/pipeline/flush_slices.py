"""Hooks of a flush in slices: some hundred keys in a crossing to Lua, turns of the loop between. Loop thread only."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

from engine.pipeline.held import ItemKind
from engine.pipeline.kept import Kept, Values
from engine.plugins.plugin import Plugin

_KEYS = 256  # for a crossing
_ITEMS = 200  # the same; 13 fields each, and Lua takes less than 8000 values
_CALL_SECONDS = 0.001
"""How long Lua may go on before it gives back what is left of a batch."""


class Slices:
    """Calls hooks, gives the loop its turn, and knows which plugin took how long."""

    def __init__(
        self, slice_seconds: float, take: Callable[[Plugin], None], relieve: Callable[[], Awaitable[None]]
    ) -> None:
        """`take` empties an outbox; `relieve` is awaited when the loop has its turn.

        It waits while too much is queued.
        """
        self._slice = slice_seconds / 2  # a task whose timer is due gets its turn after two of them
        self._take = take
        self._relieve = relieve
        self._began = time.perf_counter()
        self.seconds: dict[Plugin, float] = {}
        """By plugin, since `begin`."""

    def begin(self) -> None:
        """A cycle begins."""
        self.seconds = {}
        self._began = time.perf_counter()

    async def breathe(self) -> None:
        """Give the loop its turn when it is time."""
        if time.perf_counter() - self._began > self._slice:
            await asyncio.sleep(0)
            await self._relieve()
            self._began = time.perf_counter()

    async def tell(self, plugins: Iterable[Plugin], hook: str, now: float, *args: Any) -> None:
        """Call a plain hook in all plugins that have it."""
        for plugin in plugins:
            if hook in plugin.hooks and not plugin.closed:
                self._measured(plugin, lambda plugin=plugin: plugin.call(hook, now, 0, *args))  # type: ignore[misc]
                await self.breathe()

    def ask(self, plugin: Plugin, hook: str, now: float, *args: Any) -> Any:
        """Call a plain hook; what it returned (`Plugin.call`)."""
        return self._measured(plugin, lambda: plugin.call(hook, now, 0, *args))

    def _measured(self, plugin: Plugin, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        try:
            result = call()
            self._take(plugin)
            return result
        finally:
            self.seconds[plugin] = self.seconds.get(plugin, 0.0) + time.perf_counter() - began

    # ---- keys

    async def keys(
        self,
        plugins: Sequence[Plugin],
        filtering: str,
        flushing: str,
        now: float,
        values: Mapping[str, Values],
        meters: int,
        *,
        overrides: bool = False,
    ) -> Kept:
        """Have the plugins of a group vote on keys, and call their hook for those that are kept (spec 2.1).

        A lone plugin sees the hooks of a key one after the other; with several, votes on some hundred keys are taken
        first. "" stands for no filter.
        """
        kept = Kept(values)
        items = iter(values.items())
        while batch := list(islice(items, _KEYS)):
            pack = _KeyPack(batch, meters)
            await self._vote_and_flush(
                plugins, filtering, flushing, pack.votes, partial(self._run_keys, pack, now, overrides)
            )
            for (key, _), vote in zip(batch, pack.votes, strict=True) if 0 in pack.votes else ():
                if not vote:
                    kept.reject(key)
            if overrides and 1 in pack.changes:
                pack.note_overrides(kept)
            await self.breathe()
        return kept

    async def _vote_and_flush(
        self,
        plugins: Sequence[Plugin],
        filtering: str,
        flushing: str,
        votes: array[int],
        run: Callable[[Plugin, str, str], Awaitable[None]],
    ) -> None:
        plugins = [plugin for plugin in plugins if not plugin.closed]
        voters = [plugin for plugin in plugins if filtering in plugin.hooks]
        if len(voters) < len(plugins) or not voters:  # who has no filter says yes
            votes[:] = array("B", b"\1" * len(votes))
        elif len(plugins) == 1:
            await run(plugins[0], filtering, flushing if flushing in plugins[0].hooks else "")
            return
        for plugin in voters:
            await run(plugin, filtering, "")
        for plugin in plugins:
            if flushing in plugin.hooks:
                await run(plugin, "", flushing)

    async def _run_keys(
        self, pack: _KeyPack, now: float, overrides: bool, plugin: Plugin, filtering: str, flushing: str
    ) -> None:
        at, count = 0, len(pack.votes)
        while at < count and not plugin.closed:
            changes = pack.changes.buffer_info()[0] if overrides else 0
            memory = (pack.lengths.buffer_info()[0], pack.values.buffer_info()[0], pack.votes.buffer_info()[0], changes)
            args = (now, _CALL_SECONDS, pack.keys, *memory, at, count, pack.meters)
            result = self._measured(
                plugin,
                lambda args=args: plugin.flush("flush_keys", filtering, flushing, *args),  # type: ignore[misc]
            )
            if result is None:
                pack.votes[at:] = array("B", b"\1" * (count - at))
                return
            at = int(result[2])
            await self.breathe()

    # ---- items

    async def items(self, plugins: Sequence[Plugin], kind: ItemKind, now: float, items: Sequence[Any]) -> Iterator[Any]:
        """The same for alerts, resources, documents or flows: those that are kept, as hooks left them."""
        kept: list[list[Any]] = []
        for start in range(0, len(items), _ITEMS):
            batch = list(items[start : start + _ITEMS])
            votes = array("B", bytes(len(batch)))
            await self._vote_and_flush(
                plugins,
                "flushfilter",
                "onflush",
                votes,
                partial(self._run_items, kind, batch, votes, now),
            )
            kept.append([item for item, vote in zip(batch, votes, strict=True) if vote])
            await self.breathe()
        return chain.from_iterable(kept)

    async def _run_items(
        self,
        kind: ItemKind,
        batch: list[Any],
        votes: array[int],
        now: float,
        plugin: Plugin,
        filtering: str,
        flushing: str,
    ) -> None:
        at, count = 0, len(batch)
        while at < count and not plugin.closed:
            fields = chain.from_iterable(map(kind.fields, batch[at:]))
            args = (now, _CALL_SECONDS, votes.buffer_info()[0] + at, count - at, *fields)
            result = self._measured(
                plugin,
                lambda args=args: plugin.flush("flush_items", filtering, flushing, *args),  # type: ignore[misc]
            )
            if result is None:
                votes[at:] = array("B", b"\1" * (count - at))
                return
            for place, changes in _changes(result[3:]).items():
                batch[at + place] = kind.change(batch[at + place], changes)
            at += int(result[2])
            await self.breathe()

    async def metrics(self, plugin: Plugin, kind: ItemKind, now: float, items: Sequence[Any]) -> list[float]:
        """What getmetric of a flow tracker says of each flow; 0 where it broke off."""
        found: list[float] = []
        while len(found) < len(items) and not plugin.closed:
            batch = items[len(found) : len(found) + _ITEMS]
            fields = tuple(chain.from_iterable(map(kind.fields, batch)))
            some = self._measured(
                plugin,
                lambda batch=batch, fields=fields: plugin.flow_metrics(now, _CALL_SECONDS, len(batch), *fields),  # type: ignore[misc]
            )
            found += some if some is not None else [0.0] * len(batch)
            await self.breathe()
        return found + [0.0] * (len(items) - len(found))


class _KeyPack:
    """Keys with their values in the form in which they cross."""

    def __init__(self, batch: Sequence[tuple[str, Values]], meters: int) -> None:
        self.batch, self.meters = batch, meters
        names = "".join([key for key, _ in batch])
        if names.isascii():
            self.keys = names.encode()
            self.lengths = array("I", [len(key) for key, _ in batch])
        else:
            raw = [key.encode("utf-8", "backslashreplace") for key, _ in batch]
            self.keys, self.lengths = b"".join(raw), array("I", map(len, raw))
        self.values = array("d", chain.from_iterable([values for _, values in batch]))
        if len(self.values) != meters * len(batch):
            rows = ((*values, *[0.0] * meters)[:meters] for _, values in batch)
            self.values = array("d", chain.from_iterable(rows))
        self.votes = array("B", bytes(len(batch)))
        self.changes = array("B", bytes(len(batch)))

    def note_overrides(self, kept: Kept) -> None:
        """Put the values in place that hooks gave to keys that are kept."""
        for at, (key, _) in enumerate(self.batch):
            if self.changes[at] and self.votes[at]:
                kept.override(key, self.values[at * self.meters : (at + 1) * self.meters])


def _changes(flat: Sequence[Any]) -> dict[int, dict[str, Any]]:
    """What hooks changed, by place: from a flat run of places, names and values."""
    changes: dict[int, dict[str, Any]] = {}
    for place, name, value in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
        changes.setdefault(int(place), {})[name.decode()] = value
    return changes
