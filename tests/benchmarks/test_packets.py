"""The benchmark `packets` in small; nothing here looks at how long anything took."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from benchmarks import packets, traffic
from benchmarks.harness import BenchmarkError, Need, Report
from benchmarks.packets import COLUMNS, DPKT, ENGINE, NEEDS, NFSTREAM, TSHARK, Size, all_ways, make_room, measure
from benchmarks.table import report_lines
from benchmarks.traffic import make_traffic
from tests.capture.packets import run

TINY = Size(2_000, 1_000)


@pytest.fixture(autouse=True)
def made_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the sample, which is not everywhere."""
    monkeypatch.setattr(traffic, "SAMPLE", Path("/nonexistent"))


@pytest.fixture(scope="module")
def report() -> Report:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traffic, "SAMPLE", Path("/nonexistent"))
        return measure(TINY, repeats=1, warmups=0)


def test_every_way_is_measured_or_missing(report: Report) -> None:
    assert {*report.series, *report.missing} == set(all_ways())
    assert set(report.series[ENGINE]) == {column.metric for column in COLUMNS}
    for way in report.series.values():
        assert all(spread.low > 0 for spread in way.values())


def test_goals_stand_with_their_ratios(report: Report) -> None:
    text = "\n".join(report_lines(report))
    assert text.count("(goal: at least 20)") == (TSHARK in report.series) + (DPKT in report.series)
    assert text.count("(goal: at least 10)") == (NFSTREAM in report.series)
    assert "flow table 4" in text


def test_who_is_not_there_has_a_row_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "NEEDS", {name: Need(lambda: False, need.install) for name, need in NEEDS.items()})
    report = measure(TINY, repeats=1, warmups=0)
    assert list(report.series) == [ENGINE]
    assert report.missing == {name: need.install for name, need in NEEDS.items()}
    assert "tshark, Lua tap (apt-get install tshark)" in "\n".join(report_lines(report))


def test_each_copy_has_flows_of_its_own_and_times_ascend(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    one = make_traffic(tmp_path / "one", 1)
    three = make_traffic(tmp_path, one.packets * 3)
    assert three.packets == 3 * one.packets
    first, all_of_it = run(one.path), run(three.path)
    assert all_of_it.stats.packets == three.packets
    assert all_of_it.stats.flows == 3 * first.stats.flows
    assert all_of_it.stats.malformed == 0
    times, before = _times(three.path), _times(one.path)
    assert times == sorted(times)
    assert times[-1] - times[0] < 2 * (max(before) - min(before))


def _times(path: Path) -> list[int]:
    data, at, times = path.read_bytes(), 24, []
    while at < len(data):
        seconds, micros, captured, _ = struct.unpack_from("<IIII", data, at)
        times.append(seconds * 1_000_000 + micros)
        at += 16 + captured
    return times


def test_a_counter_that_misses_packets_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lua").mkdir()
    source = (Path(packets.__file__).parent / "lua" / "counter.lua").read_text()
    (tmp_path / "lua" / "counter.lua").write_text(source.replace("0, 1)", "0, 2)"))
    monkeypatch.setattr(packets, "_HERE", tmp_path)
    room = make_room(tmp_path, TINY)
    with pytest.raises(BenchmarkError, match="which counted"):
        all_ways()[ENGINE]["one"](room)
