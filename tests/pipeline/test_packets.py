"""simplecounter through an engine: what is counted, what goes wrong, and scripts that come and go during a capture."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine import Capture, Config, Engine
from engine.values.records import Counter
from tests.capture.packets import Record, pcap, tcp, udp
from tests.lua_api.packet_rig import GUIDS
from tests.scripts import Collector, on_event, write
from tests.support import eventually

GROUP = "{BBBBBBBB-0000-4000-8000-000000000000}"
A, Z = ("10.0.0.5", 40000), ("10.0.0.9", 514)
MANY = 5_000
"""Packets, so that they come in several steps."""


def counter(body: str, protocol: str = "UDP", *, rest: str = "") -> str:
    return (
        f'TrisulPlugin = {{ id = {{ name = "c" }}, {rest} simplecounter = {{ protocol_guid = "{GUIDS[protocol]}", '
        f"onpacket = function(engine, layer)\n{body}\nend }} }}"
    )


COUNT = f'engine:update_counter("{GROUP}", "%s", 0, 1)'


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Packets with their number in the first two bytes of the payload; every fifth is TCP."""
    path = tmp_path / "many.pcap"
    records: list[Record] = []
    for number in range(MANY):
        data = number.to_bytes(2, "big")
        records.append((1000.0 + number / 100, tcp(A, Z, 1, data) if number % 5 == 0 else udp(A, Z, data)))
    path.write_bytes(pcap(records))
    return path


def sums(collector: Collector) -> dict[tuple[str, int], float]:
    """Values of counters by key and meter, of all windows."""
    found: dict[tuple[str, int], float] = {}
    each: Counter
    for each in collector.of("counter"):
        found[each.key, each.meter] = found.get((each.key, each.meter), 0) + each.value
    return found


def calls_of_onpacket(engine: Engine) -> int:
    return sum(hook.calls for plugin in engine.stats.plugins for hook in plugin.hooks if hook.name == "onpacket")


