"""Two states between which functions are shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lua_api
from engine.vm.state import LuaState

LUA_API = Path(lua_api.__file__).parent

# A state with what names.lua needs of T. Gives pack(fn) and unpack(code, upvalues).
END = b"""
local new_code, load_code = ...
package.loaded["offpath.host"] = { log = function() end }
T = { util = { twice = function(x) return x * 2 end }, host = {}, env = {}, K = { level = 7 } }
local class = { __index = { name = function(self) return "object " .. self.id end } }
make_object = function(id) return setmetatable({ id = id }, class) end
local ship = require "offpath.ship"
local names = require("offpath.names").build(T, { Thing = class })
return ship.packer(names, new_code), ship.unpacker(names, load_code)
"""


class Pair:
    """A state that sends and one that receives; only bytes and numbers go from one to the other."""

    def __init__(self, *paths: Path) -> None:
        self.codes: dict[int, bytes] = {}
        self.new_codes: list[int] = []
        self.sender, self.receiver = LuaState(), LuaState()
        self._pack = self._end(self.sender, paths)[0]
        self._unpack = self._end(self.receiver, paths)[1]

    def _end(self, state: LuaState, paths: tuple[Path, ...]) -> Any:
        state.add_modules("offpath", LUA_API)
        for path in paths:
            state.execute(b"package.path = ... .. '/?.lua;' .. package.path", str(path).encode())
        return state.execute(END, self._new_code, self.codes.__getitem__)

    def _new_code(self, code: int, bytecode: bytes) -> None:
        assert code not in self.codes
        self.codes[code] = bytecode
        self.new_codes.append(code)

    def ship(self, source: str, *args: Any) -> Any:
        """What a chunk returns, a function, as the receiving state has it."""
        return self._unpack(*self._pack(self.sender.compile(source.encode(), "script.lua")(*args)))

    def call(self, source: str, *args: Any) -> Any:
        return self.ship(source)(*args)

    def close(self) -> None:
        del self._pack, self._unpack
        self.sender.close()
        self.receiver.close()
