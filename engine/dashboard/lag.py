"""How late a loop is: a sleep as long as it should be says that the loop was free, a longer one that it was held."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from engine.values.histogram import Histogram, Recorder

PERIOD: Final = 0.020  # seconds between two looks; 50 in a second cost about 0.1 % of a core
_MOST_MISSED: Final = 10_000  # samples that are made up for after one turn
_RECENT: Final = 10.0  # seconds that `worst_recent` looks back


@dataclass(frozen=True, slots=True)
class LagPoint:
    """Lag in seconds."""

    median: float
    """Since the point before."""
    p99: float
    """Of the last minute: a second has too few samples for that."""
    worst: float
    """Since the point before."""


class LagMeter:
    """Measures the loop it runs on. Loop thread only.

    While the loop is held there is one sample where there should have been many, so each of those that are missing
    counts, too, with what would have been left to wait for it. Without them a loop that is held half of the time would
    look like one that is held in one sample of a hundred.
    """

    def __init__(self) -> None:
        self.recorder = Recorder()
        self._since: list[float] = []
        self._minute: deque[float] = deque(maxlen=int(60 / PERIOD))
        self._worst: deque[tuple[float, float]] = deque()

    async def measure(self) -> None:
        """Until cancelled."""
        due = time.monotonic() + PERIOD  # not the loop's time, which stands still during a turn of uvloop
        while True:
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            now = time.monotonic()
            self.add(max(now - due, 0.0), now)
            due = max(due + PERIOD, now + PERIOD / 2)

    def add(self, late: float, now: float) -> None:
        """A turn of the loop came so many seconds late."""
        while self._worst and self._worst[-1][1] <= late:
            self._worst.pop()
        self._worst.append((now, late))
        for missed in range(min(int(late / PERIOD), _MOST_MISSED) + 1):
            self.recorder.add(late - missed * PERIOD)
            self._since.append(late - missed * PERIOD)

    def worst_recent(self, now: float) -> float:
        """The greatest lag of the last ten seconds."""
        while self._worst and self._worst[0][0] < now - _RECENT:
            self._worst.popleft()
        return self._worst[0][1] if self._worst else 0.0

    def take_point(self) -> LagPoint:
        """Lag since the last call."""
        lags, self._since = sorted(self._since), []
        self._minute.extend(lags)
        if not lags:
            return LagPoint(0.0, 0.0, 0.0)
        minute = sorted(self._minute)
        return LagPoint(lags[len(lags) // 2], minute[len(minute) * 99 // 100], lags[-1])

    def snapshot(self) -> Histogram:
        """All lags so far."""
        return self.recorder.snapshot()
