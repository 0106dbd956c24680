"""The benchmark `service` in small; nothing here looks at how long anything took."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.harness import BenchmarkError
from benchmarks.service import COLUMNS, PLUGINS, Size, measure
from benchmarks.service_load import measure as load
from benchmarks.service_load import serving
from benchmarks.table import report_lines


def test_all_ways_are_measured() -> None:
    report = measure(Size(requests=12, body=1_000, clients=3, rate=200.0), repeats=1)
    assert list(report.series) == list(PLUGINS)
    for metrics in report.series.values():
        assert set(metrics) == {column.metric for column in COLUMNS}
        assert all(value > 0 for each in metrics.values() for value in each.values)
    assert "(goal: at most 1.5)" in "\n".join(report_lines(report))


def load_once(plugin: Path, folder: Path) -> None:
    with serving(plugin, folder) as port:
        asyncio.run(load(port, size=10, rate=100.0, requests=3, clients=1))


def test_work_that_fails_fails_the_benchmark(tmp_path: Path) -> None:
    plugin = tmp_path / "fails.lua"
    plugin.write_text("""
TrisulPlugin = { id = { name = "fails" }, event_monitor = { topics = { "uploads.stored" }, onevent = function()
  T.async:schedule{ data = "x", onexecute = function() error("no") end }
end } }
""")
    with pytest.raises(BenchmarkError, match="tasks failed"):
        load_once(plugin, tmp_path / "uploads")


def test_a_service_that_does_not_start_fails_it(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="broke off"):
        load_once(tmp_path / "none.lua", tmp_path / "uploads")
