"""Windows of the wall's clock, flushed beside the packets: slowly, too many at once, and left in the middle."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from engine import Config, Engine
from engine.sources import Live
from engine.values.windows import Window
from tests.pipeline.test_live import capturing, send
from tests.pipeline.test_windows import WindowCollector
from tests.scripts import plugin, write
from tests.support import eventually

GROUP = "{11111111-0000-4000-8000-000000000000}"
COUNT = f"""simplecounter = {{ protocol_guid = "{{0A2C724B-5B9F-4BA6-9C97-B05080558574}}",
  onpacket = function(engine) engine:update_counter("{GROUP}", "all", 0, 1) end }}"""
# A flush of ten seconds, a millisecond for each key.
KEYS = 10_000
FILL = f"""event_monitor = {{ onevent = function(engine)
  for key = 1, {KEYS} do engine:update_counter("{GROUP}", tostring(key), 0, 1) end end }}"""
SLOW = f"""cg_monitor = {{ counter_guid = "{GROUP}", onflush = function()
  local began = os.clock() while os.clock() - began < 0.001 do end end }}"""
VOTE = f"""cg_monitor = {{ counter_guid = "{GROUP}", onflushfilter = function(_, _, key) return key ~= "all" end }}"""


def scripts(folder: Path, *bodies: str) -> list[Path]:
    return [write(folder, plugin(body), f"s{at}.lua") for at, body in enumerate(bodies)]


def kept(windows: list[Window]) -> float:
    """What was counted in windows of which the vote was not taken."""
    return sum(group.values["all"][0] for each in windows for group in each.groups if "all" in group.values)


async def test_packets_are_read_while_a_script_takes_long_to_flush(tmp_path: Path) -> None:
    config = Config(window_seconds=1, drain_seconds=0.2, slow_hook_seconds=3600)
    async with Engine(scripts(tmp_path, COUNT, FILL, SLOW), config=config) as engine:
        assert engine.load_errors == ()
        async with capturing(engine, Live("lo")) as job:
            await engine.emit("fill", "x")
            await eventually(lambda: engine.stats.flush.waiting > 0)
            before = engine.stats
            send(20)
            await eventually(lambda: engine.stats.decode.packets >= before.decode.packets + 20)
            assert engine.stats.flush.windows == before.flush.windows  # it is the same flush that goes on
            engine.end_source()
            began = time.monotonic()
            job.cancel()  # it would wait for the flush
            await asyncio.wait([job])
    assert time.monotonic() - began < 8
    assert engine.stats.windows.failed > 0
    assert engine.stats.windows.waiting == 0


async def test_windows_past_the_limit_are_stored_without_votes_and_counted(tmp_path: Path) -> None:
    collector, gate = WindowCollector(), asyncio.Event()
    config = Config(window_seconds=1, windows_waiting=2, slow_hook_seconds=3600)
    async with Engine(scripts(tmp_path, COUNT, VOTE), config=config, sinks=[collector]) as engine:
        engine.on_window(lambda _window: gate.wait())  # a flush goes on until its window was handled
        async with capturing(engine, Live("lo")) as job:

            def two_were_dropped() -> bool:
                send(1)
                return engine.stats.flush.dropped >= 2

            await eventually(two_were_dropped)
            assert engine.stats.flush.waiting == 2
            packets = engine.stats.decode.packets
            send(20)
            await eventually(lambda: engine.stats.decode.packets >= packets + 20)
            unvoted = kept(collector.windows)
            assert unvoted > 0
            gate.set()
            await eventually(lambda: engine.stats.flush.waiting == 0)
            engine.end_source()
            await job
    stats = engine.stats
    assert stats.flush.windows + stats.flush.dropped == stats.windows.closed == len(collector.windows)
    assert (stats.windows.failed, stats.windows.waiting) == (0, 0)


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_an_engine_that_is_left_in_a_flush_ends_in_time(tmp_path: Path, is_cancelled: bool) -> None:
    never, began = asyncio.Event(), 0.0
    config = Config(window_seconds=1, drain_seconds=0.3, slow_hook_seconds=3600)

    async def live() -> None:
        nonlocal began
        async with Engine(scripts(tmp_path, FILL), config=config, sinks=[collector]) as engine:
            engines.append(engine)
            engine.on_window(lambda _window: never.wait())
            await engine.emit("fill", "x")
            await eventually(lambda: engine.stats.flush.waiting > 0)
            began = time.monotonic()
            if is_cancelled:
                raise ValueError("left")

    collector, engines = WindowCollector(), list[Engine]()
    try:
        await asyncio.wait_for(live(), 60)
    except ValueError:
        assert is_cancelled
    assert time.monotonic() - began < 8
    [engine] = engines
    assert engine.stats.windows.failed > 0
    assert engine.stats.windows.handled == 0
    assert engine.stats.flush.waiting == engine.stats.windows.waiting == 0
    assert collector.closed
