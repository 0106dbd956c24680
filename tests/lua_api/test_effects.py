"""The effects of an outbox: both sides know the same codes and widths, and a long run crosses in pieces."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lua_api
from lua_api import WIDTH, Effect
from tests.support import PluginLua

FOLDER = Path(lua_api.__file__).parent

# Where an effect is put: `put(effects.NAME, count, ...`, over one or several lines.
_PUT = re.compile(r"put\(\s*effects\.(\w+), (\d+)")


def test_the_twin_tables_agree(lua: Any) -> None:
    table = lua.run("return require 'offpath.effects'")
    assert {key.decode(): value for key, value in table.items()} == {each.name: each.value for each in Effect}


def test_the_widths_are_those_of_the_documented_values() -> None:
    documented = {}
    for line in (FOLDER / "effects.lua").read_text().splitlines():
        if found := re.match(r"\s*(\w+) = \d+, -- (.+)$", line):
            documented[Effect[found[1]]] = len(found[2].split(","))
    assert documented == WIDTH


def test_every_put_names_its_width() -> None:
    puts = [
        (Effect[name], int(count))
        for source in FOLDER.glob("*.lua")
        for name, count in _PUT.findall(source.read_text())
    ]
    assert {effect for effect, _ in puts} == set(Effect)
    assert [(effect.name, count) for effect, count in puts if WIDTH[effect] != count] == []


NEW_BOX = "local box = require('offpath.outbox').new()\n"


def test_missing_values_become_false(lua: Any) -> None:
    assert lua.run(NEW_BOX + "box.put(7, 4, nil, 'x', nil) return box.take()") == (7, False, b"x", False, False)


@pytest.mark.parametrize("width", range(9))
def test_each_width_puts_that_many(lua: Any, width: int) -> None:
    taken = lua.run(NEW_BOX + "box.put(99, ..., 1, 2, 3, 4, 5, 6, 7, 8) return box.take()", width)
    assert (taken if width else (taken,)) == (99, *range(1, width + 1))


def test_an_empty_box_gives_nothing(lua: Any) -> None:
    assert lua.run(NEW_BOX + "return select('#', box.take())") == 0


@given(st.lists(st.integers(0, 8), max_size=40), st.integers(0, 1500))
def test_everything_put_is_taken_once_and_in_order(shared_lua: Any, widths: list[int], more: int) -> None:
    source = (
        NEW_BOX
        + """
    local widths, more = ...
    local put, next_value = {}, 0
    local function add(width)
      local v = {}
      for at = 1, 8 do v[at] = next_value + at end
      next_value = next_value + 8
      box.put(width, width, unpack(v))
      put[#put + 1] = width
      for at = 1, width do put[#put + 1] = v[at] end
    end
    for width in widths:gmatch("%d") do add(tonumber(width)) end
    for _ = 1, more do add(8) end
    local got, crossings = {}, 0
    while true do
      local piece = { box.take() }
      if #piece == 0 then break end
      crossings = crossings + 1
      for _, value in ipairs(piece) do got[#got + 1] = value end
    end
    return table.concat(got, " ") == table.concat(put, " "), crossings, #put
    """
    )
    same, crossings, total = shared_lua.run(source, "".join(map(str, widths)).encode(), more)
    assert same
    assert crossings == -(-total // 4000)


def test_a_box_is_used_again_after_it_was_emptied(lua: Any) -> None:
    source = NEW_BOX + "box.put(1, 1, 'a') box.take() box.take() box.put(2, 1, 'b') return box.take()"
    assert lua.run(source) == (2, b"b")


def test_a_batch_with_many_effects_arrives_whole() -> None:
    plugin = PluginLua()
    effects = plugin.run("for i = 1, 5000 do engine:tag_flow('06A:k', 'tag' .. i) end")
    assert [values[3] for _, values in effects] == [b"tag%d" % i for i in range(1, 5001)]


@pytest.mark.parametrize(("effects", "pieces"), [(1, [2]), (2000, [4000]), (2001, [4000, 2]), (4000, [4000, 4000])])
def test_a_crossing_takes_four_thousand_values(lua: Any, effects: int, pieces: list[int]) -> None:
    source = (
        NEW_BOX
        + """
    for at = 1, ... do box.put(1, 1, at) end
    local sizes = {}
    repeat sizes[#sizes + 1] = select("#", box.take()) until sizes[#sizes] == 0
    return table.concat(sizes, " ")
    """
    )
    assert lua.run(source, effects).decode() == " ".join(map(str, [*pieces, 0]))
