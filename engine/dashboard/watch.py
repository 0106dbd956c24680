"""Watches one engine for all who look: one snapshot a second, the last minutes, alerts and errors as they come."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import anyio

from engine.dashboard import snapshot
from engine.dashboard.feed import Feed, encode
from engine.dashboard.lag import LagMeter
from engine.pipeline.engine import Engine
from engine.values.records import Record
from engine.values.windows import Window

TICK: Final = 1.0
"""Seconds between two snapshots."""

HISTORY: Final = 300
"""Snapshots that are kept for the charts."""

NOTES: Final = 50
"""Alerts that are kept, and as many log lines."""

_SOON: Final = 0.1  # seconds that alerts and errors are gathered for
_HELD: Final = 1.0  # seconds of lag from which on an engine is not healthy


class Watch:
    """Loop thread only, the engine's. Made while the engine runs; `run` is its life."""

    def __init__(self, engine: Engine, *, title: str = "", asks: bool = False) -> None:
        """`title` says what is read; `asks` whether there is a database to ask."""
        self._engine = engine
        self.title = title
        self._asks = asks
        self.lag = LagMeter()
        self.feed = Feed(self._greeting)
        self._history: deque[dict[str, Any]] = deque(maxlen=HISTORY)
        self._notes = {kind: deque[Record](maxlen=NOTES) for kind in ("alert", "log")}
        self._fresh: deque[Record] = deque(maxlen=NOTES)
        self._flush: asyncio.TimerHandle | None = None
        self._window: dict[str, Any] | None = None
        self._over = False
        self._began = time.time()
        self._totals = snapshot.totals(engine.stats)
        self._last = time.monotonic()
        self._tick: dict[str, Any] = self._look()

    async def run(self) -> None:
        """Until cancelled."""
        end = self._engine.listen("alert", "log", call=self._take)
        self._engine.on_window(self._take_window)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self.lag.measure)
                group.start_soon(self._watch)
        finally:
            end()
            self._over = True
            if self._flush is not None:
                self._flush.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.look()

    def look(self) -> None:
        """Take a snapshot now, and send it."""
        self._tick = self._look()
        if self.feed.listened:
            self.feed.publish(encode("tick", self._tick))

    @property
    def now(self) -> dict[str, Any]:
        """The last snapshot."""
        return self._tick

    def troubles(self) -> list[str]:
        """Why the engine is not healthy; nothing when it is."""
        found = []
        if self._state() == "over":
            found.append("the source is over")
        worst = self.lag.worst_recent(time.monotonic())
        if worst >= _HELD:
            found.append(f"the loop was held for {worst:.1f} s within the last ten seconds")
        return found

    def _state(self) -> str:
        """``reading``; ``over`` after that; ``waiting`` for events while there was no source."""
        return {True: "reading", False: "over", None: "waiting"}[self._engine.reading]

    def _look(self) -> dict[str, Any]:
        stats, now = self._engine.stats, time.monotonic()
        totals = snapshot.totals(stats)
        rates = snapshot.rates(self._totals, totals, now - self._last)
        self._totals, self._last = totals, now
        waiting = snapshot.queues(stats.plugins)
        point = snapshot.point(time.time(), rates, self.lag.take_point(), waiting)
        self._history.append(point)
        tasks = stats.tasks
        return {
            **point,
            "state": self._state(),
            "troubles": self.troubles(),
            "uptime": round(time.time() - self._began, 1),
            "totals": totals,
            "tasks": {name: getattr(tasks, name) for name in ("submitted", "completed", "failed", "queued", "running")},
            "plugins": snapshot.plugin_rows(stats.plugins),
            "losses": snapshot.losses(stats.flat()),
            "clients": self.feed.stats().clients,
        }

    def _greeting(self) -> bytes:
        return encode(
            "hello",
            {
                "version": package_version(),
                "title": self.title,
                "asks": self._asks,
                "now": self._tick,
                "history": list(self._history),
                "window": self._window,
                "alerts": list(map(snapshot.note, self._notes["alert"])),
                "logs": list(map(snapshot.note, self._notes["log"])),
            },
        )

    # ---- as it comes

    def _take(self, record: Record) -> None:
        """Called for each alert and log line: keeps the last few, and sends them a little later, together."""
        if not snapshot.is_note(record):
            return
        self._notes[record.kind].append(record)
        if not self.feed.listened:
            return
        self._fresh.append(record)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(_SOON, self._send_notes)

    def _send_notes(self) -> None:
        self._flush = None
        notes = list(map(snapshot.note, self._fresh))
        self._fresh.clear()
        self.feed.publish(encode("notes", {"notes": notes}))

    def _take_window(self, window: Window) -> None:
        if self._over or not window.groups:
            return
        self._window = snapshot.window(window)
        if self.feed.listened:
            self.feed.publish(encode("window", self._window))


@cache
def package_version() -> str:
    """What runs; empty where it was not installed."""
    try:
        return version("offpath")
    except PackageNotFoundError:
        return ""
