"""Engines whose dashboards are asked: what several test files of this folder need."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from engine import Config, Engine
from engine.dashboard import Serving, serve
from engine.dashboard.app import make_app
from engine.dashboard.database import Database
from engine.dashboard.watch import Watch

ANY = "127.0.0.1:0"


@asynccontextmanager
async def served(
    scripts: Iterable[Path] = (), *, config: Config | None = None, **options: Any
) -> AsyncIterator[tuple[Engine, Serving, httpx.AsyncClient]]:
    """An engine, its dashboard, and who asks it, by real sockets."""
    async with (
        Engine(scripts, config=config) as engine,
        serve(engine, ANY, **options) as serving,
        httpx.AsyncClient(base_url=serving.url, timeout=30, trust_env=False) as client,
    ):
        yield engine, serving, client


@asynccontextmanager
async def application(database: Path | None = None) -> AsyncIterator[tuple[Watch, httpx.AsyncClient]]:
    """The application without a server, and without what guards it."""
    async with Engine() as engine:
        watch = Watch(engine)
        asked = Database(database) if database else None
        app = make_app(engine, watch, asked, needs_token=False, abort=lambda scope: None)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            yield watch, client
        if asked is not None:
            await asked.close()


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    """Server-sent events: name and data."""
    name = ""
    async for line in answer.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
