"""Serves a dashboard beside an engine, on the engine's own loop, from the start of a block to its end."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from engine.dashboard.address import Address, ServeError, bind, is_loopback, require_packages, url_of

if TYPE_CHECKING:
    from engine.dashboard.server import Server
    from engine.pipeline.engine import Engine

END_SECONDS: Final = 2.0
"""How long answers that are under way may take when the block ends."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A dashboard that is being served."""

    url: str
    """Where it is, without a token."""
    port: int
    token: str | None
    """What who asks must have; None on loopback where none was given."""

    @property
    def url_with_token(self) -> str:
        """What a browser opens: the token stands in it once, then the browser has a cookie."""
        return f"{self.url}?token={self.token}" if self.token else self.url


class Listener:
    """A bound socket and who may use it: what can fail is done before anything else is started."""

    def __init__(self, address: Address | str, *, token: str | None = None) -> None:
        """Raises `ServeError`: no such address, one in use, a token that can't be one, or a package that is missing.

        Without a token, one is made where other machines can reach the address.
        """
        require_packages()
        if token is not None and not re.fullmatch(r"[!-~]+", token):
            raise ServeError("a token is made of visible ASCII signs without spaces, as it goes into a header")
        self.address = Address.parse(address) if isinstance(address, str) else address
        self.socket = bind(self.address)
        self.loopback = is_loopback(self.socket)
        self.made_token = token is None and not self.loopback
        self.serving = Serving(
            url_of(self.socket),
            self.socket.getsockname()[1],
            secrets.token_urlsafe(24) if self.made_token else token,
        )

    def close(self) -> None:
        """Nobody listens any more. Idempotent."""
        self.socket.close()


@asynccontextmanager
async def serve(
    engine: Engine,
    address: Address | str | Listener = ":0",
    *,
    token: str | None = None,
    database: str | Path | None = None,
    title: str = "",
) -> AsyncIterator[Serving]:
    """Serve an engine's dashboard while the block lasts, on the loop that runs it; within `async with Engine(...)`.

    `address` is ``HOST:PORT``; the host is 127.0.0.1 unless it says otherwise, and port 0 stands for any that is free.
    `token` must come with each request; where other machines can reach the address, one is made when none is given.
    `database` is what an `SqliteSink` of the engine writes, for questions to it; `title` says what is read.

    Starts no thread but for questions, installs no signal handler, and leaves nothing behind. Raises `ServeError`.
    """
    listener = address if isinstance(address, Listener) else Listener(address, token=token)
    try:
        from engine.dashboard.server import make_server

        server = make_server(engine, listener, None if database is None else Path(database), title)
    except BaseException:
        listener.close()
        raise
    failure: Exception | None = None  # of the block: raised as it is, where a task group would wrap it
    async with anyio.create_task_group() as group:
        try:
            group.start_soon(server.watch.run)
            group.start_soon(_run, server, listener.socket)
            await server.ready.wait()
            yield listener.serving
        except Exception as exc:
            failure = exc
        finally:
            with anyio.CancelScope(shield=True):
                await server.end(END_SECONDS)
            listener.close()
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _run(server: Server, listening: socket.socket) -> None:
    """Shielded, as a server that is cancelled leaves its connections open; `end` is what ends it."""
    with anyio.CancelScope(shield=True), suppress(asyncio.CancelledError):
        await server.serve(sockets=[listening])