async def test_every_packet_is_counted_by_each_of_several_scripts(capture: Path, tmp_path: Path) -> None:
    scripts = [
        write(tmp_path, counter(COUNT % "udp"), "a.lua"),
        write(tmp_path, counter(COUNT % "tcp", "TCP"), "b.lua"),
        write(tmp_path, counter(f'engine:update_counter_bytes("{GROUP}", "bytes", 1)', "IPv4"), "c.lua"),
        write(tmp_path, counter(COUNT % "none", "IPv6"), "d.lua"),
    ]
    collector = Collector()
    async with Engine(scripts, sinks=[collector]) as engine:
        await engine.run(Capture(capture))
    size = MANY // 5 * (54 + 2) + MANY // 5 * 4 * (42 + 2)
    assert sums(collector) == {("udp", 0): MANY * 4 / 5, ("tcp", 0): MANY / 5, ("bytes", 1): size}
    hooks = [hook for plugin in engine.stats.plugins for hook in plugin.hooks if hook.name == "onpacket"]
    assert [hook.calls for hook in hooks] == [MANY * 4 // 5, MANY // 5, MANY, 0]


async def test_packets_come_in_order_with_their_time(capture: Path, tmp_path: Path) -> None:
    body = """
      local payload = layer:packet():rawbytes():hval_16(42)
      if last and payload <= last then error("out of order") end
      last = payload
      if engine:timestamp() ~= math.floor(layer:packet():timestamp()) then error("wrong time") end"""
    async with Engine([write(tmp_path, counter(body))]) as engine:
        await engine.run(Capture(capture))
    assert engine.stats.script_errors == 0


async def test_a_hook_that_raises_on_some_packets_goes_on(capture: Path, tmp_path: Path) -> None:
    body = COUNT % "seen" + "\nif layer:packet():rawbytes():hval_16(42) % 1000 == 1 then error('odd one') end"
    collector = Collector()
    scripts = [write(tmp_path, counter(body), "bad.lua"), write(tmp_path, counter(COUNT % "other"), "good.lua")]
    async with Engine(scripts, sinks=[collector]) as engine:
        await engine.run(Capture(capture))
    assert sums(collector) == {("seen", 0): 4000, ("other", 0): 4000}
    errors = collector.logged("ERROR")
    assert len(errors) == 5
    assert all("simplecounter.onpacket" in each and "bad.lua:3" in each and "odd one" in each for each in errors)
    assert [record.script for record in collector.of("log") if record.level == "ERROR"] == ["bad.lua"] * 5


async def test_no_counter_call_breaks_a_run(capture: Path, tmp_path: Path) -> None:
    body = f"""
      for _, meter in ipairs {{ 1/0, -1/0, 0/0, "x", {{}} }} do engine:update_counter("{GROUP}", "k", meter, 1) end
      engine:update_counter(nil, nil, nil, nil) engine:update_counter() engine:update_counter(nil, "k", 0, 1)
      engine:update_counter("{GROUP}", nil, 0, 1) engine:update_counter("{GROUP}", "k", 0, nil)
      engine:update_counter("{GROUP.lower()}", 7, "0", "1")
      engine:update_counter("{GROUP}", "7", 0, 1)
      engine:update_counter("{GROUP}", 7, 1, 0.5)"""
    collector = Collector()
    config = Config(slow_hook_seconds=3600.0)
    async with Engine([write(tmp_path, counter(body, "TCP"))], config=config, sinks=[collector]) as engine:
        await engine.run(Capture(capture))
    assert sums(collector) == {("7", 0): MANY / 5 * 2, ("7", 1): MANY / 10}
    assert engine.stats.script_errors == 0
    assert len(collector.logged("WARN")) == 1


async def test_flow_keys_are_those_of_the_capture_that_is_read(tmp_path: Path) -> None:
    """Rows of the flow table begin anew with each capture."""
    collector = Collector()
    async with Engine([write(tmp_path, counter("T.loginfo(layer:flowkey())"))], sinks=[collector]) as engine:
        for number in (1, 2):
            path = tmp_path / f"{number}.pcap"
            path.write_bytes(pcap([(1.0, udp((f"10.0.0.{number}", 40000), Z))]))
            await engine.run(Capture(path))
    assert [key[4:15] for key in collector.logged()] == ["0A.00.00.01", "0A.00.00.02"]
    assert collector.logged() == [flow.id for flow in collector.of("flow")]


async def test_scripts_come_and_go_while_a_capture_is_read(capture: Path, tmp_path: Path) -> None:
    """One is loaded when no packet hook was there at the beginning, and unloaded in the middle."""
    collector, held = Collector(), 0
    script = write(
        tmp_path,
        counter(COUNT % "seen" + " kept = layer", rest="onunload = function() T.loginfo(kept:getbyte(0)) end,"),
    )
    async with Engine(sinks=[collector], config=Config(slice_seconds=0.0)) as engine:
        reading = asyncio.ensure_future(engine.run(Capture(capture)))
        await eventually(lambda: engine.stats.decode.packets)
        await engine.load(script)
        await eventually(lambda: calls_of_onpacket(engine))
        held = calls_of_onpacket(engine)
        await engine.unload("script.lua")
        await reading
    assert 0 < held < MANY
    assert collector.logged() == ["0"]
    assert collector.logged("ERROR") == []


async def test_a_hook_that_calls_for_async_work_gets_its_results(capture: Path, tmp_path: Path) -> None:
    body = """
      local number = layer:packet():rawbytes():hval_16(42)
      if number % 100 ~= 1 then return end
      T.async:schedule{ data = tostring(number), onexecute = function(text) return text end,
        onresult = function(engine, _, text) engine:update_counter("%s", "done", 0, 1) end }"""
    collector = Collector()
    async with Engine([write(tmp_path, counter(body.replace("%s", GROUP)))], sinks=[collector]) as engine:
        await engine.run(Capture(capture))
    assert sums(collector) == {("done", 0): 50}


async def test_the_same_run_gives_the_same_records(capture: Path, tmp_path: Path) -> None:
    """However often the loop got its turn."""
    body = (
        COUNT % "n" + " if layer:getbyte(3) == 2 then engine:add_alert(_G.G or 'G', layer:flowkey(), 's', 1, 'm') end"
    )
    script = write(tmp_path, counter(body))
    other = write(tmp_path, on_event(""), "other.lua")
    found = []
    for seconds in (0.0, 1.0):
        collector = Collector()
        async with Engine(
            [script, other], sinks=[collector], config=Config(slice_seconds=seconds, slow_hook_seconds=3600.0)
        ) as engine:
            await engine.run(Capture(capture))
        found.append([each for each in collector.records if each.kind != "summary"])
    assert found[0] == found[1]
    assert len(found[0]) > 4000
