"""The door for services: events given to `event_monitor` plugins."""

from __future__ import annotations

import marshal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from engine.pipeline.crossing import FORMAT, Crossing, Event, Packed, cross, cross_packed, is_plain
from engine.plugins.plugin import Plugin
from engine.plugins.topics import TopicIndex
from engine.values.stats import EventStats

Answer = TypeVar("Answer")


class EventDoor:
    """Counts every event in and out, and hands it to the plugins whose topics match.

    Loop thread only, but `post_threadsafe`.
    """

    def __init__(self, limit: int, plugins: Sequence[Plugin], now: Callable[[], float]) -> None:
        """`plugins` is the live list of the engine; `now` gives stream time."""
        self._limit = limit
        self._plugins = plugins
        self._now = now
        self._by_topic: dict[str, tuple[bytes, list[Plugin]]] = {}
        self._index: TopicIndex[Plugin] | None = None
        self._lock = threading.Lock()
        self._waiting: deque[tuple[str, Event]] = deque()
        self._posted = self._dropped = 0  # by any thread, under the lock
        self._arrived = self._failed = 0  # given to plugins, by the loop's thread

    def plugins_changed(self) -> None:
        """Forget which plugins match which topic."""
        self._by_topic.clear()
        self._index = None

    def _listeners(self, topic: str) -> tuple[bytes, list[Plugin]]:
        """The topic as Lua sees it, and the plugins whose topics match."""
        found = self._by_topic.get(topic)
        if found is None:
            if self._index is None:
                self._index = TopicIndex()
                for plugin in self._plugins:
                    if "onevent" in plugin.hooks:
                        self._index.add(plugin.description.topics, plugin)
            if len(self._by_topic) > 10_000:  # topics with ids in them must not fill the memory
                self._by_topic.clear()
            found = self._by_topic[topic] = topic.encode(), self._index.find(topic)
        return found

    def handle_one(self, topic: str, event: Event) -> Sequence[Plugin]:
        """`handle` for one event, as quickly as it goes: what is neither bytes nor a `dict` takes the other way."""
        crossing: Any = event
        way = "event"
        if type(event) is dict:
            try:
                way, crossing = "event_written", marshal.dumps(crossing, FORMAT)
            except ValueError:
                return self.handle(topic, (event,))
        elif type(event) is not bytes:
            return self.handle(topic, (event,))
        name, listeners = self._by_topic.get(topic) or self._listeners(topic)
        left, failed = [], 0
        for plugin in listeners:
            answer = plugin.event(way, self._now(), name, crossing)
            if answer is True:
                continue
            if answer is None:
                return self.handle(topic, (event,))
            left.append(plugin)
            failed |= answer
        self._arrived += 1
        self._failed += failed
        return left

    def handle(self, topic: str, events: Sequence[Event]) -> Sequence[Plugin]:
        """Give events to the plugins at once; those that may have left something in their outboxes.

        Raises `TypeError` naming the field, or `ValueError` for text that is no UTF-8, when an event can't cross into
        Lua; then none of them was handled.
        """
        try:
            name, listeners = self._listeners(topic)
            if not listeners:
                self._arrived += len(events)
                return ()
            return self._cross(listeners, name, events, cross(events))
        except (TypeError, ValueError):
            self._arrived += len(events)
            self._failed += len(events)
            raise

    def handle_packed(self, topic: str, packed: Packed, at: int, first: int, count: int) -> Sequence[Plugin]:
        """The same for so many of packed events, from the one at a place on, which begins at the byte `first`."""
        name, listeners = self._listeners(topic)
        return self._cross(listeners, name, (), cross_packed(packed, at, count, first))

    def _cross(
        self, listeners: list[Plugin], name: bytes, events: Sequence[Event], crossing: Crossing | None
    ) -> list[Plugin]:
        """Into one plugin after the other. All of them read the same, so the first says for all what can't be read."""
        now = self._now()
        count = crossing.count if crossing is not None else len(events)
        failed: set[int] = set()
        left: list[Plugin] = []
        for plugin in listeners:
            answer = self._give(plugin, now, name, crossing, events) if crossing is not None else None
            if answer is None:
                return self._give_tables(listeners, now, name, events)
            if answer[0]:
                left.append(plugin)
                failed.update(answer[1])
        self._arrived += count
        self._failed += len(failed)
        return left

    def _give(
        self, plugin: Plugin, now: float, topic: bytes, crossing: Crossing, events: Sequence[Event]
    ) -> tuple[bool, Sequence[int]] | None:
        way, count, data = crossing.way, crossing.count, crossing.data
        if way == "events_strings":
            return plugin.events(way, now, topic, count, count, data)
        if way == "events_packed":
            return plugin.events(way, now, topic, count, count, data, crossing.first, crossing.lengths)
        answer = plugin.events(way, now, topic, count, count, data, False)
        if answer is None and is_plain(events if type(events) is list else list(events)):
            return plugin.events(way, now, topic, count, count, data, True)
        return answer

    def _give_tables(
        self, listeners: Sequence[Plugin], now: float, topic: bytes, events: Sequence[Event]
    ) -> list[Plugin]:
        """The slow way, for what is no plain data, but a mapping or a sequence of its own kind."""
        tables = [[plugin.table(_plain(event)) for event in events] for plugin in listeners]
        failed: set[int] = set()
        for plugin, crossing in zip(listeners, tables, strict=True):
            answer = plugin.events("events", now, topic, len(events), *crossing)
            assert answer is not None
            failed.update(answer[1])
        self._arrived += len(events)
        self._failed += len(failed)
        return list(listeners)

    def ask(
        self, topic: str, event: Event, answer: Callable[[Plugin, tuple[Any, Any]], Answer]
    ) -> list[tuple[Plugin, Answer]]:
        """Give an event to the plugins at once, and have `answer` make something of what each says of its answer.

        Raises as `handle` does.
        """
        name, listeners = self._listeners(topic)
        self._arrived += 1
        answers, failed = [], False
        try:
            for plugin in listeners:
                told = _ask(plugin, self._now(), name, event)
                failed = failed or told[0] is False
                answers.append((plugin, answer(plugin, told)))
        except (TypeError, ValueError):
            failed = True
            raise
        finally:
            self._failed += failed
        return answers

    def post(self, topic: str, event: Event) -> bool:
        """Leave an event for later. False, and counted as dropped, when too many wait. From any thread."""
        with self._lock:
            if len(self._waiting) >= self._limit:
                self._posted += 1
                self._dropped += 1
                return False
            self._posted += 1
            self._waiting.append((topic, event))
        return True

    def handle_first(self) -> Sequence[Plugin]:
        """Handle the first event that waits; the plugins whose outboxes may hold something."""
        topic, event = self._waiting.popleft()
        with self._lock:
            self._posted -= 1  # it counts as one that arrived
        return self.handle_one(topic, event)

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
            return EventStats(
                received=self._posted + self._arrived,
                handled=self._arrived - self._failed,
                dropped=self._dropped,
                failed=self._failed,
                pending=len(self._waiting),
            )


def _plain(event: Event) -> Any:
    return event.encode() if isinstance(event, str) else event


def as_list(events: Iterable[Event]) -> list[Event]:
    """Events as a list; a single mapping or string given by mistake is refused with the cure."""
    if isinstance(events, Mapping | bytes | str):
        raise TypeError("emit_batch takes several events: use emit for a single one, or put it in a list")
    return list(events)


def _ask(plugin: Plugin, now: float, topic: bytes, event: Event) -> tuple[Any, Any]:
    """Give an event to a plugin that is asked; what plugin.lua says of its answer.

    Raises `TypeError` or `ValueError` when the event can't cross.
    """
    if isinstance(event, dict):
        try:
            told = plugin.ask("ask_written", now, topic, marshal.dumps(event, FORMAT), is_plain(event))
        except ValueError:
            told = None, None
        if told[0] is not None:
            return told
    plain: Any = event.encode() if isinstance(event, str) else event
    return plugin.ask("ask", now, topic, plugin.table(plain))
