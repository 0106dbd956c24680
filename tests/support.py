"""What several test files need: waiting for a condition, counting threads, a plugin's state and a worker's."""

from __future__ import annotations

import asyncio
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from engine.stream.keys import split_keys
from engine.stream.meters import COLUMNS
from engine.values.windows import MeterType
from engine.vm.state import LuaState
from lua_api import WIDTH, Effect, install_plugin

DEADLINE = 20.0
"""Seconds after which a wait is a failure; no test waits that long when all is well."""

WorkerKind = Literal["thread", "process"]
"""What a worker may be (`Config.async_isolation`)."""

SETTINGS: dict[str, Any] = {
    "contextid": 3,
    "probeid": "probe0",
    "probeversion": "7.0",
    "context_name": "default",
    "args": "",
    "side": "frontend",
    "instanceid": "0",
    "homenets": ["10.0.0.0/8"],
    "config": {},
    "configfile": "",
    "domain_configfile": "",
    "queue_limit": 1000,
}


async def eventually(condition: Callable[[], Any], seconds: float = DEADLINE) -> None:
    """Let the loop run until a condition holds; fail at the deadline."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition never came to hold"
        await asyncio.sleep(0.001)


def eventually_in_thread(condition: Callable[[], Any], seconds: float = DEADLINE) -> None:
    """The same where no loop runs."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition never came to hold"
        time.sleep(0.001)


@contextmanager
def no_threads_left() -> Iterator[None]:
    """Fail if threads that were started inside still run some time after the end."""
    before = set(threading.enumerate())
    yield
    eventually_in_thread(lambda: set(threading.enumerate()) <= before, 5.0)


class PluginLua:
    """A plugin's state as plugin.lua makes it, its log lines and the effects it left."""

    def __init__(self, *, state: LuaState | None = None, **settings: Any) -> None:
        self.logged: list[tuple[int, bytes]] = []
        self.state = state or LuaState()
        self.host = install_plugin(self.state, {**SETTINGS, **settings}, lambda *line: self.logged.append(line))

    def load(self, source: str, name: str = "plugin.lua", block: str = "") -> tuple[Any, ...] | None:
        """Run a script and bind a block. None, or message and traceback of what went wrong."""
        wrong: tuple[Any, ...] | None = self.host[b"load"](
            source.encode(), name.encode(), b"/nonexistent", self.state.table([])
        )
        if wrong is None:
            self.host[b"bind"](block.encode(), None, None)
        return wrong

    def onload(self, time: float = 0.0) -> bool | None:
        result: bool | None = self.host[b"onload"](time)
        return result

    def run(self, body: str, *, time: float = 0.0, onto: str = "") -> list[tuple[Effect, tuple[Any, ...]]]:
        """The effects of statements with `engine` in scope, which stand on line 1 of `plugin.lua`."""
        source = "TrisulPlugin = { id = {}, event_monitor = { onevent = function(engine) " + body + "\nend } } " + onto
        assert self.load(source, block="event_monitor") is None
        self.host[b"events"](time, b"topic", b"")
        return self.take()

    def counted(self) -> dict[tuple[str, str, int], list[float]]:
        """Cells of what was counted, by group, key and meter; nothing is held afterwards."""
        self.host[b"leave_counters"]()
        effects = self.take()
        while self.host[b"cross_counters"]():
            effects += self.take()
        effects += self.take()
        found = {}
        for code, values in effects:
            if code is Effect.COUNTERS:
                group, joined, lengths, _, columns = values
                keys, cells, at = split_keys(joined, lengths), array("d", columns), 0
                while at < len(cells):
                    meter, parts = int(cells[at]), COLUMNS[MeterType(int(cells[at + 1]))].parts
                    for number, key in enumerate(keys):
                        cell = cells[at + 2 + number * parts : at + 2 + (number + 1) * parts].tolist()
                        if cell[0] == cell[0]:
                            found[group.decode(), key, meter] = cell
                    at += 2 + len(keys) * parts
        return found

    def take(self) -> list[tuple[Effect, tuple[Any, ...]]]:
        """Empty the outbox: each effect with its values."""
        values = self._values()
        effects, at = [], 0
        while at < len(values):
            code = Effect(values[at])
            end = at + 1 + WIDTH[code]
            effects.append((code, tuple(values[at + 1 : end])))
            at = end
        assert at == len(values)
        return effects

    def _values(self) -> list[Any]:
        """The flat run of values at the end of a batch."""
        values: list[Any] = []
        taken = self.host[b"take"](True)
        while taken is not None:
            values += taken if isinstance(taken, tuple) else (taken,)
            taken = self.host[b"take"](False)
        return values

    def errors(self) -> list[tuple[str, str]]:
        """Hook and message of each error in the outbox, which is emptied."""
        return [(values[0].decode(), values[1].decode()) for code, values in self.take() if code is Effect.ERROR]
