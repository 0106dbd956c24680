"""Installs the Lua side into a state: host functions, modules that scripts require, and T."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

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
"""


class State(Protocol):
    """What is asked of a Lua state here."""

    def add_modules(self, prefix: str, directory: Path) -> None: ...
    def require(self, module: str) -> Any: ...
    def execute(self, source: bytes, *args: Any) -> Any: ...
    def table(self, value: Mapping[Any, Any] | Sequence[Any]) -> Any: ...


Log = Callable[[int, bytes], None]
"""Takes a level of `T.K.loglevel` and a text, from the thread of the state that logs."""


def _install(state: State, log: Log) -> None:
    state.add_modules("offpath", _FOLDER)
    host = state.table({})
    host[b"log"] = log
    for functions in (regex.FUNCTIONS, sqlite.FUNCTIONS, console.FUNCTIONS):
        for name, function in functions.items():
            host[name.encode()] = function
    state.execute(_INSTALL, host, state.table(_SCRIPT_MODULES))


def install_plugin(state: State, settings: Mapping[str, Any], log: Log) -> Any:
    """Make a state a plugin's. Returns the Lua table with the host's end of it (plugin.lua).

    `settings` are those of prelude.lua and `queue_limit`. Call on the state's thread.
    """
    _install(state, log)
    return state.require("offpath.plugin")[b"start"](state.table(settings))


def install_worker(
    state: State,
    settings: Mapping[str, Any],
    log: Log,
    *,
    load_code: Callable[[int], bytes],
    exchange: Callable[..., Any],
    stop_flag: int,
    progress: int,
    directory: str,
    roots: Sequence[str],
) -> Callable[[float], int]:
    """Make a state a worker's. Returns its drain function (worker.lua), to be called on the state's thread.

    `stop_flag` and `progress` are addresses of memory that must outlive the state. At the first is a 32-bit integer: 0,
    or 1 to end the drain run after the task it is at, or n + 1 to end the pack it is at after n tasks. At the second is
    an offpath_progress_t (worker.lua).
    """
    _install(state, log)
    start = state.require("offpath.worker")[b"start"]
    drain: Callable[[float], int] = start(
        state.table(settings), load_code, exchange, stop_flag, progress, directory.encode(), state.table(list(roots))
    )
    return drain
