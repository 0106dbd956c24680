"""What one plugin causes in others: messages, alerts and resources, handed over after the batch, in order.

Nothing is called from inside a hook: an alert monitor that raises an alert of its own group is served, not re-entered.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from engine.plugins.plugin import FAILED, Plugin
from engine.values.records import Resource
from engine.values.stats import MessageStats
from engine.vm.state import text


class _Delivery(NamedTuple):
    plugin: Plugin
    hook: str
    time: float
    arguments: tuple[Any, ...]


class Deliveries:
    """One queue for all plugins, bounded per plugin. Loop thread only."""

    def __init__(self, limit: int, full: Callable[[Plugin], None]) -> None:
        """`full(plugin)` is told when a delivery to a plugin was dropped."""
        self._limit = limit
        self._full = full
        self._waiting: deque[_Delivery] = deque()
        self._per_plugin: Counter[Plugin] = Counter()
        self._posted = self._delivered = self._dropped = self._failed = 0

    def message(self, plugins: Iterable[Plugin], side: str, addressed: bool, message_id: bytes, message: bytes) -> None:
        """Post a message to every plugin of a side that takes it; the poster too (spec 1.9)."""
        for plugin in plugins:
            if plugin.block.side != side or not plugin.description.receives_messages:
                continue
            subscriptions = plugin.description.subscriptions
            if addressed and subscriptions is not None and text(message_id).upper() not in subscriptions:
                continue
            self._put(_Delivery(plugin, "onmessage", 0.0, (message_id, message)))

    def broadcast(self, plugins: Iterable[Plugin], class_id: str, message_id: bytes, message: bytes) -> None:
        """Post a message to the channel listeners of the scripts with a class (spec 2.19)."""
        for plugin in plugins:
            if "onchannelmessage" in plugin.hooks and plugin.description.identity.class_id == class_id.upper():
                self._put(_Delivery(plugin, "onchannelmessage", 0.0, (message_id, message)))

    def resource(self, plugins: Iterable[Plugin], resource: Resource, raw: tuple[bytes, ...]) -> None:
        """Show a new resource to the monitors of its group. `raw`: flow, uri, contents."""
        flow, uri, contents = raw
        self.monitors(plugins, "onnewresource", resource.group, resource.time, (flow or None, uri, contents))

    def attribute(self, plugins: Iterable[Plugin], poster: Plugin, time: float, raw: tuple[bytes, ...]) -> None:
        """Show an attribute that a script gave to a flow to the other plugins. `raw`: flow, name, value."""
        for plugin in plugins:
            for hook in plugin.hooks & {"onattribute", "onflowattribute"}:
                if plugin is not poster:
                    self._put(_Delivery(plugin, hook, time, raw))

    def tell(self, plugins: Iterable[Plugin], hook: str, time: float, arguments: tuple[Any, ...]) -> None:
        """Call a hook of every plugin that has it."""
        for plugin in plugins:
            if hook in plugin.hooks:
                self._put(_Delivery(plugin, hook, time, arguments))

    def monitors(
        self, plugins: Iterable[Plugin], hook: str, group: str, time: float, arguments: tuple[Any, ...]
    ) -> None:
        """Call a hook of every plugin that has it and is attached to a group."""
        for plugin in plugins:
            if hook in plugin.hooks and plugin.group == group:
                self._put(_Delivery(plugin, hook, time, arguments))

    def _put(self, delivery: _Delivery) -> None:
        self._posted += 1
        if self._per_plugin[delivery.plugin] >= self._limit:
            self._dropped += 1
            self._full(delivery.plugin)
            return
        self._per_plugin[delivery.plugin] += 1
        self._waiting.append(delivery)

    @property
    def pending(self) -> int:
        """Deliveries that wait."""
        return len(self._waiting)

    def deliver_one(self, now: float) -> Plugin:
        """Make the first delivery that waits; the plugin that got it, whose outbox is to be taken."""
        plugin, hook, time, arguments = self._waiting.popleft()
        self._per_plugin[plugin] -= 1
        if not self._per_plugin[plugin]:
            del self._per_plugin[plugin]
        if plugin.closed:
            self._dropped += 1
            return plugin
        if hook == "onmessage":
            ok = plugin.message(now, *arguments)
        else:
            ok = plugin.call(hook, time, 0, *arguments) is not FAILED
        self._delivered += ok
        self._failed += not ok
        return plugin

    def drop_all(self) -> None:
        """Count what waits as dropped."""
        self._dropped += len(self._waiting)
        self._waiting.clear()
        self._per_plugin.clear()

    def stats(self) -> MessageStats:
        """Counts at this moment."""
        return MessageStats(self._posted, self._delivered, self._dropped, self._failed, len(self._waiting))
