"""The Lua side: `T`, `engine` and the objects and modules that scripts see, and what installs them into a state.

It knows Lua and plain values; limits and callables come in as arguments.
"""

from lua_api.effects import WIDTH, Effect
from lua_api.install import API_VERSION, install_plugin, install_worker
from lua_api.plain import plain_from_lua, plain_to_lua

__all__ = ["API_VERSION", "WIDTH", "Effect", "install_plugin", "install_worker", "plain_from_lua", "plain_to_lua"]
