"""uvicorn as a guest: on a loop, with a socket, signals and logging that are all somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any, Final

import anyio
import uvicorn
from starlette.types import Scope

from engine.dashboard.app import make_app
from engine.dashboard.database import Database
from engine.dashboard.guard import Guard
from engine.dashboard.watch import Watch

if TYPE_CHECKING:
    from engine.dashboard.serving import Listener
    from engine.pipeline.engine import Engine

CONNECTIONS: Final = 128
"""Connections at once, past which requests are answered with 503."""

IDLE: Final = 64
"""Connections at once, past which those that ask nothing are cut."""


@dataclass(frozen=True, slots=True)
class ServerStats:
    """Connections."""

    open: int = 0
    """Connections there are now."""
    cut: int = 0
    """Connections that asked nothing and were cut, as there were too many."""


class Config(uvicorn.Config):
    """Leaves Python's logging alone: it is the program's."""

    def configure_logging(self) -> None:
        """Does nothing."""


class Server(uvicorn.Server):
    """Ends when it is told to, within a time. Loop thread only."""

    def __init__(self, config: Config, watch: Watch, database: Database | None) -> None:
        """Made by `make_server`."""
        super().__init__(config)
        self.watch = watch
        self.ready = asyncio.Event()
        """Set when requests are answered."""
        self._database = database
        self._ended = asyncio.Event()
        self._cut = 0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield

    async def serve(self, sockets: list[socket] | None = None) -> None:
        """Until `end`."""
        try:
            await super().serve(sockets)
        finally:
            self.ready.set()
            self._ended.set()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """As in the base class; then it is ready."""
        await super().startup(sockets)
        self.ready.set()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: as in the base class, and connections beyond a limit go, if they ask nothing."""
        excess = len(self.server_state.connections) - IDLE
        if excess > 0:
            idle = [each for each in self.server_state.connections if getattr(each, "cycle", None) is None]
            for each in idle[:excess]:
                _transport(each).abort()
                self._cut += 1
        return await super().on_tick(counter)

    def stats(self) -> ServerStats:
        """Counts at this moment."""
        return ServerStats(len(self.server_state.connections), self._cut)

    async def end(self, seconds: float) -> None:
        """Listeners get their end, answers under way their time, and then every connection is cut."""
        self.watch.feed.close()
        self.should_exit = True
        if self._database is not None:
            await self._database.close()
        with anyio.move_on_after(seconds):
            await self._ended.wait()
        self.force_exit = True
        for each in tuple(self.server_state.connections):
            _transport(each).abort()
        await self._ended.wait()

    def abort(self, scope: Scope) -> None:
        """Cut the connection that a request came by."""
        for each in tuple(self.server_state.connections):
            if scope.get("client") is not None and getattr(each, "client", None) == scope["client"]:
                _transport(each).abort()


def make_server(engine: Engine, listener: Listener, database: Path | None, title: str) -> Server:
    """A server that is not started."""
    watch = Watch(engine, title=title, asks=database is not None)
    asked = Database(database) if database is not None else None
    serving = listener.serving
    # The application needs the server for two things, and the server the application.
    holder: list[Server] = []
    app = make_app(
        engine,
        watch,
        asked,
        needs_token=serving.token is not None,
        abort=lambda scope: holder[0].abort(scope),
        counts=lambda: (holder[0].stats(),),
    )
    guard = Guard(
        app,
        token=serving.token,
        hosts=(listener.address.host,) if listener.loopback else None,
        cookie=f"offpath_{serving.port}",
    )
    config = Config(
        guard,
        http="h11",  # unlike httptools it bounds what a head may be long
        ws="none",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=15,
    )
    config.load()  # imports, which would hold the loop later
    holder.append(Server(config, watch, asked))
    return holder[0]


def _transport(connection: Any) -> asyncio.Transport:
    found: asyncio.Transport = connection.transport
    return found
