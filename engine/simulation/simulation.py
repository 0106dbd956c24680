"""`Simulation`: an engine with its scripts in virtual time, from a seed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import anyio.to_thread

from engine.pipeline.engine import Engine
from engine.pipeline.records import Sink
from engine.plugins.plugin import Plugin
from engine.simulation.conditions import Conditions
from engine.simulation.invariants import broken_invariants
from engine.simulation.latency import Latency
from engine.simulation.loop import VirtualLoop
from engine.simulation.network import Network
from engine.simulation.sinks import inline
from engine.simulation.world import SimulatedWorld
from engine.values.config import Config
from engine.values.errors import ConfigError, EngineError
from engine.values.sources import Script
from engine.values.stats import EngineStats

EPOCH = 1_700_000_000.0
"""What the clock on the wall says at the beginning: 2023-11-14 22:13:20 UTC."""

_MOMENT = 0.001  # seconds


@dataclass(frozen=True, slots=True)
class Result:
    """How a simulation ended."""

    seed: int
    seconds: float
    """Virtual time that went by."""
    stats: EngineStats
    failures: tuple[str, ...]
    """What checks of scripts said, and what of the engine's counts does not add up."""
    dropped: int = 0
    """Events that got lost on the way because a script wanted it."""

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures


class Simulation:
    """Runs scripts in virtual time. The same seed and scripts give the same records, byte for byte."""

    def __init__(
        self,
        scripts: Iterable[str | Path],
        *,
        seed: int = 1,
        until: float | None = None,
        config: Config | None = None,
        sinks: Iterable[Sink] = (),
        async_latency: Latency | str | None = None,
        epoch: float = EPOCH,
        prints: bool = True,
    ) -> None:
        """`until` is in virtual seconds; None ends the simulation when nothing is left that scripts planned.

        `async_latency` is how long async work takes, workers' and the disk's; exponential with a mean of a millisecond
        if it is not given. Sinks that write files do so at once, in the thread that runs the simulation. `config` says
        the rest; its times are virtual, and those of slices have no meaning. Without `prints`, what scripts print is
        not shown. Raises `ConfigError`.
        """
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ConfigError(f"seed must be a whole number from 0, not {seed!r}")
        if until is not None and not 0 <= until < math.inf:
            raise ConfigError(f"until must be a number of seconds, not {until!r}")
        self._scripts = tuple(scripts)
        self._seed = seed
        self._until = until
        self._slice_seconds = (config or Config()).slice_seconds
        # How long something took on this machine must not decide anything: no slice ends, no hook is slow.
        self._config = replace(config or Config(), slice_seconds=math.inf, slow_hook_seconds=math.inf)
        self._sinks = tuple(map(inline, sinks))
        self._latency = Latency.parse(async_latency) if isinstance(async_latency, str) else async_latency
        self._epoch = epoch
        self._prints = prints
        self._entered = False

    def run(self) -> Result:
        """Run it to its end, in this thread, which may not have a running loop. Once.

        Raises `ScriptLoadError` when a script does not load, and `EngineError` when no time goes by any more.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise EngineError("a loop runs in this thread, and a simulation has its own: await run_async() instead")
        if self._entered:
            raise EngineError("a simulation can be run once: make another")
        self._entered = True
        loop = VirtualLoop(self._epoch)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(self._conduct(loop))

    async def run_async(self) -> Result:
        """The same in a thread of its own, for a program whose loop is asyncio's or uvloop's."""
        return await anyio.to_thread.run_sync(self.run)

    async def _conduct(self, loop: VirtualLoop) -> Result:
        limiter = anyio.to_thread.current_default_thread_limiter()
        loop.has_threads = lambda: limiter.borrowed_tokens > 0
        conditions = Conditions()
        if self._latency is not None:
            conditions.workers.latency = conditions.disk.latency = self._latency
        world = SimulatedWorld(loop, self._seed, conditions, self._slice_seconds, self._prints)
        engine = Engine(self._scripts, config=self._config, sinks=self._sinks, world=world.world())
        world.engine = engine
        async with engine:
            if engine.load_errors:
                raise engine.load_errors[0]
            _tell(engine, "onbegin", loop)
            await self._play(engine, loop, world)
            _tell(engine, "onend", loop)
            await engine.settled()
        failures = (*world.failures, *broken_invariants(engine.stats))
        return Result(self._seed, loop.time(), engine.stats, failures, world.dropped)

    async def _play(self, engine: Engine, loop: VirtualLoop, world: SimulatedWorld) -> None:
        """Until it is time, or nothing is left."""
        async with anyio.create_task_group() as group:
            for plugin in _inputs(engine.plugins):
                group.start_soon(engine.run, Script(plugin.path))
                world.network.refused = f"{plugin.script} has an inputfilter, and one source at a time is read"
            network = anyio.CancelScope()
            group.start_soon(_carry, engine, world.network, network)
            if self._until is None:
                await _exhaust(engine, loop, world.network)
            else:
                await anyio.sleep(self._until - loop.time())
                engine.end_source()
            world.network.refused = "the simulation is over"
            world.network.feed.end()
            if not world.network.used.is_set():
                network.cancel()
        if self._until is None:
            await _exhaust(engine, loop, world.network)
        world.is_over = True
        await engine.settled()


async def _carry(engine: Engine, network: Network, scope: anyio.CancelScope) -> None:
    """Read what comes over the network, from when something does."""
    with scope:
        await network.used.wait()
    if network.used.is_set():
        await engine.run(network.feed)


async def _exhaust(engine: Engine, loop: VirtualLoop, network: Network) -> None:
    """Until nothing is left that scripts planned, or that came of it."""
    while True:
        await loop.quiet()
        await engine.settled()
        while network.feed.pending and not network.feed.ended:  # noqa: ASYNC110 - virtual seconds: workers get on
            await anyio.sleep(_MOMENT)
        if loop.is_over:
            return


def _inputs(plugins: Sequence[Plugin]) -> list[Plugin]:
    found = [plugin for plugin in plugins if plugin.block.name == "inputfilter" and plugin.hooks]
    if len(found) > 1:
        raise EngineError(f"one source at a time: {len(found)} scripts have an inputfilter")
    return found


def _tell(engine: Engine, hook: str, loop: VirtualLoop) -> None:
    for plugin in engine.plugins:
        if hook in plugin.hooks:
            engine.call(plugin, lambda plugin=plugin: plugin.call(hook, loop.wall(), 0, loop.time()))  # type: ignore[misc]
