"""Folders, replays and pipes: the records are those of the plain capture, and nothing stays behind."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from engine import Capture, CaptureError, Config, ConfigError, Engine, EngineError
from engine.capture.synth import Synthesis, synthesize
from engine.sources import Captures, Live, Pipe, Replay
from engine.values.records import File, Record
from engine.values.sources import Source
from engine.values.stats import EngineStats
from tests.capture.packets import pcap, tcp, udp
from tests.scripts import Collector, assert_counts_close, engine_threads, files_below, on_file, plugin, run_alone, write
from tests.support import eventually, no_threads_left

A, B = ("10.0.0.1", 40000), ("10.0.0.2", 80)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    return synthesize(tmp_path_factory.mktemp("made") / "c.pcap", files=30, seed=5, faults=True)


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fail when descriptors, mappings of captures or buffers, or threads stay."""
    with no_threads_left():
        before = held()
        yield
        assert held() == before


def held() -> tuple[int, list[str]]:
    """Open descriptors, and what is mapped besides libraries and plain memory."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    sources = [each.split(maxsplit=5)[-1] for each in maps if "pcap" in each or "offpath-" in each or "socket:" in each]
    return len(list(Path("/proc/self/fd").iterdir())), sources


async def read(source: Source, scripts: list[Path] | None = None) -> tuple[list[Record], EngineStats, Collector]:
    """All records of a source but the summary, whose seconds differ from run to run, as do folders of files."""
    collector = Collector()
    async with Engine(scripts or [], config=Config(slow_hook_seconds=60), sinks=[collector]) as engine:
        await engine.run(source)
    assert_counts_close(engine.stats)
    collector.records = [
        replace(each, path=Path(each.path).name) if isinstance(each, File) else each
        for each in collector.records
        if each.kind != "summary"
    ]
    return collector.records, engine.stats, collector


def untimed(records: list[Any]) -> Counter[Record]:
    return Counter(replace(each, time=0.0) for each in records)


def telling(tmp_path: Path) -> list[Path]:
    """A script whose log lines have the stream time in them, and stand among the other records."""
    return [write(tmp_path, on_file("T.log(req:get_path() .. ' ' .. tostring(ts))"))]


def split(capture: Path, folder: Path, parts: int) -> list[Path]:
    """Cut a capture into several, with as many packets in each."""
    data, records, at = capture.read_bytes(), [], 24
    while at < len(data):
        length = struct.unpack_from("<I", data, at + 8)[0] + 16
        records.append(data[at : at + length])
        at += length
    folder.mkdir()
    size = -(-len(records) // parts)
    paths = [folder / f"part.pcap{number}" for number in range(parts)]
    for number, path in enumerate(paths):
        path.write_bytes(data[:24] + b"".join(records[number * size : (number + 1) * size]))
    return paths


async def test_a_rotated_capture_is_one(made: Synthesis, tmp_path: Path) -> None:
    paths = split(made.path, tmp_path / "caps", 12)
    for number, path in enumerate(paths):  # every other one compressed
        pack: Callable[[bytes], bytes] = (bytes, gzip.compress, zstandard.compress)[number % 3]
        path.write_bytes(pack(path.read_bytes()))
    _, whole, one = await read(Capture(made.path), telling(tmp_path))
    with nothing_left():
        _, stats, several = await read(Captures(tmp_path / "caps"), telling(tmp_path))
    assert several.of("flow") == one.of("flow")
    for kind in ("file", "http"):  # a batch ends with its file, so what came in one may have come in two
        assert untimed(several.of(kind)) == untimed(one.of(kind))
    assert stats.decode == whole.decode
    assert stats.http == whole.http
    assert (stats.source.files, stats.source.skipped, whole.source.files) == (12, 0, 1)
    _, listed, _ = await read(Captures(list(reversed(paths))))
    assert listed.decode.packets == made.packets


CUTTER = """
TrisulPlugin = { id = { name = "cutter" }, simplecounter = {
  protocol_guid = "{0A2C724B-5B9F-4BA6-9C97-B05080558574}",
  onpacket = function() T.host.call.cut() end } }
