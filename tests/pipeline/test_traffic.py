"""Counter groups that the platform fills: exact against flow records, and the same however a capture is read."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from engine import Capture, Config, Engine
from engine.sources import Pipe
from engine.stream.builtin_groups import APPS, HOSTS
from engine.values.windows import GROUP_TOTALS, GroupWindow, Window
from tests.scripts import Collector

CAPTURE = Path(__file__).parents[2].parent / "shared" / "data" / "pcap" / "trisul-16minutes.pcap"
pytestmark = pytest.mark.skipif(not CAPTURE.exists(), reason=f"the capture is not there: {CAPTURE}")


async def read(source: Capture | Pipe) -> tuple[list[Window], Collector]:
    windows: list[Window] = []
    collector = Collector()
    async with Engine(config=Config(), sinks=[collector]) as engine:
        engine.on_window(windows.append)
        await engine.run(source)
    return windows, collector


def group(window: Window, guid: str) -> GroupWindow | None:
    return next((each for each in window.groups if each.group.guid == guid), None)


def summed(windows: list[Window], guid: str, meter: int, times: float) -> dict[str, int]:
    """A meter over all windows, by key; keys of which it was 0 are left out."""
    sums: Counter[str] = Counter()
    for window in windows:
        found = group(window, guid)
        for key, values in found.values.items() if found else ():
            if key != GROUP_TOTALS:
                sums[key] += round(values[meter] * times)
    return {key: value for key, value in sums.items() if value}


async def test_hosts_and_apps_are_the_sums_of_the_flow_records() -> None:
    windows, collector = await read(Capture(CAPTURE))
    total, received, sent, packets, new, apps, connections = (Counter[str]() for _ in range(7))
    for flow in collector.of("flow"):
        a, z = flow.id[4:15], flow.id[23:34]
        app = flow.id[-6:]
        bytes_of_both = flow.a_bytes + flow.z_bytes
        for host, out, back in ((a, flow.a_bytes, flow.z_bytes), (z, flow.z_bytes, flow.a_bytes)):
            total[host] += bytes_of_both
            sent[host] += out
            received[host] += back
            packets[host] += flow.a_packets + flow.z_packets
            new[host] += 1
        apps[app] += bytes_of_both
        connections[app] += 1
    assert len(windows) == 19
    assert summed(windows, HOSTS, 0, 60) == {key: value for key, value in total.items() if value}
    assert summed(windows, HOSTS, 1, 60) == {key: value for key, value in received.items() if value}
    assert summed(windows, HOSTS, 2, 60) == {key: value for key, value in sent.items() if value}
    assert summed(windows, HOSTS, 3, 60) == packets
    assert summed(windows, HOSTS, 13, 1) == new
    assert summed(windows, APPS, 0, 60) == apps
    assert summed(windows, APPS, 4, 1) == connections


async def test_toppers_are_those_of_an_exact_count() -> None:
    windows, _ = await read(Capture(CAPTURE))
    for window in windows:
        hosts = group(window, HOSTS)
        if hosts is None:
            continue
        ranked = sorted((values[0] for key, values in hosts.values.items() if key != GROUP_TOTALS), reverse=True)
        (toppers,) = [each for each in hosts.toppers if each.meter == 0]
        assert [value for _, value in toppers.items] == ranked[:10]
        assert all(hosts.values[key][0] == value for key, value in toppers.items)


async def test_a_pipe_gives_what_a_file_gives() -> None:
    expected, _ = await read(Capture(CAPTURE))
    descriptor = os.open(CAPTURE, os.O_RDONLY)
    try:
        found, _ = await read(Pipe(descriptor))
    finally:
        os.close(descriptor)
    assert as_plain(found) == as_plain(expected)


def as_plain(windows: list[Window]) -> list[object]:
    return [(each.start, [(it.group.guid, dict(it.values), it.toppers) for it in each.groups]) for each in windows]
