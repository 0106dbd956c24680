"""Reading a capture: the records are those that were put into it, whatever happened to them on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Capture, CaptureError, Config, Engine, EngineError
from engine.capture.synth import Synthesis, synthesize
from engine.values.records import Record
from tests.offload.rig import Hold, turns
from tests.scripts import (
    Collector,
    assert_counts_close,
    files_below,
    on_event,
    on_file,
    on_file_hash,
    plugin,
    run_capture,
    write,
)
from tests.support import eventually

CASES = [(5, 1, False), (40, 2, False), (12, 3, True), (60, 4, True)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-files{'-faults' if case[2] else ''}")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    files, seed, faults = request.param
    return synthesize(tmp_path_factory.mktemp("made") / "c.pcap", files=files, seed=seed, faults=faults)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    return synthesize(tmp_path_factory.mktemp("small") / "small.pcap", files=8, seed=9)


async def test_the_flows_are_the_connections(made: Synthesis) -> None:
    collector, stats = await run_capture(made.path)
    flows = collector.of("flow")
    assert len(flows) == len({each.id for each in flows}) == made.connections == stats.decode.flows
    assert {each.proto for each in flows} == {"tcp"}
    assert sum(each.a_packets + each.z_packets for each in flows) == made.packets == stats.decode.packets
    assert sum(each.a_bytes + each.z_bytes for each in flows) == stats.decode.wire_bytes
    assert all(each.start <= each.end for each in flows)
    assert stats.decode.decoded == made.packets
    assert_counts_close(stats)


async def test_the_files_are_those_of_the_manifest(made: Synthesis) -> None:
    collector, stats = await run_capture(made.path)
    expected = Counter(
        (each.method, each.host, each.uri, each.direction, each.complete, each.size if each.complete else 0)
        for each in made.files
    )
    found = Counter(
        (each.method, each.host, each.uri, each.direction, each.complete, each.size if each.complete else 0)
        for each in collector.of("file")
    )
    assert found == expected
    assert {each.reason for each in collector.of("file") if not each.complete} <= {"gap"}
    assert stats.http.files_complete == sum(each.complete for each in made.files)


async def test_the_exchanges_are_those_of_the_manifest(made: Synthesis) -> None:
    collector, stats = await run_capture(made.path)
    exchanges = Counter((each.method, each.host, each.uri, each.status) for each in collector.of("http"))
    downloads = Counter((each.method, each.host, each.uri, 200) for each in made.downloads)
    assert downloads <= exchanges
    assert {uri for _, _, uri, _ in exchanges - downloads if not uri.startswith("/bare/")} == set()
    assert stats.http.requests == stats.http.responses == len(collector.of("http"))
    assert stats.http.malformed == 0


async def test_the_bytes_are_those_of_the_manifest(made: Synthesis, tmp_path: Path) -> None:
    script = write(tmp_path, on_file_hash())
    ramfs = tmp_path / "ram"
    collector, stats = await run_capture(made.path, [script], Config(chunk_bytes=64 << 20, ramfs=ramfs))
    found = Counter((each.uri, int(each.contents)) for each in collector.of("resource"))
    expected = Counter((each.sha256, each.size) for each in made.files if each.complete)
    assert expected <= found
    assert collector.logged("ERROR") == []
    assert files_below(ramfs) == []
    assert_counts_close(stats)


async def test_without_a_taker_only_flows_are_read(small: Synthesis) -> None:
    async with Engine() as engine, engine.subscribe("flow") as flows:
        await engine.run(Capture(small.path))
        assert engine.stats.decode.segments == engine.stats.http.requests == 0
        assert engine.stats.decode.flows == small.connections
    async with flows:
        assert engine.stats.records.delivered == small.connections


async def test_progress_can_be_seen_while_it_reads(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "c.pcap", files=40, seed=6)
    seen: list[int] = []
    async with Engine([write(tmp_path, on_file(""))], config=Config(slice_seconds=0.0005)) as engine:
        reading = asyncio.create_task(engine.run(Capture(made.path)))
        while not reading.done():
            seen.append(engine.stats.decode.packets)
            assert_counts_close(engine.stats, ended=False)
            await asyncio.sleep(0)
        await reading
        assert engine.stats.decode.packets == made.packets
    assert seen == sorted(seen)
    assert len({count for count in seen if 0 < count < made.packets}) >= 3


async def test_stream_time_is_the_captures_while_it_is_read(small: Synthesis, tmp_path: Path) -> None:
    text = (
        on_event("T.loginfo(ts)")
        + "TrisulPlugin.filex_monitor = { onfile_http = function(engine, ts) T.loginfo(ts) end }"
    )
    collector = Collector()
    async with Engine([write(tmp_path, text)], sinks=[collector]) as engine:
        await engine.run(Capture(small.path))
        during = [float(line) for line in collector.logged()]
        await engine.emit("t", "x")
        (after,) = collector.logged()[len(during) :]
    first = min(each.start for each in collector.of("flow"))
    last = max(each.end for each in collector.of("flow"))
    assert during
    assert all(int(first) <= each <= last for each in during)
    assert float(after) > last


async def test_a_second_run_while_one_is_running_is_refused(small: Synthesis, tmp_path: Path) -> None:
    async with Engine([write(tmp_path, on_file(""))]) as engine:
        reading = asyncio.create_task(engine.run(Capture(small.path)))
        await asyncio.sleep(0)
        with pytest.raises(EngineError, match="another source is being read"):
            await engine.run(Capture(small.path))
        await reading
        await engine.run(Capture(small.path))
        assert engine.stats.decode.packets == 2 * small.packets


async def test_counts_and_flows_of_two_runs_add_up(small: Synthesis, made: Synthesis) -> None:
    collector = Collector()
    async with Engine(sinks=[collector]) as engine:
        await engine.run(Capture(small.path))
        await engine.run(Capture(str(made.path)))
    assert engine.stats.decode.packets == small.packets + made.packets
    assert len(collector.of("flow")) == small.connections + made.connections
    assert collector.of("summary")[0].counts["files"] == len(small.files) + len(made.files)
    assert_counts_close(engine.stats)


async def test_a_capture_that_can_not_be_read_is_an_error_and_the_engine_goes_on(
    small: Synthesis, tmp_path: Path
) -> None:
    (tmp_path / "bad.pcap").write_bytes(b"not a capture")
    async with Engine() as engine:
        for name, reason in (("absent.pcap", "No such file"), ("bad.pcap", "neither pcap nor pcapng"), (".", "folder")):
            with pytest.raises(CaptureError, match=reason):
                await engine.run(Capture(tmp_path / name))
        await engine.run(Capture(small.path))
    assert engine.stats.decode.packets == small.packets


SYNCHRONOUS = """
local seen = 0
TrisulPlugin = {
  id = { name = "same" },
  filex_monitor = {
    filter_flow = function(engine, ts, flow) engine:update_counter("{A}", flow:ipa_readable(), 0, 1) return true end,
    filter = function(engine, ts, flow, header) return header:is_request() or header:get_status() == 200 end,
    onpayload_http = function(engine, ts, flow, path, req, resp, direction, at, buffer)
      engine:update_counter("{B}", path:match("[^/]+$"), direction, buffer:size())
    end,
    onfile_http = function(engine, ts, flow, path, req, resp, length)
      seen = seen + 1
      engine:add_alert("{C}", flow:id(), seen, 1, path)
      engine:add_resource("{D}", flow:id(), req:get_path(), length)
      engine:tag_flow(flow:id(), "t" .. length)
      engine:post_message_frontend(path)
    end,
    onterminateflow = function(engine, ts, flow) engine:add_flow_edges(flow:id(), "{E}", "v") end,
  },
  onmessage = function(id, message) T.loginfo(message) end,
}
"""


def comparable(records: list[Record]) -> Iterator[Record]:
    """All records but the summary, which has the seconds that passed."""
    return (record for record in records if record.kind != "summary")


@pytest.mark.parametrize("slice_seconds", [0.004, 0.0001])
async def test_the_same_capture_and_scripts_give_the_same_records_in_the_same_order(
    made: Synthesis, tmp_path: Path, slice_seconds: float
) -> None:
    script = write(tmp_path, SYNCHRONOUS)
    runs = []
    for seconds in (0.004, slice_seconds):
        config = Config(ramfs=tmp_path / "ram", slice_seconds=seconds, slow_hook_seconds=60)
        runs.append(await run_capture(made.path, [script], config))
    (first, one), (second, two) = runs
    assert {"flow", "file", "http", "alert", "resource", "counter", "edge", "log", "flow_update"} <= {
        each.kind for each in first.records
    }
    assert list(comparable(first.records)) == list(comparable(second.records))
    assert (one.decode, one.http) == (two.decode, two.http)


async def test_tags_reach_the_record_of_their_flow(small: Synthesis, tmp_path: Path) -> None:
    tag = 'engine:tag_flow(flowkey:id(), "web") engine:tag_flow(flowkey:id(), "web") engine:tag_flow(flowkey:id(), "b")'
    collector, _ = await run_capture(small.path, [write(tmp_path, on_file(tag))])
    assert {each.tags for each in collector.of("flow")} == {"web|b"}


async def test_a_ping_pong_of_messages_does_not_stop_the_reading(small: Synthesis, tmp_path: Path) -> None:
    ball = "engine:post_message_frontend('ball')"
    text = on_event(f"T.engine = engine {ball}", rest="onmessage = function() local engine = T.engine " + ball + " end")
    async with Engine([write(tmp_path, text, "game.lua")]) as engine:
        await engine.emit("t", "serve")
        reading = asyncio.create_task(engine.run(Capture(small.path)))
        try:
            await eventually(lambda: engine.stats.decode.packets == small.packets, seconds=3)
        finally:
            await engine.unload("game.lua")
            await reading


@pytest.mark.parametrize(("engines", "own"), [(40, 100), (100_000, 40)])
async def test_reading_waits_when_a_queue_is_half_full_so_that_no_task_is_lost(
    tmp_path: Path, engines: int, own: int
) -> None:
    made = synthesize(tmp_path / "c.pcap", files=60, seed=8)
    hold = Hold(tmp_path / "hold")
    body = f'T.async:schedule{{ onexecute = function() local f = io.open("{hold.path}") f:read("*a") f:close() end }}'
    script = write(tmp_path, on_file(body, rest=f"async_queue_limit = {own}"))
    async with Engine([script], config=Config(queue_limit=engines, slice_seconds=0.0001)) as engine:
        reading = asyncio.ensure_future(engine.run(Capture(made.path)))
        await hold.entered()
        await turns(1000)  # more than it takes to read all of it
        assert 20 < engine.stats.tasks.pending <= 40
        while not reading.done():
            if hold.runs():
                hold.release()
            await asyncio.sleep(0)
        await reading
    assert engine.stats.tasks.rejected == 0
    assert engine.stats.tasks.completed >= len(made.files)


async def test_scripts_loaded_for_other_things_do_not_change_the_records(small: Synthesis, tmp_path: Path) -> None:
    other = write(tmp_path, plugin("onload = function() end"), "other.lua")
    alone, _ = await run_capture(small.path)
    beside, _ = await run_capture(small.path, [other])
    assert list(comparable(alone.records)) == list(comparable(beside.records))
