"""One LuaJIT state: build, load a chunk, call, close. The only folder that imports lupa."""

from engine.vm.state import LuaState, to_lua

__all__ = ["LuaState", "to_lua"]
