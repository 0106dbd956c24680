"""The engine: what an asyncio program embeds. It owns the plugins, the pipeline and their end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup

from engine.capture.ramfs import Ramfs
from engine.offload import Gate
from engine.pipeline.analysis import Analysis
from engine.pipeline.completions import Completions
from engine.pipeline.crossing import Event, Packed
from engine.pipeline.deliveries import Deliveries
from engine.pipeline.effects import Effects
from engine.pipeline.events import EventDoor, as_list
from engine.pipeline.exposed import Exposed
from engine.pipeline.findings import FOUND_KINDS
from engine.pipeline.flush_slices import Slices
from engine.pipeline.in_thread import EngineThread
from engine.pipeline.logs import ScriptLog
from engine.pipeline.packets import PacketPath
from engine.pipeline.reader import CaptureReader
from engine.pipeline.records import RecordBus, Sink, Subscription
from engine.pipeline.requests import Collect, Requests
from engine.pipeline.roster import Roster
from engine.pipeline.slowpath import SlowPath
from engine.pipeline.storage import PacketStore
from engine.pipeline.traffic import Traffic
from engine.pipeline.windows import OnWindow, WindowKeeper
from engine.pipeline.work import Work
from engine.pipeline.world import World
from engine.plugins.inputfilter import find_input
from engine.plugins.plugin import Plugin
from engine.stream.counters import Counters
from engine.stream.groups import Groups
from engine.values.clock import Clock
from engine.values.config import Config
from engine.values.errors import EngineClosedError, EngineError, ScriptError, ScriptLoadError
from engine.values.records import Record, Summary
from engine.values.sources import Script, Source, has_wall_time
from engine.values.stats import AsyncStats, EngineStats, PluginStats
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
        self._world = world = world or World()
        self._clock = Clock(world.wall)
        self._plugins: list[Plugin] = []
        self._bus = RecordBus(sinks)
        self._log = ScriptLog(self._bus.publish, self._clock.now)
        self._bus.on_failure = lambda error: self._log.write("engine", "ERROR", f"{error}; it gets nothing more")
        self._groups = Groups()
        self._counters = Counters(self._groups, self.config.window_keys)
        self._deliveries = Deliveries(self.config.message_limit, self._inbox_full)
        self._door = EventDoor(self.config.event_limit, self._plugins, self._clock.now)
        self._packets = PacketPath(self._plugins, self.config.slice_seconds)
        self._ramfs_directory: Ramfs | None = None
        self._store = PacketStore(self.config, self._plugins, self._log.write)
        self._reader = CaptureReader(
            self.config, self._plugins, self._packets, self._store, self._warn_of_source, world
        )
        slices = Slices(self.config.slice_seconds, self._take, self._relieve)
        self._slow = SlowPath(
            self.config, self._plugins, self._bus, slices, self._warn, self._reader.flows, world.monotonic
        )
        self._effects = effects = Effects(
            self._bus,
            self._counters,
            self._deliveries,
            self._ramfs,
            self._plugins,
            self._script_error,
            self._reader,
            self._slow,
            self.config.slice_seconds,
        )
        self._windows = WindowKeeper(
            self.config, self._counters, self._bus, self._slow, self._gather, self._clock.now, self._failed_window
        )
        self._traffic = Traffic(
            self._counters, self._plugins, self._slow, lambda: self._reader.measures, self._let_loop_run
        )
        self._slow.measure = self._traffic.gather
        self._analysis = Analysis(
            self.config,
            self._bus,
            self._plugins,
            self._ramfs,
            self._warn,
            effects.take_resource,
            effects.take_document,
            self._store,
        )
        effects.give_up = self._analysis.give_up
        seconds, now = world.slice_seconds or self.config.slice_seconds, self._clock.now
        self._work = Work(
            effects, self._deliveries, self._door, self._log, now, seconds, self._is_reading, world.monotonic
        )
        self._completions = Completions(now, self._ramfs, self._work.take, self._script_error, self._failed_operation)
        self._requests = Requests(self._door, now, self._work.take)
        self._exposed = Exposed(now, self._work.take)
        effects.answered, effects.called = self._requests.answered, self._exposed.start
        self._gate: Gate | None = None
        self._group: TaskGroup | None = None
        self._stopping = self._hurried = False
        self._run_over = asyncio.Event()
        self._run_over.set()
        self._keeps_time = False
        self._yielded = 0.0
        self._tasks = AsyncStats()
        self._final_plugin_stats: tuple[PluginStats, ...] = ()
        self._began = 0.0

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
        self._gate = Gate(self._group.start_soon)
        self._work.begin(self._gate.loop)
        self._exposed.begin(self._group.start_soon)
        self._roster = self._make_roster(self._gate, self._group)
        self._began = self._world.monotonic()
        self._windows.begin(self._group.start_soon)
        try:
            await self._load_all()
        except BaseException as exc:
            await self.__aexit__(type(exc), exc, exc.__traceback__)
            raise
        return self

    def _make_roster(self, gate: Gate, group: TaskGroup) -> Roster:
        return Roster(
            self._plugins,
            self.config,
            gate,
            self._log,
            self._groups,
            self._world,
            now=self._clock.now,
            take=self._effects.take,
            deliver=self._completions.deliver,
            fetch=self._completions.fetch,
            settled=self._completions.let_go,
            on_error=self._script_error,
            start_soon=group.start_soon,
            admit=self._packets.admit,
            changed=self._plugins_changed,
            call=self._exposed.call,
        )

    def _plugins_changed(self) -> None:
        self._door.plugins_changed()
        self._requests.plugins_changed()
        self._slow.plugins_changed()
        if (
            not self._keeps_time
            and self._group is not None
            and any(each.block.side == "backend" for each in self._plugins)
        ):
            self._keeps_time = True
            self._group.start_soon(self._keep_time)
        self._work.wake()

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
        stop = asyncio.ensure_future(self._stop(drain_seconds=self.config.drain_seconds if exc_type is None else 0.0))
        cancelled = await self._see_through(stop)
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
        stop.result()
        if cancelled is not None:
            raise cancelled

    async def _see_through(self, stop: asyncio.Future[None]) -> asyncio.CancelledError | None:
        """Wait until the stop is done, whatever happens. A cancellation ends the wait for work, and is given back."""
        cancelled = None
        with anyio.CancelScope(shield=True):
            while not stop.done():
                try:
                    await asyncio.wait([stop])
                except asyncio.CancelledError as exc:  # asyncio's own, which the shield does not hold off
                    cancelled = exc
                    self._hurried = True
                    if self._gate is not None:
                        self._gate.abandon()
        return cancelled

    async def _stop(self, *, drain_seconds: float) -> None:
        assert self._gate is not None
        gate = self._gate
        if drain_seconds:
            await self._finish_work(drain_seconds)
            if not self._hurried:
                await self._end_windows(drain_seconds)
                await self._finish_work(drain_seconds)
        self._windows.abandon()  # also those that nobody had the time to wait for
        self._windows.release()
        self._stopping = True
        self._work.stop()
        gate.abandon()
        await self._run_over.wait()
        for plugin in self._plugins:
            plugin.onunload(self._clock.now())
            plugin.flush_counters()
            self._effects.take(plugin)
            assert plugin.queue is not None
            plugin.queue.detach(self._completions.let_go)  # a worker may be as quick as to do what onunload asked for
        await self._store.shut()
        await gate.close()  # abandons the rest of that, which comes too late
        self._door.drop_all()
        self._deliveries.drop_all()
        self._tasks = gate.stats()
        self._final_plugin_stats = tuple(plugin.stats() for plugin in self._plugins)
        for plugin in self._plugins:
            plugin.close()
        self._plugins.clear()
        self._requests.close()
        self._door.plugins_changed()
        self.discard_files()
        self._gate = None
        await self._windows.finish()  # what was counted in onunload, and is held still
        self._bus.publish(self._summary())
        await self._bus.close()

    async def _end_windows(self, seconds: float) -> None:
        """Have the last window flushed, and those before it; past so many seconds they are given up."""
        with anyio.move_on_after(seconds):
            await self._windows.finish()
        self._windows.abandon()

    async def _finish_work(self, seconds: float) -> None:
        """Drain events, deliveries and tasks, which cause one another, until all are done or the time is over."""
        assert self._gate is not None
        until = self._world.monotonic() + seconds
        while not self._hurried and self._world.monotonic() < until:
            await self._work.do_some()
            if self._work.pending:
                continue
            if not await self._gate.drain(max(until - self._world.monotonic(), 0.0)):
                return
            if not (self._work.pending or self._gate.pending):
                return

    # ---- plugins

    async def load(self, script: str | Path) -> tuple[str, ...]:
        """Load a script; names of the blocks that run now. Raises `ScriptLoadError`, which is logged, too."""
        self._running("load a script")
        try:
            blocks = self._roster.load(script)
        except ScriptLoadError as exc:
            self._log.error(exc)
            raise
        return blocks

    async def unload(self, script: str | Path) -> None:
        """Unload a script by file name: onunload runs, async work that is queued is done, its results are dropped.

        Raises `EngineError` when no such script is loaded.
        """
        self._running("unload a script")
        self._roster.unload(Path(script).name)
        await self._bus.flush()

    async def reload(self, script: str | Path) -> tuple[str, ...]:
        """Put the backend blocks of a script's new version in place of the old ones; names of those that run now.

        Frontend blocks stay as they are (spec 1.6). A version that fails to load, or whose file is gone, is another
        matter: the first raises `ScriptLoadError`, is logged, and leaves the old blocks running; the second ends them.
        """
        self._running("reload a script")
        try:
            blocks = self._roster.reload(script)
        except ScriptLoadError as exc:
            self._log.error(exc)
            raise
        await self._bus.flush()
        return blocks

    # ---- windows

    async def flush(self, window: Window) -> None:
        """Run a flush cycle over a window measured elsewhere, and over what was published since the last one."""
        self._running("flush a window")
        self._roster.learn_groups(group.group for group in window.groups)
        await self._windows.flush(window)

    def on_window(self, call: OnWindow) -> None:
        """Have `call(window)` called with each window after its flush, one after the other, on the loop.

        A coroutine function is awaited. The window is what its flush kept: votes and overrides of scripts are applied.
        What it raises is logged. A source whose time is its own waits for it, as do later windows.
        """
        self._windows.on_window(call)

    # ---- events

    async def emit(self, topic: str, event: Event) -> None:
        """Give an event to the plugins whose topics match; they have handled it when this returns.

        A hook that raises is logged and counted. Raises `TypeError` naming a field that Lua can't hold, and
        `ValueError` for text that is no UTF-8.
        """
        if self._gate is None or self._stopping:
            raise EngineClosedError("emit an event")
        if left := self._door.handle_one(topic, event):
            self._work.take(left)
        if time.monotonic() - self._yielded > self.config.slice_seconds:
            await self._let_loop_run()

    async def emit_batch(self, topic: str, events: Iterable[Event] | Packed) -> None:
        """The same for several events of one topic, in one crossing per plugin and 256 events.

        Byte strings and plain mappings (`dict`, `list`, `tuple`, text, bytes, numbers) cross quickest.
        """
        self._running("emit an event")
        if isinstance(events, Packed):
            return await self._emit_packed(topic, events)
        batch = as_list(events)
        for at in range(0, len(batch), _EMIT_SLICE):
            self._work.take(self._door.handle(topic, batch[at : at + _EMIT_SLICE]))
            await self._let_loop_run()
        return None

    async def _emit_packed(self, topic: str, packed: Packed) -> None:
        first = 0
        for at in range(0, len(packed.lengths), _EMIT_SLICE):
            self._work.take(self._door.handle_packed(topic, packed, at, first, _EMIT_SLICE))
            first += sum(packed.lengths[at : at + _EMIT_SLICE])
            await self._let_loop_run()

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
        self._running("make a request")
        return await self._requests.ask(topic, event, timeout, collect)

    def expose(self, name: str, function: Callable[..., Any]) -> None:
        """Let scripts call a function as `T.host.call.NAME(...)`, on the loop's thread, in hooks and onresult.

        Arguments and results are plain values, checked by the annotations of the function. What it raises is raised at
        the line of the call. A coroutine function is started on the loop, and ended with the engine; its call gives a
        promise. Functions that are exposed again are replaced. Raises `EngineError` for a name that is none.
        """
        self._exposed.expose(name, function)

    def emit_nowait(self, topic: str, event: Event) -> bool:
        """Leave an event to be handled soon. False, and counted as dropped, when `event_limit` of them wait."""
        self._running("emit an event")
        taken = self._door.post(topic, event)
        self._work.wake()
        return taken

    def emit_threadsafe(self, topic: str, event: Event) -> bool:
        """`emit_nowait` for any thread."""
        gate = self._gate
        if gate is None or self._stopping:
            raise EngineClosedError("emit an event")
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
        while self._running("wait for tasks").pending >= max(below, 1):
            await self._running("wait for tasks").progress()

    def on_high_water(self, limit: int, call: Callable[[int], None]) -> None:
        """Have `call(pending)` called on the loop when unfinished async tasks come to `limit`.

        It is called again only after they had fallen to half of that. Raises `ConfigError` when `limit` is below 1.
        """
        self._running("set a high-water mark").add_high_water(limit, call)

    # ---- sources

    async def run(self, source: Source) -> None:
        """Read a source (see `engine.sources`) to its end, and wait until the work that it caused has settled.

        The wait ends when nothing settles for `drain_seconds`; what is left goes on. Raises `CaptureError` when the
        source can't be read, or not to its end: then after what was read is settled. `EngineError` when another source
        is being read.
        """
        self._running("run a source")
        if isinstance(source, Script) and find_input(source, self._plugins) is None:
            await self.load(source.path)
        reader = self._reader
        reader.begin(source, self._analysis.begin, lambda: self._traffic.begin(windows=self._windows.wanted))
        try:
            await self._windows.finish()
            self._effects.flows.begin()
            self._slow.begin()
            self._run_over.clear()
            self._windows.follow_wall(has_wall_time(source))
            flows_over, turn = self._effects.flows.end, self._windows.turn
            await reader.read(self._clock.follow, self._breathe, flows_over, turn, self._run_on)
            await self._effects.flows.flush(reader.flows(), self._breathe)
            await self._settle()
            await self._windows.finish()
            await self._settle()
            await self._bus.flush()
            if reader.failure is not None:
                raise reader.failure
        finally:
            reader.close_source()
            self._take_batch()
            self._clock.release()
            self._windows.follow_wall(True)
            self._slow.begin()
            self._run_over.set()
            self._work.wake()

    def end_source(self) -> None:
        """The source that is being read ends here, as if it had no more; `run` sees to what was read and returns."""
        self._reader.end()

    def _take_batch(self) -> None:
        self._work.take(self._plugins)
        self._analysis.outboxes_taken()

    async def settled(self) -> None:
        """Wait until tasks, messages and events that caused one another are done.

        The wait ends when nothing settles for `drain_seconds`. Raises `EngineClosedError` when the engine stops first.
        """
        await self._settle()

    async def _settle(self) -> None:
        """Wait until tasks, messages and events that caused one another are done."""
        while True:
            gate = self._running("go on waiting")
            await self._work.do_some()
            if self._work.pending:
                continue
            if not await gate.settle(patience=self.config.drain_seconds):
                return
            if not (self._work.pending or gate.pending):
                return

    async def _breathe(self) -> None:
        """Between two batches of a source: effects, deliveries, sinks, and the loop's turn.

        How much is done here depends on counts, not on time, so that records come in the same order at every run. The
        source waits while some plugin's queue is half full or async work holds too many files, so that reading fast
        neither loses tasks nor fills the memory.
        """
        self._take_batch()
        await self._traffic.relieve()
        if self._reader.shows_flows and self._slow.is_due(now := self._clock.now()):
            await self._slow.follow(now)
        await self._work.do_some()
        await self._bus.flush()
        await self._let_loop_run()
        gate = self._running("go on reading")
        while gate.half_full or self._holds_too_much(gate):
            await gate.progress()
            await self._work.do_some()
            gate = self._running("go on reading")

    def _run_on(self) -> tuple[float, bool]:
        """How far the next batch may go: to a second that a hook hears of, and past flows that nobody asks about.

        What plugins caused goes out when the batch ends, what the platform found at once: where both make records, or
        two plugins do, these are in the order of seconds.
        """
        plugins = sum(bool(plugin.hooks) for plugin in self._plugins)
        if plugins + any(self._bus.wants(kind) for kind in FOUND_KINDS) > 1:
            return -math.inf, False
        return self._slow.wanted_at(), not self._effects.flows.wanted

    def _holds_too_much(self, gate: Gate) -> bool:
        ramfs = self._ramfs_directory
        return ramfs is not None and gate.pending > 0 and ramfs.held_bytes > self.config.ramfs_bytes

    # ---- work that hooks caused

    def _take(self, plugin: Plugin) -> None:
        self._effects.take(plugin)

    async def _relieve(self) -> None:
        """In the middle of a flush: what its hooks caused is handled before it is too much."""
        if self._deliveries.pending:
            await self._work.do_some()
        while self._gate is not None and self._gate.half_full and not self._stopping:
            await self._gate.progress()

    async def _keep_time(self) -> None:
        """While no source is read, stream time is the wall's."""
        while True:
            await self._run_over.wait()
            await asyncio.sleep(1 - self._clock.now() % 1)
            if not self._reader.active and not self._stopping:
                await self._slow.follow(self._clock.now())

    def _is_reading(self) -> bool:
        return self._reader.active

    def _failed_operation(self, plugin: Plugin, message: str) -> None:
        self._log.write(plugin.script, "ERROR", message)

    def _script_error(self, plugin: Plugin, hook: str, message: str, traceback: str) -> None:
        plugin.count_error(hook)
        name = f"{plugin.block.name}.{hook}" if plugin.block.name else hook
        self._log.error(ScriptError(plugin.script, name, message, traceback=traceback))

    def _warn(self, plugin: Plugin, line: str) -> None:
        self._log.write(plugin.script, "WARN", line)

    def _warn_of_source(self, source: str, line: str) -> None:
        self._log.write(source, "WARN", line)

    def _inbox_full(self, plugin: Plugin) -> None:
        if self._roster.may_warn(plugin, "messages"):
            place = f"{plugin.block.name}: " if plugin.block.name else ""
            self._warn(plugin, f"{place}too many messages wait, some are dropped")

    def call(self, plugin: Plugin, function: Callable[[], object]) -> None:
        """Call into the state of a plugin, and see to what that causes."""
        if not (plugin.closed or self._stopping):
            function()
            self._work.take((plugin,))

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """The plugins that run, in the order in which they were loaded."""
        return tuple(self._plugins)

    def discard_files(self) -> None:
        """Remove all extracted files at once, for a process that must end before the block does. From any thread."""
        if self._ramfs_directory is not None:
            self._ramfs_directory.close()

    # ---- what comes out

    def subscribe(self, *kinds: str, limit: int | None = None) -> Subscription:
        """A bounded subscription to records of some kinds, or of all. Raises `ConfigError` for an unknown kind."""
        return self._bus.subscribe(kinds, limit or self.config.subscription_limit)

    def listen(self, *kinds: str, call: Callable[[Record], None]) -> Callable[[], None]:
        """Have `call(record)` called on the loop with each record of some kinds, as it is made; the result ends that.

        For who keeps no more than the last few: it must be quick and must not raise. Raises `ConfigError` for an
        unknown kind.
        """
        return self._bus.listen(kinds, call)

    @property
    def reading(self) -> bool | None:
        """Whether a source is being read, until the work it caused has settled; None when there was none so far."""
        return self._reader.active or (False if self._reader.used else None)

    @property
    def stats(self) -> EngineStats:
        """Every count, at this moment; after the block, the final ones."""
        gate = self._gate
        return EngineStats(
            source=self._reader.source_stats(),
            decode=self._reader.decode_stats(),
            **self._analysis.stats()._asdict(),
            events=self._door.stats(),
            calls=self._exposed.stats(),
            messages=self._deliveries.stats(),
            tasks=gate.stats() if gate else self._tasks,
            records=self._bus.stats(),
            store=self._store.stats(),
            flush=self._slow.stats(),
            windows=self._windows.stats(),
            sinks=self._bus.sink_stats(),
            flow_updates_dropped=self._effects.flows.dropped,
            alerts=self._effects.alerts,
            resources=self._effects.resources,
            script_errors=self._log.errors,
            plugins=tuple(plugin.stats() for plugin in self._plugins) if gate else self._final_plugin_stats,
        )

    async def _gather(self) -> None:
        """Bring in all that is counted, but for what waits to be."""
        await self._effects.gather_counters()
        await self._effects.flows.end_window(self._let_loop_run)
        await self._traffic.gather()

    async def _let_loop_run(self) -> None:
        if time.monotonic() - self._yielded > self.config.slice_seconds:
            await asyncio.sleep(0)
            self._yielded = time.monotonic()

    def _failed_window(self, message: str) -> None:
        self._log.write("engine", "ERROR", message)

    def _summary(self) -> Summary:
        return Summary(self._reader.decode_stats().packets, self._world.monotonic() - self._began, self.stats.flat())

    def _ramfs(self) -> Ramfs:
        if self._ramfs_directory is None:
            self._ramfs_directory = Ramfs(self.config.ramfs, alias=self._world.ramfs_alias)
        return self._ramfs_directory

    def _running(self, action: str) -> Gate:
        if self._gate is None or self._stopping:
            raise EngineClosedError(action)
        return self._gate
