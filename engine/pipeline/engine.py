"""The engine: what an asyncio program embeds. It owns the plugins, the pipeline and their end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup

from engine.pipeline.crossing import Event, Packed
from engine.pipeline.ending import Ending
from engine.pipeline.events import as_list
from engine.pipeline.in_thread import EngineThread
from engine.pipeline.pipeline import Pipeline
from engine.pipeline.reading import Reading
from engine.pipeline.records import Sink, Subscription
from engine.pipeline.requests import Collect
from engine.pipeline.windows import OnWindow
from engine.pipeline.world import World
from engine.plugins.inputfilter import find_input
from engine.plugins.plugin import Plugin
from engine.values.config import Config
from engine.values.errors import EngineClosedError, EngineError, ScriptLoadError
from engine.values.records import Record
from engine.values.sources import Script, Source
from engine.values.stats import EngineStats
from engine.values.windows import Window
from engine.vm.state import require_luajit

_EMIT_SLICE = 256  # events between two looks at the time


class Engine:
    """Runs Lua plugins inside an asyncio program.

    Use it as an async context manager; everything it starts ends with the block. All methods are for the loop's
    thread, but `emit_threadsafe`. It installs no signal handlers and leaves the loop policy alone.
    """

    def __init__(
        self,
        scripts: Iterable[str | Path] = (),
        *,
        config: Config | None = None,
        sinks: Iterable[Sink] = (),
        world: World | None = None,
    ) -> None:
        """`scripts` are loaded on entry; those that fail are in `load_errors`, and the others run.

        `world` is where time and workers come from, if not from this machine.

        Raises `LuaUnavailableError` when the installed lupa has no LuaJIT 2.1.
        """
        require_luajit()
        self.config = config or Config()
        self.load_errors: tuple[ScriptLoadError, ...] = ()
        self._scripts = tuple(scripts)
        self._pipeline = pipeline = Pipeline(self.config, sinks, world or World())
        self._reading = Reading(pipeline)
        self._door, self._work = pipeline.door, pipeline.work  # an event on its own is not to wait for lookups
        self._group: TaskGroup | None = None

    # ---- lifecycle

    @classmethod
    def in_thread(
        cls,
        scripts: Iterable[str | Path] = (),
        *,
        config: Config | None = None,
        sinks: Iterable[Sink] = (),
        use_uvloop: bool = False,
    ) -> EngineThread:
        """An engine on a thread and a loop of its own: `with Engine.in_thread(["a.lua"]) as engine: ...`.

        Arguments as of `Engine`; `use_uvloop` takes the faster loop. Its methods may be called from any other thread.
        """
        return EngineThread(lambda: cls(scripts, config=config, sinks=sinks), use_uvloop=use_uvloop)

    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise EngineError("an engine can be entered once: make another")
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._pipeline.begin(self._group)
        try:
            await self._load_all()
        except BaseException as exc:
            await self.__aexit__(type(exc), exc, exc.__traceback__)
            raise
        return self

    async def _load_all(self) -> None:
        errors = []
        for path in self._scripts:
            try:
                await self.load(path)
            except ScriptLoadError as exc:
                errors.append(exc)
        self.load_errors = tuple(errors)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._group is not None
        # Leaving by an exception or a cancellation does not wait for queued work.
        seconds = self.config.drain_seconds if exc_type is None else 0.0
        try:
            cancelled = await Ending(self._pipeline).see_through(seconds)
        finally:
            self._group.cancel_scope.cancel()
            await self._group.__aexit__(None, None, None)
        if cancelled is not None:
            raise cancelled

    # ---- plugins

    async def load(self, script: str | Path) -> tuple[str, ...]:
        """Load a script; names of the blocks that run now. Raises `ScriptLoadError`, which is logged, too."""
        self._pipeline.running("load a script")
        try:
            blocks = self._pipeline.roster.load(script)
        except ScriptLoadError as exc:
            self._pipeline.log.error(exc)
            raise
        return blocks

    async def unload(self, script: str | Path) -> None:
        """Unload a script by file name: onunload runs, async work that is queued is done, its results are dropped.

        Raises `EngineError` when no such script is loaded.
        """
        self._pipeline.running("unload a script")
        self._pipeline.roster.unload(Path(script).name)
        await self._pipeline.bus.flush()

    async def reload(self, script: str | Path) -> tuple[str, ...]:
        """Put the backend blocks of a script's new version in place of the old ones; names of those that run now.

        Frontend blocks stay as they are (spec 1.6). A version that fails to load, or whose file is gone, is another
        matter: the first raises `ScriptLoadError`, is logged, and leaves the old blocks running; the second ends them.
        """
        self._pipeline.running("reload a script")
        try:
            blocks = self._pipeline.roster.reload(script)
        except ScriptLoadError as exc:
            self._pipeline.log.error(exc)
            raise
        await self._pipeline.bus.flush()
        return blocks

    # ---- windows

    async def flush(self, window: Window) -> None:
        """Run a flush cycle over a window measured elsewhere, and over what was published since the last one."""
        self._pipeline.running("flush a window")
        self._pipeline.roster.learn_groups(group.group for group in window.groups)
        await self._pipeline.windows.flush(window)

    def on_window(self, call: OnWindow) -> None:
        """Have `call(window)` called with each window after its flush, one after the other, on the loop.

        A coroutine function is awaited. The window is what its flush kept: votes and overrides of scripts are applied.
        What it raises is logged. A source whose time is its own waits for it, as do later windows.
        """
        self._pipeline.windows.on_window(call)

    # ---- events

    async def emit(self, topic: str, event: Event) -> None:
        """Give an event to the plugins whose topics match; they have handled it when this returns.

        A hook that raises is logged and counted. Raises `TypeError` naming a field that Lua can't hold, and
        `ValueError` for text that is no UTF-8.
        """
        pipeline = self._pipeline
        if pipeline.gate is None or pipeline.stopping:
            raise EngineClosedError("emit an event")
        if left := self._door.handle_one(topic, event):
            self._work.take(left)
        if pipeline.slice_is_over():
            await pipeline.let_loop_run()

    async def emit_batch(self, topic: str, events: Iterable[Event] | Packed) -> None:
        """The same for several events of one topic, in one crossing per plugin and 256 events.

        Byte strings and plain mappings (`dict`, `list`, `tuple`, text, bytes, numbers) cross quickest.
        """
        self._pipeline.running("emit an event")
        if isinstance(events, Packed):
            return await self._emit_packed(topic, events)
        batch = as_list(events)
        for at in range(0, len(batch), _EMIT_SLICE):
            self._work.take(self._door.handle(topic, batch[at : at + _EMIT_SLICE]))
            await self._pipeline.let_loop_run()
        return None

    async def _emit_packed(self, topic: str, packed: Packed) -> None:
        first = 0
        for at in range(0, len(packed.lengths), _EMIT_SLICE):
            self._work.take(self._door.handle_packed(topic, packed, at, first, _EMIT_SLICE))
            first += sum(packed.lengths[at : at + _EMIT_SLICE])
            await self._pipeline.let_loop_run()

    async def request(
        self,
        topic: str,
        event: Event,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        collect: Collect = "first",
    ) -> Any:
        """Give an event to the plugins whose topics match, and wait for what their onevent returns.

        With `collect` "first" the first answer that is not nil, in the order in which they come, or None; with "all" a
        list of these in the order of the plugins; with a function of two, all of them reduced by it, or None. A hook
        may return `T.promise()` and resolve it later. An answer is None, a bool, a number, a str, bytes where it is
        no UTF-8, or lists and dicts of these.

        `timeout` is in seconds; past it `TimeoutError` is raised. Raises `RequestError` when an answer that is wanted
        does not come: the hook raised or rejected it, or its plugin was unloaded. `TypeError` and `ValueError` as
        `emit`. Loop thread only.
        """
        self._pipeline.running("make a request")
        return await self._pipeline.requests.ask(topic, event, timeout, collect)

    def expose(self, name: str, function: Callable[..., Any]) -> None:
        """Let scripts call a function as `T.host.call.NAME(...)`, on the loop's thread, in hooks and onresult.

        Arguments and results are plain values, checked by the annotations of the function. What it raises is raised at
        the line of the call. A coroutine function is started on the loop, and ended with the engine; its call gives a
        promise. Functions that are exposed again are replaced. Raises `EngineError` for a name that is none.
        """
        self._pipeline.exposed.expose(name, function)

    def emit_nowait(self, topic: str, event: Event) -> bool:
        """Leave an event to be handled soon. False, and counted as dropped, when `event_limit` of them wait."""
        self._pipeline.running("emit an event")
        taken = self._door.post(topic, event)
        self._work.wake()
        return taken

    def emit_threadsafe(self, topic: str, event: Event) -> bool:
        """`emit_nowait` for any thread."""
        gate = self._pipeline.running("emit an event")
        taken = self._door.post(topic, event)
        if taken:
            gate.call_threadsafe(self._work.wake)
        return taken

    # ---- backpressure

    async def drained(self, below: int = 1) -> None:
        """Wait until fewer than `below` async tasks of all plugins are unfinished.

        For a service that takes work in no faster than it is done. Returns at once when it is so; raises
        `EngineClosedError` when the engine stops first.
        """
        while self._pipeline.running("wait for tasks").pending >= max(below, 1):
            await self._pipeline.running("wait for tasks").progress()

    def on_high_water(self, limit: int, call: Callable[[int], None]) -> None:
        """Have `call(pending)` called on the loop when unfinished async tasks come to `limit`.

        It is called again only after they had fallen to half of that. Raises `ConfigError` when `limit` is below 1.
        """
        self._pipeline.running("set a high-water mark").add_high_water(limit, call)

    # ---- sources

    async def run(self, source: Source) -> None:
        """Read a source (see `engine.sources`) to its end, and wait until the work that it caused has settled.

        The wait ends when nothing settles for `drain_seconds`; what is left goes on. Raises `CaptureError` when the
        source can't be read, or not to its end: then after what was read is settled. `EngineError` when another source
        is being read.
        """
        self._pipeline.running("run a source")
        if isinstance(source, Script) and find_input(source, self._pipeline.plugins) is None:
            await self.load(source.path)
        await self._reading.run(source)

    def end_source(self) -> None:
        """The source that is being read ends here, as if it had no more; `run` sees to what was read and returns."""
        self._pipeline.reader.end()

    async def settled(self) -> None:
        """Wait until tasks, messages and events that caused one another are done.

        The wait ends when nothing settles for `drain_seconds`. Raises `EngineClosedError` when the engine stops first.
        """
        await self._pipeline.settle()

    def call(self, plugin: Plugin, function: Callable[[], object]) -> None:
        """Call into the state of a plugin, and see to what that causes."""
        self._pipeline.call(plugin, function)

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """The plugins that run, in the order in which they were loaded."""
        return tuple(self._pipeline.plugins)

    def discard_files(self) -> None:
        """Remove all extracted files at once, for a process that must end before the block does. From any thread."""
        self._pipeline.discard_files()

    # ---- what comes out

    def subscribe(self, *kinds: str, limit: int | None = None) -> Subscription:
        """A bounded subscription to records of some kinds, or of all. Raises `ConfigError` for an unknown kind."""
        return self._pipeline.bus.subscribe(kinds, limit or self.config.subscription_limit)

    def listen(self, *kinds: str, call: Callable[[Record], None]) -> Callable[[], None]:
        """Have `call(record)` called on the loop with each record of some kinds, as it is made; the result ends that.

        For who keeps no more than the last few: it must be quick and must not raise. Raises `ConfigError` for an
        unknown kind.
        """
        return self._pipeline.bus.listen(kinds, call)

    @property
    def reading(self) -> bool | None:
        """Whether a source is being read, until the work it caused has settled; None when there was none so far."""
        return self._pipeline.reader.active or (False if self._pipeline.reader.used else None)

    @property
    def stats(self) -> EngineStats:
        """Every count, at this moment; after the block, the final ones."""
        return self._pipeline.stats()
