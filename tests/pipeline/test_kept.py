"""What is kept while flows come and go does not grow with the capture: entries are counted, and bytes of Lua's heap."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from engine import Capture, Config, Engine
from engine.pipeline.captures import CaptureRun
from engine.values.config import CaptureLimits
from tests.capture.packets import ACK, SERVER, SYN, Record, pcap, tcp

HANDLER = """
TrisulPlugin = { id = { name = "handler" },
  reassembly_handler = {
    onpayload = function(engine, time, flow)
      engine:tag_flow(flow:id(), "seen")
      engine:add_flow_counter(flow:id(), "{AAAAAAAA-0000-4000-8000-000000000001}", "k", 0, 0)
      if flow:porta_readable() % 2 == 0 then engine:disable_reassembly(flow:id()) end
    end,
    onterminateflow = function(engine, time, flow) end,
  },
}
"""
NEW, IDLE = 40, 5  # flows in each second; seconds


def coming_and_going(seconds: int) -> list[Record]:
    """New connections in each second, which go silent."""
    records: list[Record] = []
    for number in range(seconds * NEW):
        client = (f"10.{number >> 14 & 255}.{number >> 7 & 127}.1", 20_000 + number % 128)
        for flags, seq, data in ((SYN, 1, b""), (ACK, 2, b"data")):
            records.append((number // NEW, tcp(client, SERVER, seq, data, flags=flags, ack=flags // ACK)))
    return records


async def most_kept(tmp_path: Path, seconds: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The most entries there were of each thing that is kept by flow or by stream, and bytes of the heap."""
    (tmp_path / "in.pcap").write_bytes(pcap(coming_and_going(seconds)))
    (tmp_path / "handler.lua").write_text(HANDLER)
    most: Counter[str] = Counter()
    step = CaptureRun._next_step

    def look(run: CaptureRun) -> int:
        assert run._takers.streams is not None
        kept = {"opened": run._decoder._opened, "shared": run._takers.streams._shared}
        book = engine._pipeline.effects.flows
        kept |= {"notes": book._notes, "counting": book._counting}
        for taker in run._takers.streams._takers:
            kept |= {f"{type(taker).__name__}.{name}": each for name, each in vars(taker).items() if _sized(each)}
        for name, each in kept.items():
            most[name] = max(most[name], len(each))
        assert run._decoder._state is not None
        most["lua"] = max(most["lua"], run._decoder._state.memory_used())
        return step(run)

    limits = CaptureLimits(idle_seconds=IDLE, attempt_seconds=IDLE)
    async with Engine([tmp_path / "handler.lua"], config=Config(limits=limits)) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(CaptureRun, "_next_step", look)
            await engine.run(Capture(tmp_path / "in.pcap"))
        assert engine.stats.decode.flows == seconds * NEW
    return most


def _sized(value: object) -> bool:
    return isinstance(value, dict | set)


async def test_a_capture_eight_times_as_long_keeps_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = [await most_kept(tmp_path, seconds, monkeypatch) for seconds in (30, 240)]
    assert short["opened"] >= NEW * IDLE
    heap = short.pop("lua"), long.pop("lua")
    assert long.keys() == short.keys()
    for name, entries in long.items():
        assert entries <= short[name] + NEW, name
    assert heap[1] < heap[0] * 1.15 + 200_000
