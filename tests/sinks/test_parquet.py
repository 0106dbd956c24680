"""The Parquet sink: files that other programs read, each whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.sinks.parquet import ParquetSink
from engine.values.errors import SinkError
from engine.values.records import Log
from tests.sinks.measured import KEYS, flow, key_of, records_of, window

parquet = pytest.importorskip("pyarrow.parquet")


def test_a_file_per_kind_and_window(tmp_path: Path) -> None:
    (tmp_path / "alert.unfinished").write_text("of a process that was killed")
    sink = ParquetSink(tmp_path)
    for number in range(2):
        for record in records_of(number):
            sink.write(record)
        sink.write_window(window(number))
    sink.write(flow(9))
    sink.close_now()
    kinds = ("alert", "counters", "document", "flow", "toppers")
    names = [f"{kind}-20260102T030{at}00Z.parquet" for kind in kinds for at in range(2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "flow-20260102T030100Z-rest.parquet"])
    alerts = parquet.read_table(tmp_path / "alert-20260102T030100Z.parquet").to_pylist()
    assert [each["message"] for each in alerts] == [f"1:{at}" for at in range(30)]
    assert alerts[3]["extra"] == '{"n": 3}'
    counters = parquet.read_table(tmp_path / "counters-20260102T030100Z.parquet").to_pylist()
    assert len(counters) == 3 * (KEYS + 1)
    assert {each["meter"]: each["value"] for each in counters if each["key"] == key_of(7)} == {0: 7.0, 1: 1.0, 2: 7.0}


def test_a_run_without_windows(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path / "new" / "folder")
    sink.write(Log("INFO", "x", "\udc80 alone", 1.0))
    sink.close_now()
    (path,) = (tmp_path / "new" / "folder").iterdir()
    assert path.name == "log-rest.parquet"
    assert parquet.read_table(path).to_pylist()[0]["text"] == "\\udc80 alone"


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SinkError, match="file: File exists"):
        ParquetSink(tmp_path / "file")
