"""Messages for all who listen, each encoded once. A listener that is slow loses some, and never holds the others."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from engine.sinks.queries import finite

CLIENTS: Final = 32
"""Listeners at once."""

WAITING: Final = 16
"""Messages that wait for one listener, past which it loses them."""


@dataclass(frozen=True, slots=True)
class FeedStats:
    """Listeners, and messages to each of them. messages = sent + skipped + waiting."""

    clients: int = 0
    """Listeners there are now."""
    connected: int = 0
    """Listeners there were."""
    refused: int = 0
    """Of others, as there were too many."""
    dropped: int = 0
    """Listeners that were cut off because they took nothing for too long."""
    messages: int = 0
    sent: int = 0
    skipped: int = 0
    """Messages that a listener did not get, as it was new or slow, and got the whole state instead, or as it left."""
    waiting: int = 0


class Client:
    """One listener. Loop thread only."""

    def __init__(self, greet: Callable[[], bytes]) -> None:
        """`greet()` gives the whole state, which it gets first, and again after it has lost messages."""
        self._greet = greet
        self._waiting: deque[bytes] = deque()
        self._ready = asyncio.Event()
        self._ready.set()
        self._behind = True
        self._over = False
        self.sent = self.skipped = 0

    def put(self, message: bytes) -> None:
        """Leave a message, or count it as skipped."""
        if self._behind:
            self.skipped += 1
            return
        self._waiting.append(message)
        if len(self._waiting) > WAITING:
            self.skipped += len(self._waiting)
            self._waiting.clear()
            self._behind = True
        self._ready.set()

    def end(self) -> None:
        """No message follows."""
        self._over = True
        self._ready.set()

    @property
    def behind(self) -> bool:
        """Whether it gets the whole state next."""
        return self._behind

    @property
    def waiting(self) -> int:
        """Messages that it has not taken."""
        return len(self._waiting)

    async def take(self) -> bytes | None:
        """All that waits, as one; None when the feed is over."""
        await self._ready.wait()
        if self._over:
            return None
        self._ready.clear()
        if self._behind:
            self._behind = False
            return self._greet()
        self.sent += len(self._waiting)
        data = b"".join(self._waiting)
        self._waiting.clear()
        return data


class Feed:
    """All listeners. Loop thread only."""

    def __init__(self, greet: Callable[[], bytes]) -> None:
        """As for `Client`."""
        self._greet = greet
        self._clients: set[Client] = set()
        self._over = False
        self._connected = self._refused = self._dropped = self._messages = self._sent = self._skipped = 0

    @property
    def listened(self) -> bool:
        """Whether anyone is there: else messages need not be made."""
        return bool(self._clients)

    def connect(self) -> Client | None:
        """Another listener; None, and counted, when there are too many or the feed is over."""
        if len(self._clients) >= CLIENTS or self._over:
            self._refused += 1
            return None
        client = Client(self._greet)
        self._clients.add(client)
        self._connected += 1
        return client

    def disconnect(self, client: Client, *, slow: bool = False) -> None:
        """A listener is gone, or was too slow."""
        if client in self._clients:
            self._clients.remove(client)
            self._dropped += slow
            self._sent += client.sent
            self._skipped += client.skipped + client.waiting

    def publish(self, message: bytes) -> None:
        """Leave a message for all. Never waits."""
        for client in self._clients:
            self._messages += 1
            client.put(message)

    def close(self) -> None:
        """End all, and let no other in."""
        self._over = True
        for client in self._clients:
            client.end()

    def stats(self) -> FeedStats:
        """Counts at this moment."""
        return FeedStats(
            clients=len(self._clients),
            connected=self._connected,
            refused=self._refused,
            dropped=self._dropped,
            messages=self._messages,
            sent=self._sent + sum(each.sent for each in self._clients),
            skipped=self._skipped + sum(each.skipped for each in self._clients),
            waiting=sum(each.waiting for each in self._clients),
        )


def encode(event: str, data: Mapping[str, Any]) -> bytes:
    """One server-sent event; numbers that JSON lacks become null."""
    try:
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(finite(data), separators=(",", ":"))
    return f"event: {event}\ndata: {text}\n\n".encode()
