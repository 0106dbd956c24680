"""Whatever is broken - captures, scripts, workers, disks - is counted, contained, and leaves nothing behind."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import pytest

from engine import Capture, CaptureError, Config, Engine, Script
from engine.capture.synth import Synthesis, synthesize
from engine.plugins.blocks import BLOCKS
from engine.values.groups import HTTP_DOCUMENTS
from engine.values.stats import DecodeStats, PluginStats
from engine.values.windows import CounterGroup, GroupWindow, Meter, MeterType, Toppers, Window
from tests.scripts import (
    ALERTS,
    HASHES,
    Collector,
    assert_counts_close,
    files_below,
    on_event,
    on_file,
    on_file_hash,
    plugin,
    write,
)
from tests.support import eventually, no_threads_left

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    return synthesize(tmp_path_factory.mktemp("made") / "c.pcap", files=8, seed=11, faults=True)


async def survive(tmp_path: Path, captures: Iterable[bytes], scripts: Iterable[Path] = ()) -> list[DecodeStats]:
    """Read captures that may be broken, one after the other; all of each is counted and nothing stays. The counts."""
    place, ramfs = tmp_path / "broken.pcap", tmp_path / "ram"
    counts: list[DecodeStats] = []
    with no_threads_left():
        async with Engine(scripts, config=Config(ramfs=ramfs), sinks=[Collector()]) as engine:
            for capture in captures:
                place.write_bytes(capture)
                before = engine.stats.decode
                try:
                    await engine.run(Capture(place))
                except CaptureError as exc:
                    assert str(place) in str(exc)
                assert_counts_close(engine.stats)
                assert files_below(ramfs) == []
                after = engine.stats.decode
                counts.append(
                    DecodeStats(*(getattr(after, each.name) - getattr(before, each.name) for each in fields(after)))
                )
        assert engine.stats.script_errors == 0
    return counts


@pytest.mark.parametrize("seed", range(3))
async def test_a_truncated_capture_is_read_as_far_as_it_goes(made: Synthesis, tmp_path: Path, seed: int) -> None:
    whole = made.path.read_bytes()
    rng = random.Random(seed)
    lengths = sorted(rng.randrange(24, len(whole)) for _ in range(20))
    script = write(tmp_path, on_file("assert(length >= 0)"))
    counts = await survive(tmp_path, [whole[:length] for length in lengths], [script])
    packets = [each.decoded for each in counts]
    assert packets == sorted(packets)
    assert packets[0] < packets[-1] <= made.packets
    assert all(each.malformed <= 1 for each in counts)


async def test_every_cut_within_the_first_records_is_survived(made: Synthesis, tmp_path: Path) -> None:
    whole = made.path.read_bytes()
    counts = await survive(tmp_path, (whole[:length] for length in (*range(60), *range(60, 4_000, 17))))
    packets = [each.decoded for each in counts]
    assert packets == sorted(packets)
    assert packets[0] == 0 < packets[-1]
    assert {each.malformed for each in counts} == {0, 1}


@pytest.mark.parametrize("seed", range(3))
async def test_random_bytes_behind_a_header_are_survived(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    magics = (
        b"\xd4\xc3\xb2\xa1",
        b"\xa1\xb2\xc3\xd4",
        b"\x4d\x3c\xb2\xa1",
        b"\x0a\x0d\x0d\x0a",
        b"\x1f\x8b\x08\0",
        b"",
    )
    captures = [magic + rng.randbytes(rng.randrange(20, 4_000)) for magic in magics * 5]
    assert len(await survive(tmp_path, captures)) == 30


async def test_random_packets_are_counted_one_by_one(tmp_path: Path) -> None:
    rng = random.Random(0)
    captures = []
    for link_type in (0, 1, 101, 113, 147, 228, 229, 276):
        records = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, link_type)]
        for number in range(300):
            packet = rng.randbytes(rng.randrange(0, 120))
            if rng.random() < 0.7:  # something that looks like IPv4 over Ethernet
                packet = rng.randbytes(12) + b"\x08\x00" + bytes([0x45 + rng.randrange(11)]) + packet
            records.append(struct.pack("<IIII", number, 0, len(packet), len(packet)) + packet)
        captures.append(b"".join(records))
    counts = await survive(tmp_path, captures)
    assert [each.packets for each in counts] == [300] * len(captures)
    assert counts[4].undecoded == 300  # a link type that nobody knows


@pytest.mark.parametrize("seed", range(3))
async def test_flipped_bytes_in_a_good_capture_are_survived(made: Synthesis, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    captures = []
    for flips in (1, 10, 100, 1_000):
        broken = bytearray(made.path.read_bytes())
        for _ in range(flips):
            broken[rng.randrange(24, len(broken))] = rng.randrange(256)
        captures.append(bytes(broken))
    await survive(tmp_path, captures, [write(tmp_path, on_file("assert(length >= 0)"))])


LENGTHS = [0, 1, 13, 14, 33, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 20, 262_145]


async def test_records_that_lie_about_their_length_are_counted(tmp_path: Path) -> None:
    """The second of three records announces a length that is not so."""
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)
    address = bytes.fromhex("450000280000000040060000 0a000001 0a000002")
    packet = b"\x02" * 12 + b"\x08\x00" + address + bytes.fromhex("9c400050 00000001 00000000 5002ffff 00000000")
    good = struct.pack("<IIII", 1, 0, len(packet), len(packet)) + packet
    lies = [(length, wire) for length in LENGTHS for wire in (0, 60, 0xFFFF_FFFF)]
    captures = [head + good + struct.pack("<IIII", 2, 0, length, wire) + packet + good for length, wire in lies]
    honest, *counts = await survive(tmp_path, [head + good * 3, *captures])
    assert (honest.packets, honest.decoded) == (3, 3)
    for lie, each in zip(lies, counts, strict=True):
        assert each.decoded >= 1, lie
        assert each.malformed >= 1, lie


TCP = "{77E462AB-2E42-42EC-9A58-C1A6821D6B31}"
OWN = "{0B6B9F4C-5F0B-4C6B-9B1B-1B7A1F0C2D3E}"


def failing(block: str) -> str:
    """A script of which every hook of a block raises."""
    hooks = ", ".join(f"{hook} = function() error('{hook} fails') end" for hook in sorted(BLOCKS[block].hooks))
    group = {
        "alert_monitor": f"alert_guid = '{ALERTS}',",
        "resource_monitor": f"resource_guid = '{HASHES}',",
        "fts_monitor": f"fts_guid = '{HTTP_DOCUMENTS}',",
        "cg_monitor": f"counter_guid = '{OWN}',",
        "simplecounter": f"protocol_guid = '{TCP}',",
        "protocol_handler": (
            f"control = {{ guid = '{OWN}', host_protocol_guid = '{TCP}', host_protocol_ports = {{ 80 }} }},"
        ),
    }
    return plugin(
        f"onmessage = function() error('onmessage fails') end, {block} = {{ {group.get(block, '')} {hooks} }}",
        clsid=OWN,
    )


CAUSE = (
    f'engine:add_alert("{ALERTS}", nil, "s", 1, "m") engine:add_resource("{HASHES}", "", "u", "") '
    'engine:post_message_frontend("m") engine:post_message_backend("m") engine:update_flow("f", 4, 1)'
    f'engine:update_counter("{OWN}", "k", 0, 1) T.host:broadcast("m", "{OWN}", "m")'
)


def window() -> Window:
    """With a key and a topper for monitors of counters."""
    group = CounterGroup(OWN, "own", "", (Meter(0, MeterType.COUNTER, "m"),))
    return Window(0, 0.0, 60.0, (GroupWindow(group, {"k": (1.0,)}, {}, (Toppers(0, (("k", 1.0),)),)),))


def failing_stats(engine: Engine) -> PluginStats:
    (counts,) = [each for each in engine.stats.plugins if each.script == "failing.lua"]
    return counts


@pytest.mark.parametrize("block", sorted(BLOCKS.keys() - {"simulation"}))  # that one has no hooks outside simulations
async def test_a_script_that_fails_in_every_hook_disturbs_nobody(made: Synthesis, tmp_path: Path, block: str) -> None:
    ramfs = tmp_path / "ram"
    scripts = [
        write(tmp_path, failing(block), "failing.lua"),
        write(tmp_path, on_event(CAUSE), "cause.lua"),
        write(tmp_path, on_file_hash(), "hash.lua"),
    ]
    collector = Collector()
    with no_threads_left():
        config = Config(ramfs=ramfs, chunk_bytes=1 << 30, store=tmp_path / "store")
        async with Engine(scripts, config=config, sinks=[collector]) as engine:
            assert engine.load_errors == ()
            await engine.emit_batch("t", ["x"] * 3)
            await engine.run(Capture(made.path))
            if block == "inputfilter":
                await engine.run(Script(scripts[0]))
            if BLOCKS[block].side == "backend":
                await engine.flush(window())
                await eventually(lambda: "onmetronome" in {hook.name for hook in failing_stats(engine).hooks})
    counts = failing_stats(engine)
    failed = {each.name for each in counts.hooks if each.errors}
    assert failed >= BLOCKS[block].hooks | {"onmessage"}
    assert all(each.errors == each.calls for each in counts.hooks if each.name in failed)
    assert engine.stats.script_errors == sum(each.errors for each in counts.hooks)
    for hook in BLOCKS[block].hooks:
        line = next(each for each in collector.logged("ERROR") if each.startswith(f"{block}.{hook}: "))
        assert f"failing.lua:1: {hook} fails" in line or f"failing.lua:2: {hook} fails" in line
    hashes = {each.uri for each in collector.of("resource")}
    assert {each.sha256 for each in made.files if each.complete} <= hashes
    assert_counts_close(engine.stats)
    assert files_below(ramfs) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "error('plain')",
        "error({ 1 })",
        "error(nil)",
        "local x = nil; x.y = 1",
        "string.rep('x', -1, {})",
        "return f(f)",
    ],
)
async def test_a_worker_that_raises_fails_its_task_only(tmp_path: Path, wrong: str) -> None:
    body = (
        f"T.async:schedule{{ data = event, onexecute = function(d) if tonumber(d) % 2 == 1 then {wrong} end "
        "return d end, onresult = function(engine, d, r) T.loginfo(r) end }"
    )
    collector = Collector()
    with no_threads_left():
        async with Engine([write(tmp_path, on_event(body))], sinks=[collector]) as engine:
            await engine.emit_batch("t", [str(number) for number in range(100)])
    assert collector.logged() == [str(number) for number in range(0, 100, 2)]
    assert (engine.stats.tasks.completed, engine.stats.tasks.failed) == (50, 50)
    assert_counts_close(engine.stats)


async def test_a_stack_that_overflows_is_an_error_like_any_other(tmp_path: Path) -> None:
    script = on_event("local function f() return 1 + f() end if event == 'deep' then f() end T.loginfo(event)")
    collector = Collector()
    async with Engine([write(tmp_path, script)], sinks=[collector]) as engine:
        await engine.emit_batch("t", ["a", "deep", "b"])
    assert collector.logged() == ["a", "b"]
    assert engine.stats.events.failed == engine.stats.script_errors == 1


FULL_DISK = """
import asyncio, json, resource, signal, sys
from pathlib import Path
from engine import Capture, Config, Engine
from tests.scripts import Collector, assert_counts_close, files_below
folder, capture = Path(sys.argv[1]), Path(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
async def main():
    collector = Collector()
    config = Config(ramfs=folder / "ram")
    async with Engine([folder / "script.lua"], config=config, sinks=[collector]) as engine:
        await engine.run(Capture(capture))
    assert_counts_close(engine.stats)
    left = [path.name for path in files_below(folder / "ram")]
    copies = {path.name: path.stat().st_size for path in files_below(folder / "out")}
    print(json.dumps([left, copies, engine.stats.flat(), collector.logged("ERROR")]))
asyncio.run(main())
"""


def on_a_full_disk(
    tmp_path: Path, script: str, made: Synthesis
) -> tuple[list[str], dict[str, int], dict[str, int], list[str]]:
    """Run a script over a capture where no file may grow past 20,000 bytes."""
    write(tmp_path, script)
    (tmp_path / "out").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), str(made.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    left, copies, counts, errors = json.loads(done.stdout)
    return left, copies, counts, errors


def test_a_full_disk_under_extracted_files_is_counted(made: Synthesis, tmp_path: Path) -> None:
    script = on_file(f'T.async:copy(path, "{tmp_path}/out/" .. path:match("[^/]+$"))')
    left, copies, counts, _ = on_a_full_disk(tmp_path, script, made)
    too_big = [each for each in made.files if each.size > 20_000]
    assert too_big
    assert counts["write_errors"] >= len([each for each in too_big if each.complete])
    assert left == []
    assert all(size <= 20_000 for size in copies.values())
    assert counts["tasks_completed"] == len(copies) == counts["tasks_submitted"]
    assert counts["files"] == len(made.files)


def test_a_full_disk_under_the_target_of_a_copy_leaves_the_old_one(made: Synthesis, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    source, old, target = tmp_path / "source", b"old" * 5_000, tmp_path / "out" / "target"
    source.write_bytes(b"x" * 100_000)
    target.write_bytes(old)
    body = (
        f'if T.done then return end T.done = true T.async:copy("{source}", "{target}") '
        f'T.async:cat("{source}", "{target}") '
        f'T.async:copybuffer(string.rep("y", 30000), "{target}") T.async:copybuffer("Y", "{target}", 25000)'
    )
    left, copies, counts, errors = on_a_full_disk(tmp_path, on_file(body), made)
    assert target.read_bytes() == old
    assert copies == {"target": len(old)}
    assert (counts["tasks_submitted"], counts["tasks_failed"]) == (4, 4)
    assert len([line for line in errors if "File too large" in line]) == 4
    assert left == []


async def test_ten_thousand_tasks_and_an_immediate_stop(tmp_path: Path) -> None:
    one = "T.async:schedule{ data = i, onexecute = function(d) return d end, onresult = function() end }"
    body = f"for i = 1, 10000 do {one} end"
    with no_threads_left():
        async with Engine([write(tmp_path, on_event(body))], config=Config(drain_seconds=0)) as engine:
            await engine.emit("t", "go")
        tasks = engine.stats.tasks
    assert tasks.submitted == 10_000
    assert tasks.abandoned > 0
    assert_counts_close(engine.stats)


async def test_a_worker_that_was_given_up_does_no_more_than_the_task_in_hand(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    one = f'local f = io.open("{marks}", "a") f:write("x") f:close() os.execute("sleep 0.05")'
    body = f"for i = 1, 40 do T.async:schedule{{ onexecute = function() {one} end }} end"
    with no_threads_left():
        async with Engine([write(tmp_path, on_event(body))], config=Config(drain_seconds=0)) as engine:
            await engine.emit("t", "go")
            await eventually(marks.exists)
    assert engine.stats.tasks.abandoned >= 35
    assert len(marks.read_bytes()) < 10


async def test_everything_at_once_and_an_exception(made: Synthesis, tmp_path: Path) -> None:
    """Events, messages, tasks and files under way when the block is left by an exception."""
    ramfs = tmp_path / "ram"
    work = 'T.async:schedule{ onexecute = function() os.execute("sleep 0.005") end } engine:post_message_frontend("m")'
    scripts = [
        write(tmp_path, on_event(work, rest="onmessage = function() end"), "events.lua"),
        write(tmp_path, on_file(work), "files.lua"),
    ]
    with no_threads_left(), pytest.raises(KeyError):
        async with Engine(scripts, config=Config(ramfs=ramfs, event_limit=500, drain_seconds=0)) as engine:
            for number in range(1_000):
                engine.emit_nowait("t", str(number))
            await engine.run(Capture(made.path))
            await eventually(lambda: engine.stats.tasks.submitted > 100)
            engine.emit_nowait("t", "last")
            raise KeyError
    assert engine.stats.events.dropped > 0
    assert engine.stats.tasks.abandoned > 0
    assert_counts_close(engine.stats)
    assert files_below(ramfs) == []
