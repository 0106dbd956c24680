"""The host's end of T.sim (lua_api/sim.lua), and the world that an engine of a simulation lives in."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from engine.pipeline.engine import Engine
from engine.pipeline.world import World
from engine.plugins.plugin import Plugin
from engine.simulation.conditions import Conditions
from engine.simulation.loop import VirtualLoop
from engine.simulation.network import Network
from engine.simulation.queue import SimulatedQueue, Surroundings
from engine.values.errors import ConfigError, EngineError
from engine.vm.state import LuaError, text

_DEPTH = 32  # of tables in an event
_FAILURES = 100  # that are kept with their words


class SimulatedWorld:
    """What scripts ask of the world, and what it does to them. In the thread of the loop only."""

    def __init__(
        self, loop: VirtualLoop, seed: int, conditions: Conditions, slice_seconds: float, prints: bool
    ) -> None:
        self._failures: list[str] = []
        self._more_failures = 0
        self.dropped = 0
        """Events that were lost on the way, as a script wanted it."""
        self.engine: Engine | None = None
        """Set before any script is loaded."""
        self.network = Network(loop, seed)
        """What scripts send over it comes to the engine."""
        self.is_over = False
        """Nothing that scripts planned happens any more."""
        self._loop = loop
        self._prints = prints
        self._slice_seconds = slice_seconds
        self._seed = seed
        self._conditions = conditions
        self._losses = random.Random(f"{seed}/losses")
        self._surroundings = Surroundings(loop, conditions, str(seed), self._for_worker)
        self._states = itertools.count(1)
        self._plugins: dict[int, Plugin] = {}
        self._holding: Plugin | None = None

    @property
    def failures(self) -> tuple[str, ...]:
        """What checks of scripts said, the first of them in full."""
        more = (f"{self._more_failures:,} more checks failed",) if self._more_failures else ()
        return (*self._failures, *more)

    def world(self) -> World:
        """What the engine takes from it."""
        return World(
            wall=self._loop.wall,
            monotonic=self._loop.time,
            slice_seconds=self._slice_seconds,
            make_queue=partial(SimulatedQueue, self._surroundings),
            functions=self._for_plugin,
            admit=self._admit,
            ids=itertools.count(1),
            simulated=True,
            ramfs_alias="ramfs",
        )

    # ---- states

    def _common(self, name: str, seed: str) -> dict[str, Any]:
        return {
            "sim_clock": self._loop.clock_address,
            "sim_seed": f"{self._seed}/{seed}".encode(),
            "sim_run": str(self._seed).encode(),
            "sim_check": partial(self._check, name),
            "sim_prints": int(self._prints),
        }

    def _for_worker(self, name: str) -> Mapping[str, Any]:
        return {**self._common(name, name), "sim_spend": self._spend_on_worker}

    def _for_plugin(self) -> Mapping[str, Any]:
        number = next(self._states)
        return {
            **self._common("", f"state {number}"),
            "sim_state": number,
            "sim_check": lambda message: self._check(self._label(number), message),
            "sim_spend": lambda seconds: self._spend(number, seconds),
            "sim_at": lambda time, fire: self._plan(number, time, fire),
            "sim_emit": self._emit,
            "sim_send": self._send,
            "sim_fault": self._fault,
            "sim_pending": self._pending,
            "sim_counts": lambda: self._table(number, self._counts()),
        }

    def _admit(self, plugin: Plugin) -> None:
        self._plugins[int(plugin.host.functions["sim_state"])] = plugin

    def _label(self, state: int) -> str:
        return self._plugins[state].label if state in self._plugins else "a script"

    # ---- what scripts ask for; what is wrong comes back as text

    def _check(self, name: str, message: bytes) -> None:
        if len(self._failures) == _FAILURES:
            self._more_failures += 1
        else:
            self._failures.append(f"{self._loop.time():.6f}: {name}: {text(message)}")

    def _spend(self, state: int, seconds: float) -> bytes | None:
        before, self._holding = self._holding, self._plugins.get(state)
        try:
            self._loop.hold(seconds)
        except EngineError as exc:
            return f"T.sim.spend: {exc}".encode()
        finally:
            self._holding = before
        return None

    def _spend_on_worker(self, seconds: float) -> None:
        self._surroundings.spent += seconds

    def _plan(self, state: int, time: float, fire: Callable[[float], object]) -> bytes | None:
        if state not in self._plugins:
            return b"T.sim.at, after and every are for hooks, not for the chunk of a script"
        self._loop.at(time, lambda: self._fire(self._plugins[state], fire))
        return None

    def _fire(self, plugin: Plugin, fire: Callable[[float], object]) -> None:
        if self.is_over or plugin.closed or self.engine is None:
            return
        call = partial(self._guarded, plugin, fire)
        if plugin is self._holding:
            call()  # its outbox is taken when the hook is over that spends its time
        else:
            self.engine.call(plugin, call)

    def _guarded(self, plugin: Plugin, fire: Callable[[float], object]) -> None:
        try:
            fire(self._loop.wall())
        except LuaError as exc:  # past the script's own error boundary
            plugin.on_error(plugin, "T.sim", str(exc), "")

    def _emit(self, topic: bytes, event: Any) -> tuple[bool, bytes | None]:
        assert self.engine is not None
        if self._losses.random() < self._conditions.dropping:
            self.dropped += 1
            return False, None
        try:
            return self.engine.emit_nowait(topic.decode(), _plain(event)), None
        except (EngineError, TypeError, ValueError) as exc:
            return False, f"T.sim.emit: {exc}".encode()

    def _send(self, kind: bytes, given: Any) -> bytes | None:
        try:
            self.network.send(kind.decode(), _plain(given))
        except (ConfigError, TypeError) as exc:
            return str(exc).encode()
        return None

    def _fault(self, what: bytes, latency: bytes | None, slow: float | None, share: float | None) -> bytes | None:
        try:
            if what == b"clock":
                self._jump(math.inf if slow is None else slow)
            elif what == b"drop":
                if share is None or not 0 <= share <= 1:
                    raise ConfigError(f"a share must be from 0 to 1, not {share!r}")
                self._conditions.dropping = share
            else:
                performer = self._conditions.workers if what == b"workers" else self._conditions.disk
                performer.change(None if latency is None else text(latency), slow, share)
        except ConfigError as exc:
            return f"T.sim.{text(what).replace('clock', 'jump_clock')}: {exc}".encode()
        return None

    def _jump(self, seconds: float) -> None:
        if not (math.isfinite(seconds) and 0 <= self._loop.wall() + seconds < 2**33):
            raise ConfigError(f"the clock can't go by {seconds!r} seconds")
        self._loop.jump_wall(seconds)

    def _pending(self) -> int:
        assert self.engine is not None
        return sum(plugin.queue.pending for plugin in self.engine.plugins if plugin.queue is not None)

    def _counts(self) -> dict[str, int]:
        assert self.engine is not None
        network = {"sim_packets": self.network.packets, "sim_segments_lost": self.network.lost}
        return {**self.engine.stats.flat(), "sim_dropped": self.dropped, **network}

    def _table(self, state: int, values: Mapping[str, Any]) -> Any:
        return self._plugins[state].table(values)


def _plain(value: Any, depth: int = 0) -> Any:
    """What an event of one state is to another."""
    if value is None or isinstance(value, bool | int | float | bytes):
        return value
    if not hasattr(value, "items") or depth == _DEPTH:
        raise TypeError("an event is made of numbers, texts, booleans and tables of these")
    return {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
