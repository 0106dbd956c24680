"""A hardened LuaJIT 2.1 state. It belongs to the thread that made it: nothing of it may be used, or freed, on another.

Strings cross as `bytes` both ways. Lua sees no Python attribute, no `eval`, no builtins, and no `python` module.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.values.errors import LuaMemoryLimitError, LuaUnavailableError, ScriptLoadError, StateClosedError

try:
    from lupa.luajit21 import LuaError, LuaMemoryError, LuaRuntime
except ImportError:  # said by `require_luajit`, where a command can say it in one line
    LuaRuntime = None
    LuaError = LuaMemoryError = RuntimeError

LuaFunction = Callable[..., Any]
"""A Lua function as Python calls it: bytes, int, float, bool and None in and out, several results as a tuple."""

# Runs once in every new state, before anything else. `os.exit` would end the whole process from any thread.
_HARDEN = rb"""
python = nil
package.loaded.python = nil
os.exit = function() error("os.exit is not available: it would end the whole process", 2) end
local loaders = package.loaders
-- What added modules take for globals: those of now, so that a script with a variable `type` does them no harm.
local own = {}
for name, value in pairs(_G) do own[name] = value end
setmetatable(own, { __index = _G, __newindex = _G })

local next, rawget, rawset, collect = next, rawget, rawset, collectgarbage
local first = { [_G] = own, [package.loaded] = {} }
for name, module in pairs(package.loaded) do first[package.loaded][name] = module end

-- Lets go of what a script has put into globals and modules, and runs the finalizers of that.
local function empty()
  for each, before in next, first do
    for key in next, each do rawset(each, key, rawget(before, key)) end
  end
  collect()
end

