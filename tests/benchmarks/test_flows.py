"""The benchmark `flows` in small, and its captures; nothing here looks at how much memory there was."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import flow_load
from benchmarks.flow_load import Load
from benchmarks.flows import COLUMNS, TCP, UDP, Size, measure
from benchmarks.harness import BenchmarkError
from benchmarks.table import report_lines
from tests.capture.packets import run


@pytest.mark.parametrize("tcp", [False, True])
def test_captures_have_as_many_flows_as_they_say(tmp_path: Path, tcp: bool) -> None:
    path = tmp_path / "some.pcap"
    flow_load.write(path, Load(300, 4, tcp))
    got = run(path)
    assert (got.packets, got.stats.malformed, len(got.flows)) == (1200 * (1 + tcp), 0, 1200)
    assert {flow.proto for flow in got.flows} == {"tcp" if tcp else "udp"}
    assert {int(flow.end) - 1_700_000_000 for flow in got.flows} == {0, 1, 2, 3}
    assert got.stats.streams == 1200 * tcp


def test_more_flows_than_addresses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="addresses for 65536"):
        flow_load.write(tmp_path / "some.pcap", Load(70_000, 1))


def test_every_way_is_measured() -> None:
    report = measure(Size(20_000, new=20, short=10), repeats=1)
    assert set(report.series) == {UDP, TCP}
    assert all(set(found) == {column.metric for column in COLUMNS} for found in report.series.values())
    text = "\n".join(report_lines(report))
    assert text.count("(goal: less than 400)") == 2
    assert "20,000 flows at once" in text


def test_flows_that_are_over_too_soon_are_seen() -> None:
    with pytest.raises(BenchmarkError, match="of 400 flows were there at once"):
        measure(Size(400, seconds=200, new=1, short=1), repeats=1)