"""


async def test_a_capture_that_is_shortened_while_it_is_read_ends_there(tmp_path: Path) -> None:
    path = tmp_path / "short.pcap"
    path.write_bytes(pcap([(at, udp(A, B, bytes(1000))) for at in range(500)]))
    script = tmp_path / "cutter.lua"
    script.write_text(CUTTER)
    collector = Collector()
    with nothing_left():
        async with Engine([script], sinks=[collector]) as engine:
            engine.expose("cut", lambda: os.truncate(path, 100))
            with pytest.raises(CaptureError, match=r"short\.pcap.*was shortened while it was read"):
                await engine.run(Capture(path))
            assert not engine.stats.script_errors
    assert 0 < engine.stats.decode.packets < 500
    [flow] = collector.of("flow")
    assert flow.a_packets + flow.z_packets == engine.stats.decode.packets
    assert_counts_close(engine.stats)


async def test_what_is_no_capture_in_a_folder_is_told_and_skipped(made: Synthesis, tmp_path: Path) -> None:
    split(made.path, tmp_path / "caps", 3)
    (tmp_path / "caps" / "notes").write_bytes(b"this is no capture")
    (tmp_path / "caps" / "cut.gz").write_bytes(gzip.compress(pcap([(0, udp(A, B))] * 100), 0)[:-20])
    _, stats, collector = await read(Captures([tmp_path / "caps"]))
    warned = [(Path(each.script).name, each.text) for each in collector.of("log")]
    assert warned == [
        ("notes", "is neither pcap nor pcapng, it starts with 74 68 69 73: skipped"),
        ("cut.gz", "the gzip stream in it ends early or is broken"),
    ]
    assert (stats.source.files, stats.source.skipped) == (4, 1)
    assert made.packets < stats.decode.packets <= made.packets + 100


async def test_a_file_that_goes_away_meanwhile_is_skipped(made: Synthesis, tmp_path: Path) -> None:
    paths = split(made.path, tmp_path / "caps", 3)
    script = write(tmp_path, on_file(f'os.remove("{paths[2]}")'))
    _, stats, collector = await read(Captures([tmp_path / "caps"]), [script])
    assert collector.logged("WARN") == ["No such file or directory: skipped"]
    assert (stats.source.files, stats.source.skipped) == (2, 1)


@pytest.mark.parametrize("source", [Captures, Replay])
async def test_an_empty_folder_is_an_error_and_the_engine_goes_on(
    made: Synthesis, tmp_path: Path, source: Callable[[Path], Source]
) -> None:
    (tmp_path / "caps").mkdir()
    with nothing_left():
        async with Engine() as engine:
            with pytest.raises(CaptureError, match="is a folder without captures"):
                await engine.run(source(tmp_path / "caps"))
            await engine.run(Capture(made.path))
            assert engine.stats.decode.packets == made.packets


# ---- replay


class Rush(asyncio.SelectorEventLoop):
    """A loop whose clock goes on at once to the next timer when there is nothing to do."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def rush(timeout: float | None = None) -> Any:
            events = select(timeout if timeout is None or timeout <= 0 else 0)
            if not events and timeout is not None and timeout > 0:
                self.skipped += timeout
            return events

        self._selector.select = rush  # type: ignore[attr-defined]

    def time(self) -> float:
        return super().time() + self.skipped


def rushing(main: Callable[[Rush], Awaitable[None]]) -> None:
    """Run a coroutine on such a loop."""
    loop = Rush()

    async def run() -> None:
        await main(loop)

    run_alone(lambda: loop, run())


@pytest.mark.parametrize("speed", [1, 2.5, 1000])
def test_a_replay_takes_as_long_as_the_capture_and_gives_its_records(
    made: Synthesis, tmp_path: Path, speed: float
) -> None:
    async def main(loop: Rush) -> None:
        plain, counts, _ = await read(Capture(made.path), telling(tmp_path))
        flows = [each for each in plain if each.kind == "flow"]
        span = max(each.end for each in flows) - min(each.start for each in flows)
        before = loop.skipped
        replayed, stats, _ = await read(Replay(made.path, speed), telling(tmp_path))
        assert replayed == plain
        assert stats.decode == counts.decode
        assert span - 1 <= (loop.skipped - before) * speed + 1e-6 <= span * 1.01 + 10 * speed

    rushing(main)


def test_hooks_of_a_replay_run_when_their_packets_come(tmp_path: Path) -> None:
    path = tmp_path / "c.pcap"
    path.write_bytes(pcap([(1000.0 + at, udp(A, B, b"x")) for at in (0, 0.125, 10, 40)]))

    async def main(loop: Rush) -> None:
        seen: list[tuple[float, float]] = []
        async with Engine() as engine:
            follow = engine._pipeline.clock.follow
            engine._pipeline.clock.follow = lambda now: (seen.append((now - 1000, loop.time())), follow(now))  # type: ignore
            await engine.run(Replay(path, 2.0))
        first = dict(reversed(seen))  # a time is followed twice where packets wait for a window
        assert sorted(first) == [0.125, 10, 40]
        assert [at - first[0.125] for _, at in sorted(first.items())] == pytest.approx([0, 4.9375, 19.9375], abs=1)

    rushing(main)


