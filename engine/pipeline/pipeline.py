"""The parts of an engine, from plugins to sinks: made, told of one another, and counted. Loop thread only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from anyio.abc import TaskGroup

from engine.capture.ramfs import Ramfs
from engine.offload import Gate
from engine.pipeline.analysis import Analysis
from engine.pipeline.completions import Completions
from engine.pipeline.deliveries import Deliveries
from engine.pipeline.effects import Effects
from engine.pipeline.events import EventDoor
from engine.pipeline.exposed import Exposed
from engine.pipeline.flush_slices import Slices
from engine.pipeline.logs import ScriptLog
from engine.pipeline.packets import PacketPath
from engine.pipeline.reader import CaptureReader
from engine.pipeline.records import RecordBus, Sink
from engine.pipeline.requests import Requests
from engine.pipeline.roster import Roster
from engine.pipeline.slowpath import SlowPath
from engine.pipeline.storage import PacketStore
from engine.pipeline.traffic import Traffic
from engine.pipeline.windows import WindowKeeper
from engine.pipeline.work import Work
from engine.pipeline.world import World
from engine.plugins.plugin import Plugin
from engine.stream.counters import Counters
from engine.stream.groups import Groups
from engine.values.clock import Clock
from engine.values.config import Config
from engine.values.errors import EngineClosedError, ScriptError
from engine.values.records import Summary
from engine.values.stats import AsyncStats, EngineStats, PluginStats


class Pipeline:
    """Everything between an event and a record. It runs from `begin` until an `Ending` has stopped it."""

    roster: Roster
    """Loads and unloads plugins; from `begin` on."""

    def __init__(self, config: Config, sinks: Iterable[Sink], world: World) -> None:
        """Nothing is started, and no file is made yet."""
        self.config = config
        self.world = world
        self.clock = Clock(world.wall)
        self.plugins: list[Plugin] = []
        """Those that run, in the order in which they were loaded; many parts hold this list."""
        self.bus = RecordBus(sinks)
        self.log = ScriptLog(self.bus.publish, self.clock.now)
        self.bus.on_failure = lambda error: self.log.write("engine", "ERROR", f"{error}; it gets nothing more")
        self.groups = Groups()
        self.counters = Counters(self.groups, config.window_keys)
        self.deliveries = Deliveries(config.message_limit, self._inbox_full)
        self.door = EventDoor(config.event_limit, self.plugins, self.clock.now)
        self.packets = PacketPath(self.plugins, config.slice_seconds)
        self.store = PacketStore(config, self.plugins, self.log.write)
        self.reader = CaptureReader(config, self.plugins, self.packets, self.store, self._warn_of_source, world)
        slices = Slices(config.slice_seconds, self._take, self._relieve)
        self.slow = SlowPath(config, self.plugins, self.bus, slices, self._warn, self.reader.flows, world.monotonic)
        self.effects = effects = Effects(
            self.bus,
            self.counters,
            self.deliveries,
            self.ramfs,
            self.plugins,
            self._script_error,
            self.reader,
            self.slow,
            config.slice_seconds,
        )
        self.windows = WindowKeeper(
            config, self.counters, self.bus, self.slow, self._gather, self.clock.now, self._failed_window
        )
        self.traffic = Traffic(self.counters, self.plugins, self.slow, lambda: self.reader.measures, self.let_loop_run)
        self.slow.measure = self.traffic.gather
        self.analysis = Analysis(
            config,
            self.bus,
            self.plugins,
            self.ramfs,
            self._warn,
            effects.take_resource,
            effects.take_document,
            self.store,
        )
        effects.give_up = self.analysis.give_up
        seconds, now = world.slice_seconds or config.slice_seconds, self.clock.now
        self.work = Work(effects, self.deliveries, self.door, self.log, now, seconds, self._is_reading, world.monotonic)
        self.completions = Completions(now, self.ramfs, self.work.take, self._script_error, self._failed_operation)
        self.requests = Requests(self.door, now, self.work.take)
        self.exposed = Exposed(now, self.work.take)
        effects.answered, effects.called = self.requests.answered, self.exposed.start
        self.gate: Gate | None = None
        """The way of async tasks; None before `begin`, and when all is over."""
        self.stopping = False
        """Nothing new is taken in any more."""
        self.run_over = asyncio.Event()
        """Set while no source is read."""
        self.run_over.set()
        self.files: Ramfs | None = None
        """The folder of extracted files, once there is one (`ramfs`)."""
        self._group: TaskGroup | None = None
        self._keeps_time = False
        self._slice = config.slice_seconds
        self._yielded = self._began = 0.0
        self._last_tasks = AsyncStats()
        self._last_plugins: tuple[PluginStats, ...] = ()

    def begin(self, group: TaskGroup) -> None:
        """From now on plugins may be loaded, and events taken. All tasks are started in this group."""
        self._group = group
        self.gate = gate = Gate(group.start_soon)
        self.work.begin(gate.loop)
        self.exposed.begin(group.start_soon)
        self.roster = Roster(
            self.plugins,
            self.config,
            gate,
            self.log,
            self.groups,
            self.world,
            now=self.clock.now,
            take=self.effects.take,
            deliver=self.completions.deliver,
            fetch=self.completions.fetch,
            settled=self.completions.let_go,
            on_error=self._script_error,
            start_soon=group.start_soon,
            admit=self.packets.admit,
            changed=self._plugins_changed,
            call=self.exposed.call,
        )
        self._began = self.world.monotonic()
        self.windows.begin(group.start_soon)

    def running(self, action: str) -> Gate:
        """The way of async tasks. Raises `EngineClosedError`, which names the action, when the engine does not run."""
        if self.gate is None or self.stopping:
            raise EngineClosedError(action)
        return self.gate

    def close(self) -> None:
        """No task is left: keep the counts of tasks and plugins, close the states of the plugins, and let them go."""
        if self.gate is not None:
            self._last_tasks = self.gate.stats()
        self._last_plugins = tuple(plugin.stats() for plugin in self.plugins)
        for plugin in self.plugins:
            plugin.close()
        self.plugins.clear()
        self.requests.close()
        self.door.plugins_changed()
        self.gate = None

    def _plugins_changed(self) -> None:
        self.door.plugins_changed()
        self.requests.plugins_changed()
        self.slow.plugins_changed()
        if (
            not self._keeps_time
            and self._group is not None
            and any(each.block.side == "backend" for each in self.plugins)
        ):
            self._keeps_time = True
            self._group.start_soon(self._keep_time)
        self.work.wake()

    async def _keep_time(self) -> None:
        """While no source is read, stream time is the wall's."""
        while True:
            await self.run_over.wait()
            await asyncio.sleep(1 - self.clock.now() % 1)
            if not self.reader.active and not self.stopping:
                await self.slow.follow(self.clock.now())

    # ---- work that hooks caused

    def take_outboxes(self) -> None:
        """What hooks left goes on its way; files that their tasks need are held by these from here on."""
        self.work.take(self.plugins)
        self.analysis.outboxes_taken()

    def call(self, plugin: Plugin, function: Callable[[], object]) -> None:
        """Call into the state of a plugin, and see to what that causes."""
        if not (plugin.closed or self.stopping):
            function()
            self.work.take((plugin,))

    async def settle(self) -> None:
        """Wait until tasks, messages and events that caused one another are done, or nothing settles for too long."""
        while True:
            gate = self.running("go on waiting")
            await self.work.do_some()
            if self.work.pending:
                continue
            if not await gate.settle(patience=self.config.drain_seconds):
                return
            if not (self.work.pending or gate.pending):
                return

    def slice_is_over(self) -> bool:
        """Whether it is time that the loop gets its turn."""
        return time.monotonic() - self._yielded > self._slice

    async def let_loop_run(self) -> None:
        """Give the loop its turn when it had none for a slice of time."""
        if self.slice_is_over():
            await asyncio.sleep(0)
            self._yielded = time.monotonic()

    def _take(self, plugin: Plugin) -> None:
        self.effects.take(plugin)

    async def _relieve(self) -> None:
        """In the middle of a flush: what its hooks caused is handled before it is too much."""
        if self.deliveries.pending:
            await self.work.do_some()
        while self.gate is not None and self.gate.half_full and not self.stopping:
            await self.gate.progress()

    async def _gather(self) -> None:
        """Bring in all that is counted, but for what waits to be."""
        await self.effects.gather_counters()
        await self.effects.flows.end_window(self.let_loop_run)
        await self.traffic.gather()

    def _is_reading(self) -> bool:
        return self.reader.active

    # ---- extracted files

    def ramfs(self) -> Ramfs:
        """The folder of extracted files, made when it is asked for first."""
        if self.files is None:
            self.files = Ramfs(self.config.ramfs, alias=self.world.ramfs_alias)
        return self.files

    def discard_files(self) -> None:
        """Remove all extracted files at once. From any thread."""
        if self.files is not None:
            self.files.close()

    # ---- what is told of faults

    def _failed_operation(self, plugin: Plugin, message: str) -> None:
        self.log.write(plugin.script, "ERROR", message)

    def _script_error(self, plugin: Plugin, hook: str, message: str, traceback: str) -> None:
        plugin.count_error(hook)
        name = f"{plugin.block.name}.{hook}" if plugin.block.name else hook
        self.log.error(ScriptError(plugin.script, name, message, traceback=traceback))

    def _warn(self, plugin: Plugin, line: str) -> None:
        self.log.write(plugin.script, "WARN", line)

    def _warn_of_source(self, source: str, line: str) -> None:
        self.log.write(source, "WARN", line)

    def _inbox_full(self, plugin: Plugin) -> None:
        if self.roster.may_warn(plugin, "messages"):
            place = f"{plugin.block.name}: " if plugin.block.name else ""
            self._warn(plugin, f"{place}too many messages wait, some are dropped")

    def _failed_window(self, message: str) -> None:
        self.log.write("engine", "ERROR", message)

    # ---- counts

    def stats(self) -> EngineStats:
        """Every count, at this moment; when all is over, the final ones."""
        gate = self.gate
        return EngineStats(
            source=self.reader.source_stats(),
            decode=self.reader.decode_stats(),
            **self.analysis.stats()._asdict(),
            events=self.door.stats(),
            calls=self.exposed.stats(),
            messages=self.deliveries.stats(),
            tasks=gate.stats() if gate else self._last_tasks,
            records=self.bus.stats(),
            store=self.store.stats(),
            flush=self.slow.stats(),
            windows=self.windows.stats(),
            sinks=self.bus.sink_stats(),
            flow_updates_dropped=self.effects.flows.dropped,
            alerts=self.effects.alerts,
            resources=self.effects.resources,
            script_errors=self.log.errors,
            plugins=tuple(plugin.stats() for plugin in self.plugins) if gate else self._last_plugins,
        )

    def summary(self) -> Summary:
        """The last record: the counts of the whole life."""
        seconds = self.world.monotonic() - self._began
        return Summary(self.reader.decode_stats().packets, seconds, self.stats().flat())
