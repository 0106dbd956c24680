"""The benchmark `files` in small; nothing here looks at how long anything took."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import files
from benchmarks.files import AIOFILES, ONE, TOOLS, Case, Size, all_ways, check, make_cases, measure
from benchmarks.harness import BenchmarkError, Need
from benchmarks.table import report_lines

TINY = Size(large=200_000, count=12, small=3_000)


def test_every_way_does_every_case(tmp_path: Path) -> None:
    report = measure(TINY, repeats=1, warmups=0)
    assert list(report.series) == list(all_ways())
    for metrics in report.series.values():
        assert set(metrics) == {"large", "small", "joined"}
        assert all(spread.low > 0 for spread in metrics.values())
    text = "\n".join(report_lines(report))
    assert "append 12 of 3 KB to one, MB/s" in text
    assert text.count("(goal: at least 0.9)") == 1
    assert "Files are on " in text
    assert "unknown" not in text


def test_without_the_tools_their_row_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "COREUTILS", Need(lambda: False, "apt-get install coreutils"))
    report = measure(TINY, repeats=1, warmups=0)
    assert TOOLS not in report.series
    assert report.missing == {TOOLS: "apt-get install coreutils"}
    assert "cp, cat (apt-get install coreutils)" in "\n".join(report_lines(report))


def _cases(folder: Path) -> list[Case]:
    return list(make_cases(folder, TINY))


def test_sources_differ(tmp_path: Path) -> None:
    large, small, joined = _cases(tmp_path)
    assert [path.stat().st_size for path in large.source.iterdir()] == [200_000]
    assert len({path.read_bytes() for path in small.source.iterdir()}) == 12
    assert (joined.source, joined.names) == (small.source, small.names)


@pytest.mark.parametrize("way", [ONE, AIOFILES])
def test_a_spoiled_result_fails(tmp_path: Path, way: str) -> None:
    _, small, joined = _cases(tmp_path)
    for case in (small, joined):
        out = tmp_path / f"out-{case.metric}"
        out.mkdir()
        assert all_ways()[way](case, out) > 0
        check(way, case, out)
        spoiled = case.target(out, case.names[5])
        data = bytearray(spoiled.read_bytes())
        data[100] ^= 1
        spoiled.write_bytes(data)
        with pytest.raises(BenchmarkError, match=f"{way}: a file differs from its source"):
            check(way, case, out)


def test_missing_surplus_and_longer_files_fail(tmp_path: Path) -> None:
    _, small, joined = _cases(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(BenchmarkError, match="12 files were to be made, there are 0"):
        check("way", small, out)
    (out / "joined").write_bytes(b"".join((joined.source / name).read_bytes() for name in joined.names) + b"!")
    with pytest.raises(BenchmarkError, match="differs"):
        check("way", joined, out)
    (out / "surplus").touch()
    with pytest.raises(BenchmarkError, match="1 files were to be made, there are 2"):
        check("way", joined, out)
