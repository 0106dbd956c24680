"""Stream time: the time of the events that are handled."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """One clock for an engine: the wall's, until a source with times of its own is followed.

    Loop thread only. `wall` can be given by tests.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._stream: float | None = None

    def now(self) -> float:
        """Seconds since the epoch, in stream time."""
        return self._wall() if self._stream is None else self._stream

    def follow(self, stream_time: float) -> None:
        """Take the time of a source; it never runs backwards while the source lasts."""
        if self._stream is None or stream_time > self._stream:
            self._stream = stream_time

    def release(self) -> None:
        """The source has ended: back to the wall."""
        self._stream = None
