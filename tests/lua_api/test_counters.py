"""Sums of counters in a plugin's state: what compiles, and when they cross."""

from __future__ import annotations

import pytest

from lua_api.effects import Effect
from tests.support import PluginLua

HELD = 1 << 20

WATCH = """
local util, loops = require("jit.util"), 0
local function watch(what, trace)
  if what == "stop" and util.traceinfo(trace).linktype == "loop" then loops = loops + 1 end
end
jit.flush()
jit.attach(watch, "trace")
return function() jit.attach(watch) return loops end
"""


@pytest.mark.parametrize("key", ["'k'", "keys[i % 100 + 1]"])
def test_a_loop_of_updates_is_compiled_as_a_loop(key: str) -> None:
    plugin = PluginLua()
    seen = plugin.state.execute(WATCH)
    keys = "local keys = {} for i = 1, 100 do keys[i] = 'k' .. i engine:update_counter('{G}', keys[i], 0, 1) end "
    plugin.run(f"{keys} for i = 1, 100000 do engine:update_counter('{{G}}', {key}, 0, i) end")
    assert seen() >= 1


def test_more_keys_than_are_held_cross_at_the_end_of_a_batch() -> None:
    plugin = PluginLua()
    count = f"for i = 1, {HELD + 1000} do engine:update_counter('{{G}}', i, 0, 1) end"
    assert Effect.COUNTERS in {code for code, _ in plugin.run(count)}


def test_fewer_cross_when_they_are_asked_for() -> None:
    plugin = PluginLua()
    assert plugin.run("for i = 1, 40000 do engine:update_counter('{G}', i, 0, 1) end") == []
    assert len(plugin.counted()) == 40_000
