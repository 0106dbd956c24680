"""The JSON lines sink: what a line looks like, when lines reach the file, and that no failure is silent."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from engine.sinks import jsonl
from engine.sinks.jsonl import JsonLinesSink, encode
from engine.values.errors import EngineError, SinkError
from engine.values.records import Counter, Log, Record, Resource, Summary


def log(text: str) -> Log:
    return Log("INFO", "x.lua", text, 1.5)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_kind_is_the_first_key_and_order_is_kept(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "out.jsonl")
    sink.write(log("one"))
    sink.write(Resource("{G}", "flow", "uri", "contents", "x.lua", 2.0))
    sink.write(Summary(7, 0.5, {"files": 3}))
    await sink.close()
    written = lines(tmp_path / "out.jsonl")
    assert [each["kind"] for each in written] == ["log", "resource", "summary"]
    assert all(next(iter(each)) == "kind" for each in written)
    assert written[2] == {"kind": "summary", "packets": 7, "seconds": 0.5, "files": 3}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_become_null(value: float) -> None:
    written = json.loads(encode(Counter("{G}", "key", 0, value)), parse_constant=pytest.fail)
    assert written["value"] is None
    assert written["key"] == "key"


@pytest.mark.parametrize("text", ["été 日本", 'quote " and \\', "two\nlines\r\n", "\x00\x1b", "\udc80 alone", "\u2028"])
def test_any_text_comes_back_from_one_line(text: str) -> None:
    line = encode(log(text))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line.decode("utf-8"))["text"] == text


async def test_flush_waits_until_enough_has_gathered(tmp_path: Path) -> None:
    path, clock = tmp_path / "out.jsonl", FakeClock()
    sink = JsonLinesSink(path, clock=clock)
    sink.write(log("small"))
    await sink.flush()
    assert path.stat().st_size == 0
    sink.write(log("x" * jsonl._ENOUGH_BYTES))
    await sink.flush()
    assert len(lines(path)) == 2
    await sink.close()


async def test_flush_writes_old_lines_even_if_few(tmp_path: Path) -> None:
    path, clock = tmp_path / "out.jsonl", FakeClock()
    sink = JsonLinesSink(path, clock=clock)
    sink.write(log("small"))
    clock.now += jsonl._PATIENCE
    await sink.flush()
    assert lines(path) == [{"kind": "log", "level": "INFO", "script": "x.lua", "text": "small", "time": 1.5}]
    await sink.close()


async def test_memory_is_bounded_between_flushes(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = JsonLinesSink(path)
    for _ in range(10):
        sink.write(log("x" * (jsonl._MOST_BYTES // 4)))
        assert sink._bytes < jsonl._MOST_BYTES
    assert path.stat().st_size > jsonl._MOST_BYTES
    await sink.close()
    assert len(lines(path)) == 10


async def test_order_holds_while_a_flush_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = JsonLinesSink(path)
    async with anyio.create_task_group() as group:
        for number in range(40):
            sink.write(log(f"{number} {'x' * (jsonl._MOST_BYTES // 10)}"))
            group.start_soon(sink.flush)
            await anyio.lowlevel.checkpoint()
    await sink.close()
    assert [int(each["text"].split()[0]) for each in lines(path)] == list(range(40))


async def test_close_writes_the_rest_even_when_cancelled(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "out.jsonl")
    sink.write(log("last"))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await sink.close()
    assert [each["text"] for each in lines(tmp_path / "out.jsonl")] == ["last"]
    assert sink.closed
    await sink.close()
    sink.close_now()


def test_close_now_needs_no_loop(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "out.jsonl")
    sink.write(log("last"))
    sink.close_now()
    assert len(lines(tmp_path / "out.jsonl")) == 1


def test_an_old_file_is_emptied(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")
    JsonLinesSink(path).close_now()
    assert path.read_text() == ""


@pytest.mark.parametrize(
    ("name", "reason"), [("missing/out.jsonl", "No such file or directory"), (".", "Is a directory")]
)
def test_what_cant_be_opened_is_told_at_once(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(SinkError) as caught:
        JsonLinesSink(tmp_path / name)
    assert isinstance(caught.value, EngineError)
    assert (caught.value.path, caught.value.reason) == (str(tmp_path / name), reason)
    assert str(caught.value) == f"{tmp_path / name}: {reason}"


def full(size: int) -> Record:
    return log("x" * size)


async def test_a_full_disk_is_told_by_flush_once() -> None:
    sink = JsonLinesSink("/dev/full")
    sink.write(full(jsonl._ENOUGH_BYTES))
    with pytest.raises(SinkError, match=r"^/dev/full: No space left on device$"):
        await sink.flush()
    sink.write(full(1))
    await sink.flush()
    await sink.close()


async def test_a_full_disk_is_told_by_close() -> None:
    sink = JsonLinesSink("/dev/full")
    sink.write(full(1))
    with pytest.raises(SinkError, match="No space left on device"):
        await sink.close()
    assert sink.closed


async def test_a_disk_that_fills_within_write_is_told_by_the_next_flush() -> None:
    sink = JsonLinesSink("/dev/full")
    sink.write(full(jsonl._MOST_BYTES))
    with pytest.raises(SinkError, match="No space left on device"):
        await sink.flush()
    await sink.close()
