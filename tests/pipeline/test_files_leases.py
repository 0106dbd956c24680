"""Extracted files: they stay while the hook they were given to has work under way, and go when it is done."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine import Capture, Config, Engine
from engine.capture.packets import Endpoint, PcapWriter, TcpConversation
from engine.capture.synth import synthesize
from tests.scripts import Collector, assert_counts_close, files_below, on_file, run_capture, write
from tests.support import eventually

BODY = bytes(range(256)) * 40

# Waits in a worker until a file named in the data exists, at most ten seconds.
WAIT = """
local function wait_for(gate)
  for _ = 1, 1000 do
    local file = io.open(gate)
    if file then return file:close() end
    os.execute("sleep 0.01")
  end
  error("the gate was never opened")
end
local function size_of(path)
  local file = assert(io.open(path, "rb"))
  local size = file:seek("end")
  file:close()
  return size
end
"""


def capture_of(path: Path, *bodies: bytes) -> Path:
    """A capture with one connection that downloads these bodies, one after the other."""
    conversation = TcpConversation(Endpoint("10.0.0.1", 40_000), Endpoint("10.0.0.2", 80))
    segments = conversation.open()
    for number, body in enumerate(bodies):
        segments += conversation.send(True, b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
        segments += conversation.send(False, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    segments += conversation.close(client_first=True)
    with path.open("wb") as stream:
        writer = PcapWriter(stream)
        for number, segment in enumerate(segments):
            writer.write(1_700_000_000_000_000_000 + number * 1_000_000, conversation.frame(segment))
    return path


async def test_without_work_a_file_is_gone_when_the_run_is_over(tmp_path: Path) -> None:
    ramfs = tmp_path / "ram"
    script = write(tmp_path, on_file("T.loginfo(size_of(path) .. ' ' .. length)", before=WAIT))
    collector = Collector()
    async with Engine([script], config=Config(ramfs=ramfs), sinks=[collector]) as engine:
        await engine.run(Capture(capture_of(tmp_path / "c.pcap", BODY, b"x")))
        assert files_below(ramfs) == []
    assert collector.logged() == [f"{len(BODY)} {len(BODY)}", "1 1"]


async def test_a_file_stays_until_every_task_of_its_hook_is_done(tmp_path: Path) -> None:
    """Three generations of tasks: from the hook, from its onresult, and from the onresult of that one."""
    ramfs = tmp_path / "ram"
    body = """
    local function generation(number)
      T.async:schedule{
        data = path,
        onexecute = function(p) wait_for(gates .. number) return tostring(size_of(p)) end,
        onresult = function(engine, p, size)
          T.loginfo(number .. ":" .. size)
          if number < 3 then generation(number + 1) end
        end,
      }
    end
    generation(1)
    """
    script = write(tmp_path, on_file(body, before=WAIT + f'local gates = "{tmp_path}/gate"'))
    collector = Collector()
    async with Engine([script], config=Config(ramfs=ramfs, drain_seconds=0), sinks=[collector]) as engine:
        await engine.run(Capture(capture_of(tmp_path / "c.pcap", BODY)))
        for number in (1, 2, 3):
            assert [path.stat().st_size for path in files_below(ramfs)] == [len(BODY)]
            (tmp_path / f"gate{number}").touch()
            await eventually(lambda number=number: len(collector.logged()) == number)
        await eventually(lambda: files_below(ramfs) == [])
        assert engine.stats.tasks.pending == 0
    assert collector.logged() == [f"{number}:{len(BODY)}" for number in (1, 2, 3)]
    assert collector.logged("ERROR") == []


async def test_each_file_goes_with_its_own_work(tmp_path: Path) -> None:
    ramfs = tmp_path / "ram"
    body = (
        'if req:get_path() == "/1" then '
        "T.async:schedule{ data = path, onexecute = function(p) wait_for(gate) return tostring(size_of(p)) end, "
        "onresult = function(engine, p, r) T.loginfo(r) end } end"
    )
    script = write(tmp_path, on_file(body, before=WAIT + f'local gate = "{tmp_path}/gate"'))
    collector = Collector()
    async with Engine([script], config=Config(ramfs=ramfs, drain_seconds=0), sinks=[collector]) as engine:
        await engine.run(Capture(capture_of(tmp_path / "c.pcap", b"first", BODY, b"third")))
        assert [path.stat().st_size for path in files_below(ramfs)] == [len(BODY)]
        (tmp_path / "gate").touch()
        await eventually(lambda: files_below(ramfs) == [])
    assert collector.logged() == [str(len(BODY))]


async def test_a_failing_task_lets_its_file_go(tmp_path: Path) -> None:
    ramfs = tmp_path / "ram"
    body = (
        "T.async:schedule{ onexecute = function() error('no') end } "
        "T.async:schedule{ timeout = 0.02, onexecute = function() os.execute('sleep 0.1') end } "
        "T.async:copy(path, '/nonexistent/folder/x')"
    )
    async with Engine([write(tmp_path, on_file(body))], config=Config(ramfs=ramfs)) as engine:
        await engine.run(Capture(capture_of(tmp_path / "c.pcap", BODY)))
        assert engine.stats.tasks.failed == 3
        assert files_below(ramfs) == []
    assert_counts_close(engine.stats)


async def test_a_rejected_task_keeps_no_file(tmp_path: Path) -> None:
    ramfs = tmp_path / "ram"
    body = "for _ = 1, 5 do T.async:schedule{ onexecute = function() end } end"
    config = Config(ramfs=ramfs, queue_limit=1)
    async with Engine([write(tmp_path, on_file(body))], config=config) as engine:
        await engine.run(Capture(capture_of(tmp_path / "c.pcap", BODY)))
        assert files_below(ramfs) == []
    assert engine.stats.tasks.rejected == 4
    assert_counts_close(engine.stats)


async def test_file_operations_take_the_file_before_it_goes(tmp_path: Path) -> None:
    body = f'T.async:copy(path, "{tmp_path}/copy" .. req:get_path():sub(2)) T.async:cat(path, "{tmp_path}/all")'
    bodies = (BODY, b"", b"tail")
    _, stats = await run_capture(capture_of(tmp_path / "c.pcap", *bodies), [write(tmp_path, on_file(body))])
    assert [(tmp_path / f"copy{number}").read_bytes() for number in range(3)] == list(bodies)
    assert (tmp_path / "all").read_bytes() == b"".join(bodies)
    assert stats.tasks.completed == 6


async def test_two_scripts_share_a_file_and_the_slower_one_keeps_it(tmp_path: Path) -> None:
    ramfs = tmp_path / "ram"
    quick = write(tmp_path, on_file("T.async:schedule{ onexecute = function() end }"), "quick.lua")
    slow = on_file("T.async:schedule{ onexecute = function() wait_for(gate) return tostring(size_of(path)) end, "
                   "onresult = function(engine, d, r) T.loginfo(r) end }",
                   before=WAIT + f'local gate = "{tmp_path}/gate"')  # fmt: skip
    collector = Collector()
    scripts = [quick, write(tmp_path, slow, "slow.lua")]
    async with Engine(scripts, config=Config(ramfs=ramfs, drain_seconds=0), sinks=[collector]) as engine:
        await engine.run(Capture(capture_of(tmp_path / "c.pcap", BODY)))
        await eventually(lambda: engine.stats.tasks.completed == 1)
        assert len(files_below(ramfs)) == 1
        (tmp_path / "gate").touch()
        await eventually(lambda: files_below(ramfs) == [])
    assert collector.logged() == [str(len(BODY))]


@pytest.mark.parametrize(("size", "parts"), [(1_000, []), (1_001, [1_000, 1]), (2_000, [1_000] * 2), (2_500, None)])
async def test_a_body_over_chunk_bytes_comes_in_parts(tmp_path: Path, size: int, parts: list[int] | None) -> None:
    parts = [1_000, 1_000, 500] if parts is None else parts
    body = (
        "T.loginfo(length .. ' ' .. tostring(is_partial) .. ' ' .. (path:match('%.%d+%.part$') or '')) "
        f'T.async:cat(path, "{tmp_path}/whole")'
    )
    ramfs = tmp_path / "ram"
    capture = capture_of(tmp_path / "c.pcap", BODY[:size])
    config = Config(chunk_bytes=1_000, ramfs=ramfs)
    collector, _ = await run_capture(capture, [write(tmp_path, on_file(body))], config)
    expected = [f"{part} true .{number * 1_000}.part" for number, part in enumerate(parts)] or [f"{size} false "]
    assert collector.logged() == expected
    assert (tmp_path / "whole").read_bytes() == BODY[:size]
    assert [each.size for each in collector.of("file")] == [size]
    assert files_below(ramfs) == []


async def test_work_that_is_given_up_leaves_no_file(tmp_path: Path) -> None:
    ramfs = tmp_path / "ram"
    body = "T.async:schedule{ data = path, onexecute = function(p) os.execute('sleep 0.1') end }"
    made = synthesize(tmp_path / "c.pcap", files=10, seed=4)
    async with Engine([write(tmp_path, on_file(body))], config=Config(ramfs=ramfs, drain_seconds=0)) as engine:
        await engine.run(Capture(made.path))
        assert files_below(ramfs)
    assert files_below(ramfs) == []
    assert engine.stats.tasks.abandoned > 0
    assert_counts_close(engine.stats)


async def test_an_unloaded_script_keeps_its_files_until_its_work_is_done(tmp_path: Path) -> None:
    ramfs = tmp_path / "ram"
    keep = f'os.execute("cp " .. path .. " {tmp_path}/kept")'
    body = f"T.async:schedule{{ onexecute = function() wait_for(gate) {keep} end }}"
    script = write(tmp_path, on_file(body, before=WAIT + f'local gate = "{tmp_path}/gate"'), "gone.lua")
    async with Engine([script], config=Config(ramfs=ramfs)) as engine:
        reading = asyncio.create_task(engine.run(Capture(capture_of(tmp_path / "c.pcap", BODY))))
        await eventually(lambda: engine.stats.tasks.pending == 1)
        await engine.unload("gone.lua")
        assert len(files_below(ramfs)) == 1
        (tmp_path / "gate").touch()
        await reading
        await eventually(lambda: files_below(ramfs) == [])
    assert (tmp_path / "kept").read_bytes() == BODY


async def test_a_fresh_directory_is_gone_after_the_block(tmp_path: Path) -> None:
    script = write(tmp_path, on_file("T.loginfo(path)"))
    collector, _ = await run_capture(capture_of(tmp_path / "c.pcap", BODY), [script])
    (path,) = map(Path, collector.logged())
    assert path.name
    assert not path.parent.exists()


async def test_foreign_files_in_a_given_directory_stay(tmp_path: Path) -> None:
    ramfs = tmp_path / "ram"
    ramfs.mkdir()
    (ramfs / "foreign").write_bytes(b"mine")
    script = write(tmp_path, on_file(""))
    await run_capture(capture_of(tmp_path / "c.pcap", BODY), [script], Config(ramfs=ramfs))
    assert files_below(ramfs) == [ramfs / "foreign"]