def test_a_capture_can_be_replayed_several_times(made: Synthesis, tmp_path: Path) -> None:
    split(made.path, tmp_path / "caps", 3)

    async def main(loop: Rush) -> None:
        _, once, one = await read(Capture(made.path))
        _, stats, thrice = await read(Replay([tmp_path / "caps"], 10, loops=3))
        assert stats.decode.packets == 3 * once.decode.packets
        assert stats.decode.flows == once.decode.flows
        assert stats.source.files == 9
        first, last = one.of("flow"), thrice.of("flow")
        span = max(each.end for each in first) - min(each.start for each in first)
        assert max(each.end for each in last) == pytest.approx(max(each.end for each in first) + 2 * span)

    rushing(main)


async def test_files_of_every_pass_are_seen(made: Synthesis, tmp_path: Path) -> None:
    _, once, _ = await read(Capture(made.path), telling(tmp_path))
    _, stats, _ = await read(Replay(made.path, 1e9, loops=2), telling(tmp_path))
    assert stats.http.files == 2 * once.http.files
    assert stats.decode.streams == 2 * once.decode.streams


@pytest.mark.parametrize("cancel", [True, False])
async def test_a_replay_can_be_left_while_it_waits(tmp_path: Path, cancel: bool) -> None:
    path = tmp_path / "c.pcap"
    path.write_bytes(pcap([(0.0, udp(A, B)), (1e6, udp(A, B))]))
    collector = Collector()
    with nothing_left():
        async with Engine(sinks=[collector]) as engine:
            job = asyncio.ensure_future(engine.run(Replay(path)))
            await eventually(lambda: engine.stats.decode.packets == 2)
            if cancel:
                job.cancel()
                with suppress(asyncio.CancelledError):
                    await job
                assert job.cancelled()
            else:
                engine.end_source()
                await job
                assert len(collector.of("flow")) == 2


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), float("nan"), True, "2"])
def test_a_speed_is_a_number_above_0(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="speed must be"):
        Replay("c.pcap", wrong)


def test_what_sources_refuse() -> None:
    for make, match in (
        (lambda: Replay("c.pcap", loops=0), "loops must be"),
        (lambda: Captures([]), "at least one"),
        (lambda: Live(""), "interface must be"),
        (lambda: Live("lo", seconds=-1), "seconds must be"),
        (lambda: Live("lo", packets=0), "packets must be"),
        (lambda: Live("lo", ring_mb=1 << 20), "ring_mb must be at most"),
    ):
        with pytest.raises(ConfigError, match=match):
            make()


# ---- pipes


@contextmanager
def pipe_from(data: bytes, chunk: int = 1 << 16) -> Iterator[int]:
    """A pipe into which a thread writes, and which it then closes."""
    read_end, write_end = os.pipe()

    def fill() -> None:
        with suppress(BrokenPipeError):
            for at in range(0, len(data), chunk):
                os.write(write_end, data[at : at + chunk])
        os.close(write_end)

    writer = threading.Thread(target=fill)
    writer.start()
    try:
        yield read_end
    finally:
        os.close(read_end)
        writer.join()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("chunk", [1 << 16, 1021])
async def test_a_pipe_gives_the_records_of_the_file(
    made: Synthesis, tmp_path: Path, pack: Callable[[bytes], bytes], chunk: int
) -> None:
    plain, counts, _ = await read(Capture(made.path), telling(tmp_path))
    with nothing_left(), pipe_from(pack(made.path.read_bytes()), chunk) as descriptor:
        records, stats, _ = await read(Pipe(descriptor), telling(tmp_path))
    assert records == plain
    assert stats.decode == counts.decode


async def test_packets_may_be_read_until_the_next_batch(tmp_path: Path) -> None:
    """Those of the last one, too, when all of the source is decoded."""
    path = tmp_path / "few.pcap"
    path.write_bytes(pcap([(float(at), udp(A, B, b"packet %d" % at)) for at in range(3)]))
    hook = "onpacket = function(engine, layer) T.loginfo(layer:packet():rawbytes():tostring():match('packet %d')) end"
    script = plugin(f"simplecounter = {{ protocol_guid = '{{14D7AB53-CC51-47E9-8814-9C06AAE60189}}', {hook} }}")
    with pipe_from(path.read_bytes()) as descriptor:
        for source in (Capture(path), Captures([path, path]), Replay(path, speed=1e6), Pipe(descriptor)):
            _, _, collector = await read(source, [write(tmp_path, script, "bytes.lua")])
            times = 2 if isinstance(source, Captures) else 1
            assert collector.logged() == ["packet 0", "packet 1", "packet 2"] * times


