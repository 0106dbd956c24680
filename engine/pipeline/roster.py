"""The plugins of an engine: loaded from scripts, given a queue for async work, let go. Loop thread only."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.offload import Gate, LaneUser, Outcome, TaskQueue
from engine.offload.process import ProcessWorker
from engine.offload.worker import LuaWorker, WorkerSetup
from engine.pipeline.logs import ScriptLog
from engine.plugins.blocks import Side
from engine.plugins.loader import load_plugins, read_script
from engine.plugins.plugin import Plugin, ScriptFile
from engine.stream.groups import Groups, Registered, kind_of, types_of
from engine.values.config import Config
from engine.values.errors import EngineError, ScriptLoadError
from engine.values.windows import CounterGroup, NamedGroup
from lua_api import API_VERSION

_ids = itertools.count(1)  # `T.contextid`: unique in the process, as states of several engines may share files

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
        *,
        now: Callable[[], float],
        take: Callable[[Plugin], None],
        deliver: Callable[[Plugin, list[Outcome]], None],
        fetch: Callable[[Plugin], None],
        settled: Callable[[list[Outcome]], None],
        on_error: Callable[[Plugin, str, str, str], None],
        start_soon: Callable[..., object],
        admit: Callable[[Plugin], None],
    ) -> None:
        """`take` empties an outbox, `deliver` brings outcomes home, `fetch` those that came by the lane.

        `settled` hears of outcomes whose plugin is gone.
        `admit` hears of each plugin before it is started, and may raise `ScriptLoadError`.
        """
        self._plugins = plugins
        self._config = config
        self._gate = gate
        self._log = log
        self._groups = groups
        self._now = now
        self._take = take
        self._deliver = deliver
        self._fetch = fetch
        self._settled = settled
        self._on_error = on_error
        self._start_soon = start_soon
        self._admit = admit
        self._warned: dict[Plugin, dict[str, float]] = {}

    def load(self, script: str | Path) -> tuple[str, ...]:
        """Load a script and run onload; names of the blocks that run now. Raises `ScriptLoadError`."""
        file = read_script(script)
        plugins = load_plugins(
            file, self._plugin_settings, self._log.writer(file.name), lambda group: self._register(file, group)
        )
        try:
            for plugin in plugins:
                self._admit(plugin)
        except ScriptLoadError:
            for plugin in plugins:
                plugin.close()
            raise
        started = [plugin for plugin in plugins if self._start(plugin, file)]
        return tuple(plugin.block.name for plugin in started)

    def _register(self, file: ScriptFile, group: CounterGroup | NamedGroup) -> None:
        """The first definition of a group holds (spec 9.1 L12); plugins that run hear of a new one."""
        became = self._groups.register(group)
        if became is Registered.OTHER:
            line = f"the group {group.name!r} is ignored: there is another with its GUID {group.guid}"
            self._log.write(file.name, "WARN", line)
        if became is not Registered.NEW:
            return
        types = types_of(group) if isinstance(group, CounterGroup) else None
        for plugin in self._plugins:
            plugin.learn_group(f"{kind_of(group)}groups", group.name, group.guid, types)

    def _start(self, plugin: Plugin, file: ScriptFile) -> bool:
        plugin.slow_seconds = self._config.slow_hook_seconds
        plugin.on_slow = self._slow_hook
        plugin.on_error = self._on_error
        answer = plugin.onload(self._now())
        plugin.flush_counters()
        plugin.queue = self._make_queue(plugin, file)  # after onload, which may give async_onload its upvalues
        self._take(plugin)
        if answer is True:
            self._plugins.append(plugin)
            return True
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
        for plugin in found:
            plugin.onunload(self._now())
            plugin.flush_counters()
            self._take(plugin)
            self._plugins.remove(plugin)
            self._detach(plugin)

    def _detach(self, plugin: Plugin) -> None:
        """Close a plugin's state; its queue goes on until it is empty or the deadline is over."""
        assert plugin.queue is not None
        self._warned.pop(plugin, None)
        plugin.queue.detach(self._settled)
        plugin.close()
        self._start_soon(self._end_queue, plugin.queue)

    async def _end_queue(self, queue: TaskQueue) -> None:
        await self._gate.drain(self._config.drain_seconds, queue=queue)
        await self._gate.close_queue(queue)

    def _make_queue(self, plugin: Plugin, file: ScriptFile) -> TaskQueue:
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

        queue = TaskQueue(
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
        number = next(_ids)
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
        now = time.monotonic()
        warned = self._warned.setdefault(plugin, {})
        if now - warned.get(about, -_WARN_SECONDS) < _WARN_SECONDS:
            return False
        warned[about] = now
        return True
