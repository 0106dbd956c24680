"""The application: what is answered to which path. Loop thread only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route as Path_
from starlette.types import Receive, Scope, Send

from engine.dashboard import openapi
from engine.dashboard.assets import PAGE, not_there, read_assets
from engine.dashboard.database import BusyError, Database
from engine.dashboard.exposition import CONTENT_TYPE, Family, render
from engine.dashboard.feed import Client, Feed
from engine.dashboard.metrics import families
from engine.dashboard.routes import ROUTES, Route
from engine.dashboard.watch import Watch, package_version
from engine.pipeline.engine import Engine
from engine.values.errors import EngineError

PATIENCE: Final = 10.0
"""Seconds that a listener may take for what it was sent."""

_SLICE: Final = 0.002  # seconds between two turns of the loop

Abort = Callable[[Scope], None]
"""Cuts the connection of a request."""

Counts = Callable[[], Iterable[Any]]
"""Counts of the server, as dataclasses."""


def make_app(
    engine: Engine, watch: Watch, database: Database | None, *, needs_token: bool, abort: Abort, counts: Counts = tuple
) -> Starlette:
    """The application. `database` is the one that is being written, if any; `counts()` are told as metrics, too."""
    assets = read_assets()
    description = openapi.describe(version=package_version(), needs_token=needs_token)

    async def metrics(_: Request) -> Response:
        others: list[Any] = [watch.feed.stats(), *counts()]
        if database is not None:
            others.append(database.stats())
        found = families(
            engine.stats,
            reading=bool(engine.reading),
            lag=watch.lag.snapshot(),
            version=package_version(),
            others=others,
        )
        return Response(await _in_slices(found), media_type=CONTENT_TYPE)

    async def healthz(_: Request) -> Response:
        troubles = watch.troubles()
        return JSONResponse({"healthy": not troubles, "reasons": troubles}, 503 if troubles else 200)

    async def now(_: Request) -> Response:
        return JSONResponse(watch.now)

    async def described(_: Request) -> Response:
        return JSONResponse(description)

    async def events(_: Request) -> Response:
        return EventStream(watch.feed, abort)

    async def page(_: Request) -> Response:
        return assets[PAGE]

    async def static(request: Request) -> Response:
        return assets.get(request.path_params["path"]) or not_there()

    return Starlette(
        routes=[
            Path_("/", page),
            Path_("/metrics", metrics),
            Path_("/healthz", healthz),
            Path_("/events", events),
            Path_("/openapi.json", described),
            Path_("/api/now", now),
            *(Path_(each.path, _answering(each, database)) for each in ROUTES),
            Path_("/static/{path:path}", static),
        ]
    )


async def _in_slices(found: Iterable[Family]) -> str:
    """The text of families, made a few milliseconds at a time: of many plugins there is much to tell."""
    parts = []
    until = time.perf_counter() + _SLICE
    for family in found:
        parts.append(render((family,)))
        if time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + _SLICE
    return "".join(parts)


def _answering(route: Route, database: Database | None) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        if database is None:
            return JSONResponse({"error": "no database is being written: run with --db FILE"}, 404)
        try:
            values = route.read(request.query_params.multi_items())
            answered = await database.ask(route.question(values))
        except EngineError as exc:
            return JSONResponse({"error": str(exc)}, 400)
        except BusyError as exc:
            return JSONResponse({"error": str(exc)}, 503, {"retry-after": "1"})
        return Response(answered, media_type="application/json")

    return answer


class EventStream(Response):
    """Server-sent events to one listener, for as long as it takes them."""

    def __init__(self, feed: Feed, abort: Abort) -> None:
        """`abort` cuts off one that takes nothing for ten seconds."""
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        self._feed = feed
        self._abort = abort

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application."""
        client = self._feed.connect()
        if client is None:
            await PlainTextResponse("too many listen\n", 503, {"retry-after": "10"})(scope, receive, send)
            return
        slow = False
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_until_gone, receive, group.cancel_scope)
                slow = await self._send(client, send)
                group.cancel_scope.cancel()
        finally:
            self._feed.disconnect(client, slow=slow)
        if slow:
            self._abort(scope)
            await asyncio.sleep(0)  # the connection is told that it is gone

    async def _send(self, client: Client, send: Send) -> bool:
        """Whether the listener was too slow."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        message: bytes | None = b"retry: 2000\n\n"
        while message is not None:
            with anyio.move_on_after(PATIENCE) as patience:
                await send({"type": "http.response.body", "body": message, "more_body": True})
            if patience.cancelled_caught:
                return True
            message = await client.take()
        with anyio.move_on_after(PATIENCE):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        return False


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
