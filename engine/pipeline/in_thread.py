"""An engine on a thread and a loop of its own: for programs without asyncio, and for those whose loop is precious.

All methods may be called from any thread but the engine's own, and block until the engine has done what they ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from engine.pipeline.crossing import Event, Packed
from engine.pipeline.records import Subscription
from engine.pipeline.requests import Collect
from engine.values.errors import EngineClosedError, ScriptLoadError
from engine.values.records import Record
from engine.values.sources import Source
from engine.values.stats import EngineStats

if TYPE_CHECKING:
    from engine.pipeline.engine import Engine

_AT_ONCE = 256  # records that a subscription fetches in one crossing of threads


class EngineThread:
    """What `Engine.in_thread` gives: a context manager. It can be entered once."""

    def __init__(self, make: Callable[[], Engine], *, use_uvloop: bool) -> None:
        """`make` makes the engine, on its thread."""
        self._make = make
        self._use_uvloop = use_uvloop
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._engine: Engine | None = None

    def __enter__(self) -> Self:
        """Start the thread, the loop and the engine. Raises what the engine raises."""
        options = {"use_uvloop": self._use_uvloop}
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("asyncio", backend_options=options))
            engine = portal.call(self._make)
            stack.enter_context(portal.wrap_async_context_manager(engine))
            self._stack = stack.pop_all()
        self._portal, self._engine = portal, engine
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the engine as `async with` does, and end its thread."""
        self._portal = None
        self._stack.__exit__(exc_type, exc, traceback)

    def _ask(self, what: str, call: Callable[..., Any], *args: Any) -> Any:
        if self._portal is None:
            raise EngineClosedError(what)
        return self._portal.call(call, *args)

    def _entered(self) -> Engine:
        if self._engine is None:
            raise EngineClosedError("use it")
        return self._engine

    # ---- events

    def emit(self, topic: str, event: Event) -> None:
        """Handle an event; raises as `Engine.emit`."""
        self._ask("emit an event", self._entered().emit, topic, event)

    def emit_batch(self, topic: str, events: Iterable[Event] | Packed) -> None:
        """The same for several; as `Engine.emit_batch`."""
        self._ask("emit events", self._entered().emit_batch, topic, events)

    def emit_nowait(self, topic: str, event: Event) -> bool:
        """Leave an event to be handled soon, without waiting. False, and counted as dropped, when too many wait."""
        return self._entered().emit_threadsafe(topic, event)

    def request(self, topic: str, event: Event, *, timeout: float | None = None, collect: Collect = "first") -> Any:
        """What handlers answer; as `Engine.request`, with `timeout` in seconds."""
        engine = self._entered()

        async def ask() -> Any:
            return await engine.request(topic, event, timeout=timeout, collect=collect)

        return self._ask("make a request", ask)

    def subscribe(self, *kinds: str, limit: int | None = None) -> Iterator[Record]:
        """Records of some kinds, or of all, from now on. The iterator blocks, and ends with the engine.

        As `Engine.subscribe`: when `limit` records wait, the newest are dropped, and counted.
        """
        engine = self._entered()
        found: Subscription = self._ask("subscribe", lambda: engine.subscribe(*kinds, limit=limit))
        assert self._portal is not None
        return _records(self._portal, found)

    # ---- the rest of an engine

    def run(self, source: Source) -> None:
        """Read a source to its end; raises as `Engine.run`."""
        self._ask("run a source", self._entered().run, source)

    def expose(self, name: str, function: Callable[..., Any]) -> None:
        """Let scripts call a function, on the engine's thread; as `Engine.expose`."""
        self._ask("expose a function", self._entered().expose, name, function)

    def load(self, script: str | Path) -> tuple[str, ...]:
        """Load a script; raises as `Engine.load`."""
        blocks: tuple[str, ...] = self._ask("load a script", self._entered().load, script)
        return blocks

    def unload(self, script: str | Path) -> None:
        """Unload a script; raises as `Engine.unload`."""
        self._ask("unload a script", self._entered().unload, script)

    @property
    def load_errors(self) -> tuple[ScriptLoadError, ...]:
        """Scripts that did not load."""
        return tuple(self._entered().load_errors)

    @property
    def stats(self) -> EngineStats:
        """Counts at this moment; the last ones when the engine has ended."""
        engine = self._entered()
        if self._portal is None:
            return engine.stats
        found: EngineStats = self._ask("count", lambda: engine.stats)
        return found


def _records(portal: BlockingPortal, subscription: Subscription) -> Iterator[Record]:
    try:
        while records := _fetch(portal, subscription):
            yield from records
    finally:
        try:
            portal.call(subscription.close)
        except RuntimeError:
            subscription.close()


def _fetch(portal: BlockingPortal, subscription: Subscription) -> list[Record]:
    try:
        found: list[Record] = portal.call(_some, subscription)
    except RuntimeError:  # the thread has ended: what is left is nobody else's any more
        last = subscription.receive_nowait()
        return [last] if last is not None else []
    return found


async def _some(subscription: Subscription) -> list[Record]:
    """The next records, one at least; none at the end."""
    try:
        records = [await anext(subscription)]
    except StopAsyncIteration:
        return []
    while len(records) < _AT_ONCE and (record := subscription.receive_nowait()) is not None:
        records.append(record)
    return records
