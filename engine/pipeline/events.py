"""The door for services: events given to `event_monitor` plugins."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from engine.plugins.plugin import Plugin
from engine.plugins.topics import compile_patterns, matches
from engine.values.stats import EventStats

Event = Mapping[str, Any] | bytes | str
"""What can be emitted: a mapping becomes a Lua table, bytes and text a string."""

_BATCH = 64  # events per crossing into one plugin


class EventDoor:
    """Counts every event in and out, and hands it to the plugins whose topics match.

    Loop thread only, but `post_threadsafe`.
    """

    def __init__(self, limit: int, plugins: Sequence[Plugin], now: Callable[[], float]) -> None:
        """`plugins` is the live list of the engine; `now` gives stream time."""
        self._limit = limit
        self._plugins = plugins
        self._now = now
        self._by_topic: dict[str, list[Plugin]] = {}
        self._lock = threading.Lock()
        self._waiting: deque[tuple[str, Event]] = deque()
        self._received = self._handled = self._dropped = self._failed = 0

    def plugins_changed(self) -> None:
        """Forget which plugins match which topic."""
        self._by_topic.clear()

    def listeners(self, topic: str) -> list[Plugin]:
        """The plugins whose topics match."""
        found = self._by_topic.get(topic)
        if found is None:
            found = [
                plugin
                for plugin in self._plugins
                if "onevent" in plugin.hooks and matches(compile_patterns(plugin.description.topics), topic)
            ]
            if len(self._by_topic) > 10_000:  # topics with ids in them must not fill the memory
                self._by_topic.clear()
            self._by_topic[topic] = found
        return found

    def handle(self, topic: str, events: Sequence[Event]) -> int:
        """Give events to the plugins at once; how many failed in at least one of them.

        Raises `TypeError` naming the field, or `ValueError` for text that is no UTF-8, when an event can't cross into
        Lua; then none of them was handled.
        """
        listeners = self.listeners(topic)
        try:
            name = topic.encode()
            tables = [[plugin.table(_plain(event)) for event in events] for plugin in listeners]
        except (TypeError, ValueError):
            with self._lock:
                self._received += len(events)
                self._failed += len(events)
            raise
        failed: set[int] = set()
        for plugin, crossing in zip(listeners, tables, strict=True):
            for at in range(0, len(events), _BATCH):
                failed.update(at + each for each in plugin.events(self._now(), name, crossing[at : at + _BATCH]))
        with self._lock:
            self._received += len(events)
            self._failed += len(failed)
            self._handled += len(events) - len(failed)
        return len(failed)

    def post(self, topic: str, event: Event) -> bool:
        """Leave an event for later. False, and counted as dropped, when too many wait. From any thread."""
        with self._lock:
            if len(self._waiting) >= self._limit:
                self._received += 1
                self._dropped += 1
                return False
            self._received += 1
            self._waiting.append((topic, event))
        return True

    def handle_one(self) -> list[Plugin]:
        """Handle the first event that waits; the plugins that got it."""
        topic, event = self._waiting.popleft()
        with self._lock:
            self._received -= 1  # `handle` counts it again
        self.handle(topic, [event])
        return self.listeners(topic)

    def drop_all(self) -> None:
        """Count what still waits as dropped."""
        with self._lock:
            self._dropped += len(self._waiting)
            self._waiting.clear()

    @property
    def pending(self) -> int:
        """Events that wait."""
        return len(self._waiting)

    def stats(self) -> EventStats:
        """Counts at this moment."""
        with self._lock:
            return EventStats(self._received, self._handled, self._dropped, self._failed, len(self._waiting))


def _plain(event: Event) -> Any:
    return event.encode() if isinstance(event, str) else event


def as_list(events: Iterable[Event]) -> list[Event]:
    """Events as a list; a single mapping or string given by mistake is refused with the cure."""
    if isinstance(events, Mapping | bytes | str):
        raise TypeError("emit_batch takes several events: use emit for a single one, or put it in a list")
    return list(events)