async def test_a_pipe_longer_than_its_buffers(tmp_path: Path) -> None:
    """Twenty megabytes, of packets of all sizes, through buffers of four."""
    rng = random.Random(3)
    frames = [(at / 1e5, udp(A, B, bytes(rng.choice([10, 1000, 60_000])))) for at in range(1000)]
    path = tmp_path / "big.pcap"
    path.write_bytes(pcap(frames))
    plain, counts, _ = await read(Capture(path))
    with nothing_left(), pipe_from(path.read_bytes()) as descriptor:
        records, stats, _ = await read(Pipe(descriptor))
    assert records == plain
    assert (stats.decode, stats.decode.malformed) == (counts.decode, 0)


async def test_what_comes_slowly_is_handled_when_it_is_there() -> None:
    data = pcap([(float(at), tcp(A, B, 1 + at, b"x")) for at in range(4)])
    record = (len(data) - 24) // 4
    with nothing_left():
        read_end, write_end = os.pipe()
        async with Engine() as engine:
            job = asyncio.ensure_future(engine.run(Pipe(read_end)))
            os.write(write_end, data[:10])
            os.write(write_end, data[10 : 24 + 5])
            for number in range(3):
                os.write(write_end, data[24 + number * record + 5 : 24 + (number + 1) * record + 5])
                await eventually(lambda number=number: engine.stats.decode.packets == number + 1)
            assert not job.done()
            os.close(write_end)
            await job
            assert (engine.stats.decode.packets, engine.stats.decode.malformed) == (4, 1)
        os.close(read_end)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
async def test_a_pipe_that_ends_in_the_middle(made: Synthesis, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    data = pack(made.path.read_bytes())
    with nothing_left(), pipe_from(data[: len(data) // 2]) as descriptor:
        _, stats, collector = await read(Pipe(descriptor), telling(tmp_path))
    assert 0 < stats.decode.packets < made.packets
    assert stats.decode.malformed <= 1
    broken = [each.text for each in collector.of("log") if each.level == "WARN" and "stream ends early" in each.text]
    assert len(broken) == (pack is not bytes)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"hello world, this is text", "is neither pcap nor pcapng"),
        (pcap([])[:20], "ends within the pcap file header"),
        (gzip.compress(b"", mtime=0), "the gzip stream in it is empty or broken"),
        (b"\x1f\x8b" + bytes(100), "the gzip stream in it is empty or broken"),
        (zlib.compress(bytes(100)), "is neither pcap nor pcapng"),
    ],
    ids=range(6),
)
async def test_what_is_no_capture_is_refused(data: bytes, reason: str) -> None:
    with nothing_left(), pipe_from(data) as descriptor:
        async with Engine() as engine:
            with pytest.raises(CaptureError, match=reason):
                await engine.run(Pipe(descriptor))


async def test_a_descriptor_that_is_none_is_refused() -> None:
    async with Engine() as engine:
        with pytest.raises(CaptureError, match="descriptor 987: Bad file descriptor"):
            await engine.run(Pipe(987))


async def test_a_descriptor_of_a_file_is_mapped(made: Synthesis) -> None:
    with nothing_left(), made.path.open("rb") as file:
        _, stats, _ = await read(Pipe(file.fileno()))
    assert stats.decode.packets == made.packets


@pytest.mark.parametrize(
    "head",
    [b"", pcap([(0, udp(A, B))]), gzip.compress(pcap([(0, udp(A, B))]), mtime=0)],
    ids=["empty", "plain", "gzip"],
)
@pytest.mark.parametrize("cancel", [True, False])
async def test_a_pipe_can_be_left_while_nothing_comes(head: bytes, cancel: bool) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, head)
    with nothing_left():
        async with Engine() as engine:
            job = asyncio.ensure_future(engine.run(Pipe(read_end)))
            await eventually(lambda: engine_threads() and engine.stats.decode.packets == bool(head))
            with pytest.raises(EngineError, match="another source is being read"):
                await engine.run(Pipe(write_end))
            if cancel:
                job.cancel()
                with suppress(asyncio.CancelledError):
                    await job
                assert job.cancelled()
            else:
                engine.end_source()
                await job
    os.close(read_end)
    os.close(write_end)


async def test_an_exception_leaves_nothing_of_a_pipe_behind(made: Synthesis, tmp_path: Path) -> None:
    with nothing_left(), pipe_from(made.path.read_bytes() * 2) as descriptor:
        with pytest.raises(ZeroDivisionError):
            async with Engine(telling(tmp_path)) as engine:
                job = asyncio.ensure_future(engine.run(Pipe(descriptor)))
                await eventually(lambda: engine.stats.decode.packets > 10)
                job.cancel()
                raise ZeroDivisionError
        await asyncio.gather(job, return_exceptions=True)
    assert files_below(tmp_path / "ram") == []
