"""How often the collector runs in a plugin's state, by what the state holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Engine
from tests.scripts import Collector, on_event, write

BODY = """
  if event == "hold" then held = {} for at = 1, 20 do held[at] = ("x"):rep(1000000) .. at end end
  if event == "drop" then held = nil end
  if event == "set" then collectgarbage("setpause", 150) end
  collectgarbage() collectgarbage()
  local pause = collectgarbage("setpause", 0)
  collectgarbage("setpause", pause)
  T.loginfo(pause)
"""


@pytest.mark.parametrize(
    ("events", "pauses"),
    [
        pytest.param(["look"], ["400"], id="small"),
        pytest.param(["hold", "look"], ["200", "200"], id="large"),
        pytest.param(["hold", "drop"], ["200", "400"], id="small again"),
        pytest.param(["set", "look"], ["150", "150"], id="the script's own"),
        pytest.param(["set", "hold"], ["150", "200"], id="the script's own until the heap is large"),
    ],
)
async def test_a_small_heap_is_collected_seldom(tmp_path: Path, events: list[str], pauses: list[str]) -> None:
    collector = Collector()
    async with Engine([write(tmp_path, on_event(BODY))], sinks=[collector]) as engine:
        for event in events:
            await engine.emit("t", event)
    assert collector.logged() == pauses
