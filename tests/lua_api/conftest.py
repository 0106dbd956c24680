"""A LuaJIT state with the script-facing modules and a host that writes down what it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lua_api
from engine.vm.state import LuaError, LuaState
from lua_api import regex, sqlite

LUA_API = Path(lua_api.__file__).parent

_INSTALL = b"""
local names, functions = ...
local host = {}
for index = 1, #names do host[names[index]] = functions[index] end
package.loaded["offpath.host"] = host
for _, name in ipairs { "JSON", "lsqlite3", "debugger" } do
  package.preload[name] = function() return require("offpath." .. name) end
end
"""

_COLLECT = b"""
local names, functions = {}, {}
return function(name, fn)
  names[#names + 1], functions[#functions + 1] = name, fn
end, names, functions
"""


class Lua:
    """One state, the log lines it wrote, and the lines its console reads."""

    def __init__(self) -> None:
        self.state = LuaState()
        self.state.add_modules("offpath", LUA_API)
        self.logged: list[tuple[int, bytes]] = []
        self.console_lines: list[bytes] | None = None
        """None: no terminal is attached."""
        add, names, functions = self.state.execute(_COLLECT)
        for name, function in self._host_functions().items():
            add(name.encode(), function)
        self.state.execute(_INSTALL, names, functions)

    def _host_functions(self) -> dict[str, Callable[..., Any]]:
        return {
            "log": self._log,
            "console_attached": lambda: self.console_lines is not None,
            "console_read": lambda _prompt: self.console_lines.pop(0) if self.console_lines else None,
            **regex.FUNCTIONS,
            **sqlite.FUNCTIONS,
        }

    def _log(self, level: int, text: bytes) -> None:
        self.logged.append((level, text))

    def run(self, source: str, *args: Any) -> Any:
        """The results of a chunk: a single value as it is, several as a tuple."""
        return self.state.compile(source.encode(), "test.lua")(*args)

    def expression(self, source: str, *args: Any) -> Any:
        """The value of an expression over `...`; modules are reached by `require`."""
        return self.run(f"return {source}", *args)

    def function(self, source: str) -> Callable[..., Any]:
        """What a chunk returns, as a function for many calls."""
        result: Callable[..., Any] = self.run(source)
        return result

    def error(self, source: str, *args: Any) -> str:
        """The message of the Lua error that a chunk must raise, without its traceback."""
        with pytest.raises(LuaError) as caught:
            self.run(source, *args)
        return str(caught.value).split("\nstack traceback:")[0]


@pytest.fixture
def lua() -> Iterator[Lua]:
    lua = Lua()
    yield lua
    lua.state.close()


@pytest.fixture(scope="module")
def shared_lua() -> Iterator[Lua]:
    """One state for the properties of a file, which make many calls."""
    lua = Lua()
    yield lua
    lua.state.close()
