"""Live capture: a real download, every way in which it ends, and what the kernel drops."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import random
import socket
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path

import pytest
import uvloop

from engine import CaptureError, Engine
from engine.sources import Live
from tests.pipeline.own_network import FAR_ADDRESS, NEAR, NEAR_ADDRESS, in_own_network, neighbour, set_up
from tests.pipeline.test_sources import Rush, nothing_left
from tests.scripts import Collector, assert_counts_close, on_file_hash, write
from tests.support import eventually

LOOPS = [asyncio.SelectorEventLoop, uvloop.new_event_loop]


@contextmanager
def serving(folder: Path, address: str = "127.0.0.1") -> Iterator[str]:
    """A web server for the files of a folder, in the network of this thread; its URL."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            """Nobody reads it."""

    with http.server.ThreadingHTTPServer((address, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://{address}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def fetch(url: str) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as answer:
        return bytes(answer.read())


def send(number: int, size: int = 10, address: str = "127.0.0.1") -> int:
    """Datagrams to nobody; the port they come from. A port that is closed answers each with an ICMP packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(number):
            with suppress(ConnectionRefusedError):
                sender.sendto(bytes(size), (address, 9))
        port: int = sender.getsockname()[1]
        return port


@asynccontextmanager
async def capturing(engine: Engine, source: Live, address: str = "127.0.0.1") -> AsyncIterator[asyncio.Future[None]]:
    """The run of a live source, from when packets come that are sent to an address."""
    job = asyncio.ensure_future(engine.run(source))

    def heard() -> bool:
        send(1, address=address)
        return job.done() or engine.stats.decode.packets > 0

    await eventually(heard)
    if job.done():
        await job
    yield job


def made_files(folder: Path) -> dict[str, bytes]:
    """Files of up to two megabytes in a folder, by their names."""
    contents = {f"{number}.bin": random.Random(number).randbytes(number * 700_000 + 10) for number in range(4)}
    folder.mkdir()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return contents


async def capture_downloads(
    engine: Engine, collector: Collector, job: asyncio.Future[None], url: str, contents: dict[str, bytes]
) -> None:
    """Download files while they are captured, and check that workers hashed all of them right."""
    for name, data in contents.items():
        assert await asyncio.to_thread(fetch, f"{url}/{name}") == data
    await eventually(lambda: len(collector.of("resource")) == len(contents))
    engine.end_source()
    await job
    expected = {hashlib.sha256(data).hexdigest(): str(len(data)) for data in contents.values()}
    assert {each.uri: each.contents for each in collector.of("resource")} == expected


