"""The service in scripts/service: uploads are answered at once, and what the plugin does with them comes as events."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from engine import ScriptLoadError
from tests.scripts import on_event, write
from tests.support import eventually

SERVICE = Path(__file__).parents[1] / "scripts" / "service"
BAD = b"something that is known"


def make_app(*args: Any, **kwargs: Any) -> Any:
    """`make_app` of the script, which is no module of a package."""
    spec = spec_from_file_location("service_app", SERVICE / "app.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_app(*args, **kwargs)


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The service on a port of its own, and a client of it."""
    settings = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1, lifespan="on")
    server = uvicorn.Server(settings)
    running = asyncio.create_task(server._serve())
    await eventually(lambda: server.started or running.done())
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield client
    finally:
        server.should_exit = True
        await running


@pytest.fixture
def known(tmp_path: Path) -> Path:
    path = tmp_path / "known.txt"
    path.write_text(f"# known\n{hashlib.sha256(BAD).hexdigest()} Bad.Thing\n")
    return path


def files_below(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


async def settled(client: httpx.AsyncClient, uploads: int) -> None:
    for _ in range(2_000):
        told = (await client.get("/status")).json()
        if told == {"uploads": uploads, "pending": 0, "failed": 0}:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(told)


async def test_uploads_are_kept_under_their_hashes_and_flagged(tmp_path: Path, known: Path) -> None:
    folder = tmp_path / "it's here"
    async with serving(make_app(folder, known=str(known))) as client, client.stream("GET", "/alerts") as events:
        lines = events.aiter_lines()
        assert (await anext(lines)).startswith(":")
        answers = await asyncio.gather(
            *(client.post(f"/uploads/{name}", content=body) for name, body in (("a", b"1"), ("b", BAD), ("c", b"")))
        )
        assert [(each.status_code, each.json()["bytes"]) for each in answers] == [(202, 1), (202, len(BAD)), (202, 0)]
        told = await anext(line async for line in lines if line.startswith("data: "))
        assert json.loads(told.removeprefix("data: ")) == {"message": "b is Bad.Thing", "priority": 1}
        await settled(client, 3)
        assert files_below(folder) == {f"kept/{hashlib.sha256(body).hexdigest()}" for body in (b"1", BAD, b"")}


async def test_one_that_is_too_large_leaves_nothing(tmp_path: Path) -> None:
    async with serving(make_app(tmp_path, most_bytes=1_000)) as client:
        assert (await client.post("/uploads/a", content=b"x" * 1_001)).status_code == 413
        assert (await client.post("/uploads/b", content=b"x" * 1_000)).status_code == 202
        await settled(client, 1)
        assert len(files_below(tmp_path)) == 1


async def test_one_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        await eventually(lambda: files_below(tmp_path))
        raise ConnectionError

    async with serving(make_app(tmp_path)) as client:
        with pytest.raises(ConnectionError):
            await client.post("/uploads/a", content=body())
        await eventually(lambda: not files_below(tmp_path))
        await settled(client, 0)


async def test_the_end_waits_for_work_that_was_taken(tmp_path: Path) -> None:
    async with serving(make_app(tmp_path)) as client:
        for at in range(20):
            assert (await client.post("/uploads/a", content=str(at).encode())).status_code == 202
    assert files_below(tmp_path) == {f"kept/{hashlib.sha256(str(at).encode()).hexdigest()}" for at in range(20)}


async def test_a_plugin_that_does_not_load_stops_the_start(tmp_path: Path) -> None:
    script = write(tmp_path, on_event("") + "error('no')")
    app = make_app(tmp_path / "x", plugin=script)
    with pytest.raises(ScriptLoadError):
        async with app.router.lifespan_context(app):
            pass