return empty, function(prefix, directory)
  table.insert(loaders, 2, function(name)
    if name:sub(1, #prefix + 1) ~= prefix .. "." then return nil end
    local tail = name:sub(#prefix + 2)
    local path = directory .. "/" .. tail:gsub("%.", "/") .. ".lua"
    local file = io.open(path, "rb")
    if not file then return "\n\tno file '" .. path .. "'" end
    local source = file:read("*a")
    file:close()
    return setfenv(assert(loadstring(source, "@" .. prefix .. "/" .. tail:gsub("%.", "/") .. ".lua")), own)
  end)
end
"""

_PIPES = (Path(__file__).parent / "pipes.lua").read_bytes()

_EXACT = 2**53  # integers that a double holds

_LOCATION = re.compile(r"^(?P<where>.*?):(?P<line>\d+): ")


def _deny(_object: object, name: object, _setting: bool) -> str:
    raise AttributeError(f"Python attribute {name!r} is not reachable from Lua")


def require_luajit() -> None:
    """Raises `LuaUnavailableError` when the installed lupa has no LuaJIT 2.1."""
    if LuaRuntime is None:
        raise LuaUnavailableError


class LuaState:
    """One LuaJIT state.

    Every method must be called on the thread that made the state; the functions it gives out likewise, and
    they must be dropped there before `close`.
    """

    def __init__(self, *, memory_limit: int | None = None) -> None:
        """`memory_limit` is in bytes; a call that passes it raises `LuaMemoryLimitError` and spends the state.

        0 sets none yet, for `limit_memory`.
        """
        require_luajit()
        self._owner = threading.get_ident()
        self._limited = memory_limit is not None
        self._runtime: Any = LuaRuntime(
            encoding=None,
            register_eval=False,
            register_builtins=False,
            unpack_returned_tuples=True,
            attribute_filter=_deny,
            max_memory=memory_limit,
        )
        self._empty: LuaFunction | None
        self._add_modules: LuaFunction | None
        self._end_pipes: LuaFunction | None = self._runtime.execute(_PIPES)
        self._empty, self._add_modules = self._runtime.execute(_HARDEN)

    def add_modules(self, prefix: str, directory: Path) -> None:
        """Let `require "prefix.a.b"` find `directory/a/b.lua`, before any path of a script."""
        self._check()
        assert self._add_modules is not None
        self._add_modules(prefix.encode(), str(directory).encode())

    def require(self, module: str) -> Any:
        """The value of a Lua module, as `require` returns it."""
        self._check()
        return self._runtime.execute(b"return require(...)", module.encode())

    def compile(self, source: bytes, chunkname: str) -> LuaFunction:
        """Compile a chunk; its name appears in tracebacks. Raises `ScriptLoadError` with the line of a syntax error."""
        self._check()
        loader = self._runtime.execute(b"return function(s, n) return loadstring(s, n) end")
        result = loader(source, b"@" + chunkname.encode())
        if isinstance(result, tuple):
            message = text(result[1])
            raise ScriptLoadError(chunkname, "load", message, line=line_of(message))
        return result  # type: ignore[no-any-return]

    def execute(self, source: bytes, *args: Any) -> Any:
        """Run a chunk of our own and return its results. Its errors come out as they are; scripts go another way."""
        self._check()
        try:
            return self._runtime.execute(source, *args)
        except LuaMemoryError as exc:
            raise LuaMemoryLimitError("the Lua state ran out of its memory limit") from exc

    def memory_used(self) -> int:
        """Bytes allocated by the state."""
        self._check()
        return int(self.execute(b"return collectgarbage('count') * 1024"))

    def limit_memory(self, more_bytes: int) -> tuple[Callable[[], None], Callable[[], None]]:
        """Two functions: one puts a limit in force, so many bytes more than at its first call; one takes it away.

        Of a state that was made with a limit, be it 0. In force, nothing but Lua may allocate in the state: a string
        that Python gives to Lua past the limit makes LuaJIT jump out of Python code that holds the GIL.
        """
        self._check()
        limit = 0

        def put() -> None:
            nonlocal limit
            limit = limit or self._runtime.get_memory_used(total=True) + more_bytes
            self._runtime.set_max_memory(limit, total=True)

        def take_away() -> None:
            self._runtime.set_max_memory(0)

        return put, take_away

    def table(self, value: Mapping[Any, Any] | Sequence[Any]) -> Any:
        """A new Lua table with the contents of a mapping or sequence, deep. See `to_lua` for what may be in it."""
        self._check()
        try:
            return to_lua(self._runtime, value)
        except RecursionError:
            raise TypeError("event is nested too deep, or contains itself") from None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._runtime is None

    def close(self) -> None:
        """Give the state up. Lua frees it when the last function taken from it is dropped. Idempotent."""
        if self._runtime is None:
            return
        self._check()
        assert self._empty is not None
        if self._limited:
            self._runtime.set_max_memory(0)
        # lupa frees a state with the GIL held. A finalizer may wait, for the program at the other end of a pipe.
        assert self._end_pipes is not None
        with suppress(LuaError, LuaMemoryError):
            self._end_pipes()
        with suppress(LuaError, LuaMemoryError):
            self._empty()
        self._end_pipes = self._empty = self._add_modules = None
        self._runtime = None

    def _check(self) -> None:
        if self._runtime is None:
            raise StateClosedError("the Lua state is closed")
        if threading.get_ident() != self._owner:
            raise StateClosedError("a Lua state may only be used on the thread that made it")


def text(value: object) -> str:
    """A Lua string, or whatever stood in its place, as text for people."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def line_of(message: str) -> int:
    """The line that a Lua message starts with (``file.lua:12: ...``), or 0."""
    found = _LOCATION.match(message)
    return int(found["line"]) if found else 0


def to_lua(runtime: Any, value: Any, where: str = "event") -> Any:
    """A Python value as Lua sees it: mapping and sequence become tables, text becomes UTF-8 bytes.

    Integers past 2**53 lose precision, as all numbers are doubles in Lua. Raises `TypeError` naming the field
    for anything that is no plain data.
    """
    if value is None or isinstance(value, bool | int | float | bytes):
        return _double(value, where) if isinstance(value, int) and abs(value) > _EXACT else value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Mapping):
        return runtime.table_from(
            {
                _key(runtime, key, where): to_lua(runtime, item, f"{where}.{key}")
                for key, item in value.items()
                if item is not None
            }
        )
    if isinstance(value, Sequence):
        return runtime.table_from([to_lua(runtime, item, f"{where}[{index}]") for index, item in enumerate(value)])
    raise TypeError(
        f"{where} is a {type(value).__name__}, which Lua cannot hold: give a number, text, bytes, list or mapping"
    )


def _key(runtime: Any, key: Any, where: str) -> Any:
    if key is None or key != key:  # a panic of LuaJIT, which would end the process
        raise TypeError(f"key of {where} is {key!r}, which no Lua table can have")
    return to_lua(runtime, key, f"key of {where}")


def _double(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise TypeError(f"{where} is an integer too large for a Lua number") from None


__all__ = [
    "LuaError",
    "LuaFunction",
    "LuaMemoryError",
    "LuaState",
    "line_of",
    "text",
    "to_lua",
]
