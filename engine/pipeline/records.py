"""Where records go: sinks, which get every one, and subscriptions, which are bounded. Loop thread only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Protocol, runtime_checkable

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from engine.values.errors import ConfigError, SinkError
from engine.values.records import RECORD_TYPES, Counter, Record
from engine.values.stats import RecordStats, SinkStats
from engine.values.windows import Window


class Sink(Protocol):
    """Takes every record of an engine. `flush` is awaited between slices of work: a slow sink slows the source.

    `flush` and `close` raise `SinkError` when what was taken can't be stored. The engine tells so once and goes on with
    its other sinks; it raises the error at its end.
    A sink with an attribute `asks_for`, a set of kinds, gets those as well that are made on request only: documents,
    and resources that the platform finds.
    """

    def write(self, record: Record) -> None:
        """Take one record; must not block."""

    async def flush(self) -> None:
        """Bring what was taken to where it belongs."""

    async def close(self) -> None:
        """No record follows."""


@runtime_checkable
class WindowSink(Protocol):
    """What a sink also has when it takes windows. Counters are in them, so it gets no records of kind `counter`."""

    def write_window(self, window: Window) -> None:
        """Take a window, after the records that were made in it; must not block."""


@runtime_checkable
class CountedSink(Protocol):
    """What a sink also has when it counts what becomes of its records."""

    def stats(self) -> SinkStats:
        """Counts at this moment."""


class Subscription:
    """An async iterator of records. It ends when the engine does or when it is closed; a full one loses the newest."""

    def __init__(
        self,
        receive: MemoryObjectReceiveStream[Record],
        send: MemoryObjectSendStream[Record],
        kinds: frozenset[str],
    ) -> None:
        self._receive = receive
        self.send = send
        self.kinds = kinds
        self.dropped = 0
        """Records lost because they were not taken in time."""

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Record:
        try:
            return await self._receive.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._receive.close()
            raise StopAsyncIteration from None

    def receive_nowait(self) -> Record | None:
        """The next record if there is one waiting."""
        try:
            return self._receive.receive_nowait()
        except (anyio.WouldBlock, anyio.EndOfStream, anyio.ClosedResourceError):
            return None

    def __del__(self) -> None:
        self._receive.close()  # one that nobody reads to its end is no fault

    def close(self) -> None:
        """End the subscription; what waits in it is dropped."""
        self.send.close()
        self._receive.close()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class RecordBus:
    """Hands records out."""

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self._sinks = list(sinks)
        self._plain_sinks = [each for each in self._sinks if not isinstance(each, WindowSink)]
        self._subscriptions: list[Subscription] = []
        self._listeners: list[tuple[frozenset[str], Callable[[Record], None]]] = []
        self.kinds = set(RECORD_TYPES) if self._sinks else set[str]()
        """Kinds of which someone takes the records, kept up to date: others need not be made."""
        self._asked = frozenset[str]().union(*(getattr(each, "asks_for", ()) for each in self._sinks))
        self._made = self._delivered = self._dropped = 0
        self._failures: list[SinkError] = []
        self.on_failure: Callable[[SinkError], object] = lambda _error: None
        """Hears of sinks that can't store what they took, while others go on."""

    def subscribe(self, kinds: Iterable[str], limit: int) -> Subscription:
        """A subscription to records of some kinds, or of all. Raises `ConfigError` for an unknown kind."""
        wanted = _known(kinds)
        send, receive = anyio.create_memory_object_stream[Record](limit)
        subscription = Subscription(receive, send, wanted)
        self._subscriptions.append(subscription)
        self.kinds |= wanted
        return subscription

    def listen(self, kinds: Iterable[str], call: Callable[[Record], None]) -> Callable[[], None]:
        """Have `call` called with each record of some kinds, or of all; what is returned ends that.

        Raises `ConfigError` for an unknown kind.
        """
        listener = (_known(kinds), call)
        self._listeners.append(listener)
        self.kinds |= listener[0]

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
                self._forget_kinds()

        return end

    def wants(self, kind: str) -> bool:
        """Whether anyone takes records of a kind."""
        return kind in self.kinds

    def subscribed(self, kind: str) -> bool:
        """Whether a subscription, or a sink that says so, asks for a kind: for what is too much for every sink."""
        asked = (*(each.kinds for each in self._subscriptions), *(kinds for kinds, _ in self._listeners))
        return kind in self._asked or any(kind in each for each in asked)

    def publish(self, record: Record) -> None:
        """Hand a record to all who want it."""
        self._hand(record, self._sinks)

    def _hand(self, record: Record, sinks: Iterable[Sink]) -> None:
        self._made += 1
        for sink in sinks:
            sink.write(record)
        for subscription in tuple(self._subscriptions):
            if record.kind in subscription.kinds:
                self._send(subscription, record)
        for kinds, call in tuple(self._listeners):
            if record.kind in kinds:
                call(record)

    @property
    def wants_counters(self) -> bool:
        """Whether anyone takes counters as records."""
        return bool(self._plain_sinks) or any("counter" in each.kinds for each in self._subscriptions)

    def publish_counter(self, counter: Counter) -> None:
        """Hand a counter to all who want it and don't get it with its window."""
        self._hand(counter, self._plain_sinks)

    @property
    def takes_windows(self) -> bool:
        """Whether some sink takes windows."""
        return any(isinstance(sink, WindowSink) for sink in self._sinks)

    def publish_window(self, window: Window) -> None:
        """Hand a window to the sinks that take windows."""
        for sink in self._sinks:
            if isinstance(sink, WindowSink):
                sink.write_window(window)

    def _send(self, subscription: Subscription, record: Record) -> None:
        try:
            subscription.send.send_nowait(record)
            self._delivered += 1
        except anyio.WouldBlock:
            subscription.dropped += 1
            self._dropped += 1
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._subscriptions.remove(subscription)
            self._forget_kinds()

    def _forget_kinds(self) -> None:
        if not self._sinks:  # the set stays the same: others look into it
            taken = (*(each.kinds for each in self._subscriptions), *(kinds for kinds, _ in self._listeners))
            self.kinds &= frozenset[str]().union(*taken)

    async def flush(self) -> None:
        """Let the sinks bring away what they have. One that fails does not stop the others."""
        for sink in self._sinks:
            try:
                await sink.flush()
            except SinkError as exc:
                self._failures.append(exc)
                self.on_failure(exc)

    async def close(self) -> None:
        """End all subscriptions, after what waits in them, and close the sinks. Raises `SinkError` if one failed."""
        for subscription in self._subscriptions:
            subscription.send.close()
        async with AsyncExitStack() as stack:  # a sink that fails to close must not keep the others open
            for sink in reversed(self._sinks):
                stack.push_async_callback(sink.close)
        if self._failures:
            raise self._failures[0]

    def sink_stats(self) -> tuple[SinkStats, ...]:
        """Counts of the sinks that count."""
        return tuple(sink.stats() for sink in self._sinks if isinstance(sink, CountedSink))

    def stats(self) -> RecordStats:
        """Counts at this moment."""
        return RecordStats(self._made, self._delivered, self._dropped)


def _known(kinds: Iterable[str]) -> frozenset[str]:
    wanted = frozenset(kinds) or frozenset(RECORD_TYPES)
    for kind in sorted(wanted - RECORD_TYPES.keys()):
        raise ConfigError(f"no records of kind {kind!r}, there are {', '.join(sorted(RECORD_TYPES))}")
    return wanted