def assert_all_was_seen(engine: Engine, collector: Collector, contents: dict[str, bytes]) -> None:
    """Each file is whole, and nothing was lost. TCP itself may send segments again: that makes no difference."""
    assert [each.uri for each in collector.of("file")] == [f"/{name}" for name in contents]
    assert all(each.complete for each in collector.of("file"))
    stats = engine.stats
    assert_counts_close(stats)
    assert stats.source.received >= stats.decode.packets > 0
    assert (stats.source.dropped, stats.decode.malformed, stats.decode.gaps) == (0, 0, 0)
    assert (stats.tasks.submitted, stats.tasks.completed) == (len(contents), len(contents))
    assert sum(each.a_packets + each.z_packets for each in collector.of("flow")) <= stats.decode.packets


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_download_is_captured_and_hashed_off_the_path(
    tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    contents, collector = made_files(tmp_path / "www"), Collector()

    async def main() -> None:
        with nothing_left(), serving(tmp_path / "www") as url:
            script = write(tmp_path, on_file_hash())
            async with Engine([script], sinks=[collector]) as engine, capturing(engine, Live("lo")) as job:
                await capture_downloads(engine, collector, job, url, contents)
            await asyncio.get_running_loop().shutdown_default_executor()
        assert_all_was_seen(engine, collector, contents)

    in_own_network(main, new_loop)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_download_between_two_networks_is_captured_and_hashed_off_the_path(
    tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    contents, collector = made_files(tmp_path / "www"), Collector()
    script = write(tmp_path, on_file_hash())

    async def main() -> None:
        with nothing_left(), neighbour(lambda: serving(tmp_path / "www", FAR_ADDRESS)) as url:
            async with (
                Engine([script], sinks=[collector]) as engine,
                capturing(engine, Live(NEAR), FAR_ADDRESS) as job,
            ):
                await capture_downloads(engine, collector, job, url, contents)
            await asyncio.get_running_loop().shutdown_default_executor()
        assert_all_was_seen(engine, collector, contents)
        ends = {frozenset((each.a_ip, each.z_ip)) for each in collector.of("flow") if each.proto == "tcp"}
        assert ends == {frozenset((NEAR_ADDRESS, FAR_ADDRESS))}

    in_own_network(main, new_loop)


@pytest.mark.parametrize("interface", ["lo", NEAR])
def test_each_packet_is_seen_once(interface: str) -> None:
    """Also on the loopback interface, where it goes out and comes in."""
    collector = Collector()

    async def main() -> None:
        with neighbour(nullcontext):
            address = "127.0.0.1" if interface == "lo" else FAR_ADDRESS
            async with Engine(sinks=[collector]) as engine, capturing(engine, Live(interface), address) as job:
                before = engine.stats.decode.wire_bytes
                port = send(100, address=address)
                send(1, size=30_000, address=address)  # more than all of them, and their answers
                await eventually(lambda: engine.stats.decode.wire_bytes - before > 30_000)
                engine.end_source()
                await job
            sent = {frozenset((each.a_port, each.z_port)): each for each in collector.of("flow") if each.proto == "udp"}
            flow = sent[frozenset((port, 9))]
            assert flow.a_packets + flow.z_packets == 100

    in_own_network(main)


def test_it_ends_after_so_many_packets() -> None:
    async def main() -> None:
        with nothing_left():
            async with Engine() as engine, capturing(engine, Live("lo", packets=100)) as job:
                send(200)
                await job
                assert engine.stats.decode.packets == 100
                assert engine.stats.source.received >= 100

    in_own_network(main)


def test_it_ends_after_so_many_seconds_by_the_clock_of_the_loop() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with Engine() as engine:
            await engine.run(Live("lo", seconds=3600))
            assert 3600 <= loop.time() - began < 3700

    in_own_network(main, Rush)


def test_what_the_kernel_drops_is_counted() -> None:
    async def main() -> None:
        async with Engine() as engine, capturing(engine, Live("lo", ring_mb=2)) as job:
            send(4_000, size=1_000)  # while the loop is held: more than the ring has room for
            await eventually(lambda: engine.stats.source.dropped > 0)
            engine.end_source()
            await job
        source, decode = engine.stats.source, engine.stats.decode
        assert 0 < source.dropped < source.received
        assert decode.packets <= source.received - source.dropped
        assert decode.malformed == 0

    in_own_network(main)


def test_an_interface_that_goes_down_ends_it_with_an_error_and_what_came_counts() -> None:
    collector = Collector()

    async def main() -> None:
        with nothing_left():
            async with Engine(sinks=[collector]) as engine, capturing(engine, Live("lo")) as job:
                set_up("lo", False)
                with pytest.raises(CaptureError, match="lo: the network interface went down"):
                    await job
                assert len(collector.of("flow")) > 0
                set_up("lo", True)
                async with capturing(engine, Live("lo", packets=1)) as again:
                    await eventually(lambda: send(1) and again.done())
                    await again

    in_own_network(main)


def test_it_can_be_cancelled_while_it_waits() -> None:
    async def main() -> None:
        with nothing_left():
            async with Engine() as engine, capturing(engine, Live("lo", promiscuous=True)) as job:
                job.cancel()
                with suppress(asyncio.CancelledError):
                    await job
                assert job.cancelled()

    in_own_network(main)


@pytest.mark.parametrize(
    ("interface", "reason"), [("absent0", "no such network interface"), ("lo", "the network interface is down")]
)
def test_an_interface_of_no_use_is_refused(interface: str, reason: str) -> None:
    async def main() -> None:
        set_up("lo", False)
        with nothing_left():
            async with Engine() as engine:
                with pytest.raises(CaptureError, match=f"{interface}: {reason}"):
                    await engine.run(Live(interface))

    in_own_network(main)


async def test_no_permission_says_what_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    async with Engine() as engine:
        monkeypatch.setattr("engine.capture.live.socket.socket", refuse)
        with pytest.raises(CaptureError, match=r"lo: no permission .*CAP_NET_RAW.*sudo.*setcap cap_net_raw\+ep"):
            await engine.run(Live("lo"))
        monkeypatch.undo()


async def test_another_system_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Engine() as engine:
        monkeypatch.setattr("engine.capture.live.sys.platform", "darwin")
        with pytest.raises(CaptureError, match="live capture needs Linux"):
            await engine.run(Live("lo"))
        monkeypatch.undo()
