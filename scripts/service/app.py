"""A service that takes uploads and never waits for what becomes of them: a Lua plugin hashes, keeps and flags them.

pip install 'offpath[service]'
python scripts/service/app.py --folder uploads --known scripts/malware_hashes.txt
curl --data-binary @FILE http://127.0.0.1:8000/uploads/FILE
curl --no-buffer http://127.0.0.1:8000/alerts
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from engine import Config, Engine
from engine.values.records import Alert

PLUGIN = Path(__file__).with_name("uploads.lua")
MOST_BYTES = 64 * 1024 * 1024


class TooLargeError(Exception):
    """A body has more bytes than are allowed."""


def make_app(folder: Path, *, known: str = "", plugin: Path = PLUGIN, most_bytes: int = MOST_BYTES) -> Starlette:
    """The application. Uploads come in below `folder`, and are kept there under their hashes.

    `known` names the list of hashes that the plugin knows. An engine lives as long as the application.
    """
    incoming, kept = folder.absolute() / "incoming", folder.absolute() / "kept"
    numbers = itertools.count(1)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        for each in (incoming, kept):
            each.mkdir(parents=True, exist_ok=True)
        async with Engine([plugin], config=Config(args=known)) as engine:
            for error in engine.load_errors:
                raise error
            app.state.engine = engine
            yield

    async def upload(request: Request) -> Response:
        """Store a body, tell the plugin, and answer: what it does goes on afterwards."""
        path = incoming / str(next(numbers))
        engine: Engine = request.app.state.engine
        try:
            size = await _store(request, path, most_bytes)
        except TooLargeError:
            return JSONResponse({"error": f"more than {most_bytes} bytes"}, status_code=413)
        except ClientDisconnect:
            return Response(status_code=400)
        name = str(request.path_params["name"])
        event = {"name": name, "path": str(path), "kept": str(kept), "bytes": size}
        if not engine.emit_nowait("uploads.stored", event):
            await anyio.Path(path).unlink()
            return JSONResponse({"error": "too many uploads wait"}, status_code=503, headers={"Retry-After": "1"})
        return JSONResponse({"name": name, "bytes": size}, status_code=202)

    async def alerts(request: Request) -> Response:
        """Alerts as they are raised, as server-sent events."""
        return StreamingResponse(_events(request.app.state.engine), media_type="text/event-stream")

    async def status(request: Request) -> Response:
        """How many uploads were told of, and how much of the work for them is left."""
        stats = request.app.state.engine.stats
        return JSONResponse(
            {"uploads": stats.events.handled, "pending": stats.tasks.pending, "failed": stats.tasks.failed}
        )

    return Starlette(
        routes=[
            Route("/uploads/{name}", upload, methods=["POST", "PUT"]),
            Route("/alerts", alerts),
            Route("/status", status),
        ],
        lifespan=lifespan,
    )


async def _store(request: Request, path: Path, most_bytes: int) -> int:
    """Write a body to a new file; its size. Leaves nothing behind when it raises, or is cancelled."""
    size, whole = 0, False
    try:
        async with await anyio.open_file(path, "xb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > most_bytes:
                    raise TooLargeError
                await file.write(chunk)
        whole = True
    finally:
        if not whole:
            path.unlink(missing_ok=True)  # noqa: ASYNC240 - when it is cancelled, too
    return size


async def _events(engine: Engine) -> AsyncIterator[str]:
    async with engine.subscribe("alert") as records:
        yield ": alerts follow\n\n"
        async for each in records:
            if isinstance(each, Alert):
                yield f"event: alert\ndata: {json.dumps({'message': each.message, 'priority': each.priority})}\n\n"


def main() -> None:
    """Serve until Ctrl-C."""
    words = argparse.ArgumentParser(description="Takes uploads; a Lua plugin hashes, keeps and flags them.")
    words.add_argument("--folder", type=Path, default=Path("uploads"), help="where uploads are kept")
    words.add_argument("--known", default="", help="a list of hashes to raise alerts for")
    words.add_argument("--port", type=int, default=8000)
    chosen = words.parse_args()
    app = make_app(chosen.folder, known=chosen.known)
    uvicorn.run(app, port=chosen.port, timeout_graceful_shutdown=2, log_level="warning")


if __name__ == "__main__":
    main()
