"""The service of scripts/service in a process of its own, and what loads it from this one.

python -m benchmarks.service_load PLUGIN FOLDER
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from benchmarks.harness import BenchmarkError, Measures, percentile

ROOT = Path(__file__).parents[1]
_APP = ROOT / "scripts" / "service" / "app.py"
_START_SECONDS = 30
_SETTLE_SECONDS = 120


@contextmanager
def serving(plugin: Path, folder: Path) -> Iterator[int]:
    """The service with a plugin, in a new process, while the block runs; its port."""
    command = [sys.executable, "-m", "benchmarks.service_load", str(plugin), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield int(line)
        finally:
            process.terminate()
            process.wait(_START_SECONDS)


async def measure(port: int, *, size: int, rate: float, requests: int, clients: int) -> Measures:
    """Requests/s of clients that send as fast as they are answered, then latencies of requests that come at a rate.

    Those are measured from when they should have been sent: one that waits for others waits, too.
    Raises `BenchmarkError` when the service breaks off, or does not do its work.
    """
    try:
        return await _measure(port, size, rate, requests, clients)
    except (ConnectionError, asyncio.IncompleteReadError) as exc:
        raise BenchmarkError(f"the service broke off: {exc}") from exc


async def _measure(port: int, size: int, rate: float, requests: int, clients: int) -> Measures:
    body = _request(size)
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(aclosing(await _Connection.to(port))) for _ in range(clients)]
        for each in connections:
            await each.send(body)
        throughput = requests / await _in_a_hurry(connections, body, requests)
        await _settle(connections[0])
        late = await _at_a_rate(connections, body, rate, requests)
        await _settle(connections[0])
    return {"rate": throughput, "p50": percentile(late, 50) * 1e3, "p99": percentile(late, 99) * 1e3}


async def _in_a_hurry(connections: list[_Connection], body: bytes, requests: int) -> float:
    began, left = time.perf_counter(), iter(range(requests))

    async def send(connection: _Connection) -> None:
        for _ in left:
            await connection.send(body)

    await asyncio.gather(*map(send, connections))
    return time.perf_counter() - began


async def _at_a_rate(connections: list[_Connection], body: bytes, rate: float, requests: int) -> list[float]:
    began, late = time.perf_counter() + 0.05, []
    numbers = iter(range(requests))

    async def send(connection: _Connection) -> None:
        for number in numbers:
            due = began + number / rate
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            await connection.send(body)
            late.append(time.perf_counter() - due)

    await asyncio.gather(*map(send, connections))
    return late


async def _settle(connection: _Connection) -> None:
    """Wait until nothing is left of the work, so that it is in no other measurement."""
    until = time.perf_counter() + _SETTLE_SECONDS
    while time.perf_counter() < until:
        told = json.loads(await connection.send(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n", b"200"))
        if told["failed"]:
            raise BenchmarkError(f"{told['failed']} tasks failed")
        if not told["pending"]:
            return
        await asyncio.sleep(0.05)
    raise BenchmarkError("the work for the uploads did not end")


def _request(size: int) -> bytes:
    head = f"POST /uploads/x HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + bytes(at * 7 % 251 for at in range(size))


class _Connection:
    """A connection that is kept, for one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> _Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, request: bytes, status: bytes = b"202") -> bytes:
        """The body of the answer."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        body = await self._reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 " + status):
            raise BenchmarkError(f"answered {head.partition(bytes([13]))[0].decode()}")
        return body

    async def aclose(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


def _serve(plugin: Path, folder: Path) -> None:
    import uvicorn

    spec = spec_from_file_location("service_app", _APP)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    app = module.make_app(folder, plugin=plugin)
    settings = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=2)
    uvicorn.Server(settings).run([listening])


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Path(sys.argv[2]))
