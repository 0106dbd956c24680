"""Windows as tests make them, and what hooks of the slow path tell of their calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine import Config, Engine
from engine.values.windows import CounterGroup, GroupWindow, Meter, MeterType, Toppers, Window
from tests.scripts import Collector, plugin, write

GROUP = "{1111AAAA-0000-4000-8000-000000000001}"
OTHER_GROUP = "{1111AAAA-0000-4000-8000-000000000002}"


def group_window(
    values: Mapping[str, Sequence[float]],
    toppers: tuple[Toppers, ...] = (),
    *,
    guid: str = GROUP,
    name: str = "Hosts by name",
    meters: int = 2,
) -> GroupWindow:
    rows = tuple(Meter(number, MeterType.COUNTER, f"m{number}") for number in range(meters))
    return GroupWindow(CounterGroup(guid, name, "", rows), values, {}, toppers)


def window(*groups: GroupWindow, number: int = 0, seconds: float = 60.0) -> Window:
    start = 1_000_000_020.0 + number * seconds
    return Window(number, start, start + seconds, groups)


def telling(block: str, hooks: Mapping[str, str], *, fields: str = "", rest: str = "") -> str:
    """A script whose hooks log their name and arguments, and then run a body, which has them as `...`."""
    functions = ",\n".join(f"{name} = function(...) tell('{name}', ...) {body} end" for name, body in hooks.items())
    return TELL + plugin(f"{block} = {{ {fields} {functions} }},\n{rest}")


TELL = """
local function word(value)
  if type(value) ~= "table" then return tostring(value) end
  if value.sigid then return value:sigid() end
  if value.uri then return value:uri() end
  if value.time_window then return value:key() end
  if value.text then return value:key() end
  return "[" .. table.concat(value, " ") .. "]"
end
local function tell(name, _, ...)
  local words = { name }
  for at = 1, select("#", ...) do words[#words + 1] = word((select(at, ...))) end
  T.loginfo(table.concat(words, " "))
end
"""


async def flushed(
    tmp_path: Path, scripts: Mapping[str, str], *windows: Window, before: str = "", **config: Any
) -> tuple[list[str], list[Window], Collector, Engine]:
    """What scripts logged while windows were flushed, what was kept of these, all records, and the engine.

    `before` is the body of an event hook that is called first.
    """
    texts = dict(scripts)
    if before:
        texts["before.lua"] = plugin(f"event_monitor = {{ onevent = function(engine, ts)\n{before}\nend }}")
    paths = [write(tmp_path, text, name) for name, text in texts.items()]
    collector, kept = Collector(), []
    settings = Config(slow_hook_seconds=3600.0, **config)
    async with Engine(paths, config=settings, sinks=[collector]) as engine:
        assert engine.load_errors == ()
        engine.on_window(kept.append)
        if before:
            await engine.emit("t", "go")
        for each in windows:
            await engine.flush(each)
    lines = [line for line in collector.logged() if not line.startswith("onmetronome")]
    return lines, kept, collector, engine
