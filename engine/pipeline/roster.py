"""The plugins of an engine: loaded from scripts, given a queue for async work, let go. Loop thread only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from engine.offload import Gate, LaneUser, Outcome, Queue
from engine.offload.process import ProcessWorker
from engine.offload.worker import LuaWorker, WorkerSetup
from engine.pipeline.logs import ScriptLog
from engine.pipeline.world import World
from engine.plugins.blocks import BlockType, Side
from engine.plugins.loader import load_script, read_script
from engine.plugins.plugin import Plugin
from engine.plugins.script import ScriptFile
from engine.stream.groups import Groups, Registered, kind_of, types_of
from engine.values.config import Config
from engine.values.errors import EngineError, ScriptLoadError
from engine.values.windows import CounterGroup, NamedGroup
from lua_api import API_VERSION

_WARN_SECONDS = 1.0  # a hook that is slow at every call is named once in a while, not each time


class Roster:
    """Puts plugins on the engine's list, and takes them off."""

    def __init__(
        self,
        plugins: list[Plugin],
        config: Config,
        gate: Gate,
        log: ScriptLog,
        groups: Groups,
        world: World,
        *,
        now: Callable[[], float],
        take: Callable[[Plugin], None],
        deliver: Callable[[Plugin, list[Outcome]], None],
        fetch: Callable[[Plugin], None],
        settled: Callable[[list[Outcome]], None],
        on_error: Callable[[Plugin, str, str, str], None],
        start_soon: Callable[..., object],
        admit: Callable[[Plugin], None],
        changed: Callable[[], None],
        call: Callable[[bytes, bytes], tuple[bytes, bytes]],
    ) -> None:
        """`take` empties an outbox, `deliver` brings outcomes home, `fetch` those that came by the lane.

        `settled` hears of outcomes whose plugin is gone.
        `admit` hears of each plugin before it is started, and may raise `ScriptLoadError`; `changed`
        when the list is another one; `call` is behind T.host.call.
        """
        self._plugins = plugins
        self._config = config
        self._gate = gate
        self._log = log
        self._groups = groups
        self._world = world
        self._now = now
        self._take = take
        self._deliver = deliver
        self._fetch = fetch
        self._settled = settled
        self._on_error = on_error
        self._start_soon = start_soon
        self._admit = admit
        self._changed = changed
        self._call = call
        self._new_groups: set[str] = set()
        self._by_title: dict[str, ScriptFile] = {}
        self._warned: dict[Plugin, dict[str, float]] = {}

    def _functions(self) -> Mapping[str, Any]:
        return {"call": self._call, **self._world.functions()}

    def load(self, script: str | Path) -> tuple[str, ...]:
        """Load a script and run onload; names of the blocks that run now. Raises `ScriptLoadError`."""
        try:
            return self._start_all(read_script(script))
        finally:
            self._attach_to_new()

    def _start_all(
        self, file: ScriptFile, wanted: Callable[[BlockType, str], bool] = lambda _block, _group: True
    ) -> tuple[str, ...]:
        started = []
        for plugin in self._make(file, wanted):
            if self._start(plugin, file):
                self._plugins.append(plugin)
                started.append(plugin)
        self._changed()
        return tuple(plugin.block.name for plugin in started)

    def _make(self, file: ScriptFile, wanted: Callable[[BlockType, str], bool]) -> tuple[Plugin, ...]:
        log = self._log.writer(file.name)
        register = partial(self._register, file)
        loaded = load_script(file, self._plugin_settings, log, self._groups, register, wanted, self._functions)
        try:
            for plugin in loaded.plugins:
                self._admit(plugin)
        except ScriptLoadError:
            for plugin in loaded.plugins:
                plugin.close()
            raise
        self._by_title.pop(file.path, None)
        if loaded.by_title:
            self._by_title[file.path] = file
        return loaded.plugins

    def reload(self, script: str | Path) -> tuple[str, ...]:
        """Put the backend blocks of a script's new version in place of the old ones, which end after onload of the new.

        Names of the blocks that run now; none when the file is gone. Raises `ScriptLoadError` for a version that does
        not load, or whose onload raises: then the old blocks go on.
        """
        path = Path(script).absolute()
        old = [plugin for plugin in self._plugins if plugin.path == str(path) and plugin.block.side == "backend"]
        if not path.exists():
            self._by_title.pop(str(path), None)
            self._end(old)
            return ()
        file = read_script(path)
        plugins = self._make(file, lambda block, _group: block.side == "backend")
        started = [plugin for plugin in plugins if self._start(plugin, file)]
        if len(started) < len(plugins) and any(plugin.failed for plugin in plugins):
            self._end(started)
            raise ScriptLoadError(file.name, "onload", "it raised; the version before it goes on")
        self._plugins.extend(started)
        self._end(old)
        self._log.write(
            file.name, "INFO", f"reloaded: {', '.join(plugin.block.name for plugin in started) or 'nothing'}"
        )
        return tuple(plugin.block.name for plugin in started)

    def learn_groups(self, groups: Iterable[CounterGroup]) -> None:
        """There are these counter groups, too: monitors that mean them by title are attached."""
        for group in groups:
            if self._groups.register(group) is Registered.NEW:
                self._announce(group)
        self._attach_to_new()

    def _attach_to_new(self) -> None:
        while self._new_groups:
            new, self._new_groups = self._new_groups, set()
            for file in list(self._by_title.values()):
                self._attach(file, new)

    def _attach(self, file: ScriptFile, groups: set[str]) -> None:
        there = {(plugin.block.name, plugin.group) for plugin in self._plugins if plugin.path == file.path}
        self._start_all(file, lambda block, group: group in groups and (block.name, group) not in there)

    def _register(self, file: ScriptFile, group: CounterGroup | NamedGroup) -> None:
        """The first definition of a group holds (spec 9.1 L12); plugins that run hear of a new one."""
        became = self._groups.register(group)
        if became is Registered.OTHER:
            line = f"the group {group.name!r} is ignored: there is another with its GUID {group.guid}"
            self._log.write(file.name, "WARN", line)
        if became is Registered.NEW:
            self._announce(group)

    def _announce(self, group: CounterGroup | NamedGroup) -> None:
        self._new_groups.add(group.guid.upper())
        types = types_of(group) if isinstance(group, CounterGroup) else None
        for plugin in self._plugins:
            plugin.learn_group(f"{kind_of(group)}groups", group.name, group.guid, types)

    def _start(self, plugin: Plugin, file: ScriptFile) -> bool:
        plugin.slow_seconds = self._config.slow_hook_seconds
        plugin.on_slow = self._slow_hook
        plugin.on_error = self._on_error
        self._world.admit(plugin)
        if plugin.block.name == "simulation" and not self._world.simulated:
            self._log.write(plugin.script, "WARN", "its simulation block does nothing here: offpath simulate runs it")
        answer = plugin.onload(self._now())
        plugin.flush_counters()
        plugin.queue = self._make_queue(plugin, file)  # after onload, which may give async_onload its upvalues
        self._take(plugin)
        if answer is True:
            return True
        plugin.failed = answer is None
        reason = "onload raised" if answer is None else "onload returned false"
        self._log.write(plugin.script, "INFO", f"{plugin.block.name or 'the script'} is disabled: {reason}")
        self._detach(plugin)
        return False

    def unload(self, name: str) -> None:
        """Unload all plugins of a script. Raises `EngineError` when there are none."""
        found = [plugin for plugin in self._plugins if plugin.script == name]
        if not found:
            loaded = ", ".join(sorted({plugin.script for plugin in self._plugins})) or "none"
            raise EngineError(f"{name}: is not loaded, there are: {loaded}")
        self._by_title = {path: file for path, file in self._by_title.items() if file.name != name}
        self._end(found)

    def _end(self, plugins: Iterable[Plugin]) -> None:
        """Have plugins unload, and take them off the list."""
        for plugin in plugins:
            plugin.onunload(self._now())
            plugin.flush_counters()
            self._take(plugin)
            if plugin in self._plugins:
                self._plugins.remove(plugin)
            self._detach(plugin)
        self._changed()

    def _detach(self, plugin: Plugin) -> None:
        """Close a plugin's state; its queue goes on until it is empty or the deadline is over."""
        assert plugin.queue is not None
        self._warned.pop(plugin, None)
        plugin.queue.detach(self._settled)
        plugin.close()
        self._start_soon(self._end_queue, plugin.queue)

    async def _end_queue(self, queue: Queue) -> None:
        await self._gate.drain(self._config.drain_seconds, queue=queue)
        await self._gate.close_queue(queue)

    def _make_queue(self, plugin: Plugin, file: ScriptFile) -> Queue:
        settings = self._settings(plugin.block.side)
        options, config = plugin.description.worker_options, self._config
        onload, onunload = plugin.worker_hooks()
        memory_mb = options.memory_mb or config.worker_memory_mb
        is_process = (options.isolation or config.async_isolation) == "process"
        is_limited = bool(memory_mb or options.max_tasks or config.worker_tasks)

        def setup(log: Callable[[int, bytes], None], load_code: Callable[[int], bytes]) -> WorkerSetup:
            return WorkerSetup(
                name=f"offpath-{file.name}",
                settings=settings,
                directory=file.directory,
                roots=tuple(file.roots),
                log=log,
                load_code=load_code,
                onload=onload,
                onunload=onunload,
                strict_timeout=options.strict_timeout,
                max_tasks=options.max_tasks or config.worker_tasks,
                memory_bytes=memory_mb << 20 if memory_mb else None,
            )

        queue = self._world.make_queue(
            self._gate,
            name=plugin.label,
            workers=plugin.description.workers or config.workers or 1,
            setup=setup,
            deliver=lambda outcomes: self._deliver(plugin, outcomes),
            deliver_count=plugin.settle,
            log=self._log.writer(file.name),
            make_worker=ProcessWorker if is_process else LuaWorker,
            on_quick=plugin.note_quick,
            lane_user=None if is_process or is_limited else LaneUser(plugin.use_lane, lambda: self._fetch(plugin)),
            stuck_limit=config.stuck_threads,
            limit=min(options.queue_limit or config.queue_limit, config.queue_limit),
        )
        self._gate.add(queue)
        return queue

    def _settings(self, side: Side) -> Mapping[str, Any]:
        number = next(self._world.ids)
        config = self._config
        return {
            "contextid": number,
            "probeid": "probe0",
            "probeversion": API_VERSION,
            "context_name": "default",
            "args": config.args,
            "side": side,
            "instanceid": "0" if side == "backend" else f"{0x77B0000 + number:07X}",
            "homenets": list(config.homenets),
            "config": dict(config.settings),
            "configfile": "",
            "domain_configfile": "",
            "queue_limit": config.queue_limit,
        }

    def _plugin_settings(self, side: Side) -> Mapping[str, Any]:
        return {**self._settings(side), "meter_types": self._groups.meter_types(), "groups": self._groups.members()}

    def _slow_hook(self, plugin: Plugin, hook: str, seconds: float) -> None:
        if not self.may_warn(plugin, hook):
            return
        name = f"{plugin.block.name}.{hook}" if plugin.block.name else hook
        self._log.write(plugin.script, "WARN", f"{name} held the loop for {seconds * 1000:.1f} ms")

    def may_warn(self, plugin: Plugin, about: str) -> bool:
        """Whether some time has passed since the last warning of a plugin about something."""
        now = self._world.monotonic()
        warned = self._warned.setdefault(plugin, {})
        if now - warned.get(about, -_WARN_SECONDS) < _WARN_SECONDS:
            return False
        warned[about] = now
        return True
