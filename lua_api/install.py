"""Installs the Lua side into a state: host functions, modules that scripts require, and T."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lua_api import console, regex, sqlite

API_VERSION = "7.0"
"""`T.probeversion`: the release of the script API that is spoken."""

_FOLDER = Path(__file__).parent

_SCRIPT_MODULES = ("JSON", "debugger", "lsqlite3")

_INSTALL = b"""
local host, modules = ...
package.loaded["offpath.host"] = host
for _, name in ipairs(modules) do
  package.preload[name] = function() return require("offpath." .. name) end
end
if host.sim_clock then require("offpath.virtual").start(host) end
"""


class State(Protocol):
    """What is asked of a Lua state here."""

    def add_modules(self, prefix: str, directory: Path) -> None: ...
    def require(self, module: str) -> Any: ...
    def execute(self, source: bytes, *args: Any) -> Any: ...
    def table(self, value: Mapping[Any, Any] | Sequence[Any]) -> Any: ...
    def limit_memory(self, more_bytes: int) -> tuple[Callable[[], None], Callable[[], None]]: ...


Log = Callable[[int, bytes], None]
"""Takes a level of `T.K.loglevel` and a text, from the thread of the state that logs."""


def _nothing_exposed(_name: bytes, _arguments: bytes) -> tuple[bytes, bytes]:
    return b"error", b"the host has exposed no such function"


def _install(state: State, log: Log, more: Mapping[str, Any]) -> None:
    state.add_modules("offpath", _FOLDER)
    host = state.table({})
    host[b"log"] = log
    host[b"call"] = _nothing_exposed
    for functions in (regex.FUNCTIONS, sqlite.FUNCTIONS, console.FUNCTIONS):
        for name, function in functions.items():
            host[name.encode()] = function
    for name, value in more.items():
        host[name.encode()] = value
    state.execute(_INSTALL, host, state.table(_SCRIPT_MODULES))


def install_plugin(
    state: State, settings: Mapping[str, Any], log: Log, functions: Mapping[str, Any] | None = None
) -> Any:
    """Make a state a plugin's. Returns the Lua table with the host's end of it (plugin.lua).

    `settings` are those of prelude.lua and `queue_limit`; `functions` what it gets of the host beyond what all get.
    Call on the state's thread.
    """
    _install(state, log, functions or {})
    return state.require("offpath.plugin")[b"start"](state.table(settings))


class WorkerFunctions(NamedTuple):
    """The host's end of a worker's state, to be called on the state's thread (worker.lua)."""

    drain: Callable[[float], tuple[int, bool]]
    """Runs tasks until there are none, with the seconds that results may be held: how many were run, and whether the
    state is spent: it has run as many as it may or has come to its limit, and there may be more tasks for another."""
    call_hook: Callable[[int, bytes, bool], tuple[bytes, bytes] | None]
    """Calls a function by code id and upvalues, within the memory limit or not: None, or message and traceback."""


def install_worker(
    state: State,
    settings: Mapping[str, Any],
    log: Log,
    *,
    load_code: Callable[[int], bytes],
    exchange: Callable[..., Any],
    stop_flag: int,
    progress: int,
    report: int,
    directory: str,
    roots: Sequence[str],
    strict_timeout: bool = False,
    max_tasks: int | None = None,
    memory_bytes: int | None = None,
    functions: Mapping[str, Any] | None = None,
) -> WorkerFunctions:
    """Make a state a worker's.

    `stop_flag`, `progress` and `report` are addresses of memory that must outlive the state. At the first is a 32-bit
    integer: 0, or 1 to end the drain run after the task it is at, or n + 1 to end the pack it is at after n tasks; a
    state that is spent writes to it, too. At the second is an offpath_progress_t (worker.lua). At the third is a double
    for the bytes that the state uses.

    With `strict_timeout` the state has no compiler, and a task past its time is ended. `memory_bytes` bounds what
    scripts add to the fresh state, which must have been made with a memory limit.
    """
    if strict_timeout:
        state.execute(b"jit.off() jit.flush()")
    _install(state, log, functions or {})
    options: dict[str, Any] = {"strict": strict_timeout, "max_tasks": max_tasks}
    if memory_bytes is not None:
        options["memory_mb"] = -(-memory_bytes >> 20)
        state.require("offpath.limits")[b"start"](*state.limit_memory(memory_bytes))
    start = state.require("offpath.worker")[b"start"]
    drain, call_hook = start(
        state.table(settings),
        load_code,
        exchange,
        stop_flag,
        progress,
        directory.encode(),
        state.table(list(roots)),
        report,
        state.table(options),
    )
    return WorkerFunctions(drain, call_hook)
