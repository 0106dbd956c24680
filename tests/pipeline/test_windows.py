"""Windows of a run: aligned to the stream's clock, whole however batches fall, handed on in their order."""

from __future__ import annotations

from pathlib import Path

from engine import Capture, Config, Engine
from engine.values.windows import Window
from tests.capture.packets import pcap, udp
from tests.scripts import Collector, plugin, write

GROUP = "{11111111-0000-0000-0000-000000000000}"
IPV4 = "{0A2C724B-5B9F-4BA6-9C97-B05080558574}"
COUNT = plugin(
    f"""simplecounter = {{ protocol_guid = "{IPV4}", onpacket = function(engine)
      engine:update_counter("{GROUP}", "all", 0, 1) end }}"""
)


class WindowCollector(Collector):
    """Also keeps windows."""

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[Window] = []

    def write_window(self, window: Window) -> None:
        self.windows.append(window)


def capture(folder: Path, times: list[float]) -> Capture:
    path = folder / "in.pcap"
    path.write_bytes(pcap([(time, udp(("10.0.0.1", 4000), ("10.0.0.2", 53), b"q")) for time in times]))
    return Capture(path)


def counts(windows: list[Window]) -> list[tuple[int, float, float]]:
    """Number, begin, and what was counted."""
    return [(each.number, each.start, each.groups[0].values["all"][0]) for each in windows]


async def test_windows_are_minutes_of_the_stream_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    collector, records = WindowCollector(), Collector()
    async with Engine([write(tmp_path, COUNT)], sinks=[collector, records]) as engine:
        await engine.run(capture(tmp_path, [30.0, 59.9, 60.0, 61.0, 119.0, 300.0]))
    assert counts(collector.windows) == [(0, 0.0, 2), (1, 60.0, 3), (2, 300.0, 1)]
    assert [(each.time, each.value) for each in records.of("counter")] == [(0.0, 2), (60.0, 3), (300.0, 1)]
    assert not collector.of("counter")  # they are in the windows


async def test_a_window_has_all_its_packets_however_batches_fall(tmp_path: Path) -> None:
    times = [1000.0 + number / 10 for number in range(6_000)]
    collector = WindowCollector()
    async with Engine([write(tmp_path, COUNT)], config=Config(window_seconds=7), sinks=[collector]) as engine:
        await engine.run(capture(tmp_path, times))
    expected: dict[float, int] = {}
    for time in times:
        start = time // 7 * 7
        expected[start] = expected.get(start, 0) + 1
    assert {start: value for _, start, value in counts(collector.windows)} == expected


async def test_windows_wait_for_the_one_who_handles_them_and_none_is_lost(tmp_path: Path) -> None:
    numbers, most = [], 0
    async with Engine([write(tmp_path, COUNT)], config=Config(windows_waiting=2)) as engine:

        async def handle(window: Window) -> None:
            nonlocal most
            most = max(most, engine.stats.windows.waiting)
            numbers.append(window.number)
            if window.number == 3:
                raise ValueError("odd")

        engine.on_window(handle)
        await engine.run(capture(tmp_path, [60.0 * number for number in range(10)]))
        stats = engine.stats.windows
    assert numbers == list(range(10))
    assert most <= 2
    assert (stats.closed, stats.handled, stats.failed, stats.waiting) == (10, 9, 1, 0)


async def test_what_is_counted_without_a_source_is_in_a_window_of_the_wall_clock(tmp_path: Path) -> None:
    body = f"event_monitor = {{ onevent = function(engine) engine:update_counter('{GROUP}', 'all', 0, 1) end }}"
    collector = WindowCollector()
    async with Engine([write(tmp_path, plugin(body))], sinks=[collector]) as engine:
        await engine.emit_batch("t", ["x"] * 5)
    assert sum(value for _, _, value in counts(collector.windows)) == 5
