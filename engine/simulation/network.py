"""The simulated network: frames of all transfers, merged by time, come to the engine as from an interface."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections.abc import Iterator
from typing import Any

from engine.simulation.loop import VirtualLoop
from engine.simulation.transfers import Transfer, read_flow, read_http
from engine.values.errors import ConfigError
from engine.values.sources import Feed

_TICK_NS = 1_000_000  # packets are handed over once in it, like those of an interface
_FIRST_PORT, _PORTS = 32_768, 28_000


class Network:
    """What scripts send is played here. Loop thread only."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.feed = Feed(name="simulated network")
        """Where the packets come out."""
        self.used = asyncio.Event()
        """Whether anything was sent."""
        self.refused = ""
        """Why nothing can be sent, if so."""
        self.packets = 0
        """Frames that came so far."""
        self.lost = 0
        """Segments that were lost on purpose."""
        self._loop = loop
        self._seed = seed
        self._transfers = 0
        self._running: list[tuple[int, int, bytes, Iterator[tuple[int, bytes]]]] = []
        self._armed_ns: int | None = None

    def send(self, kind: str, given: Any) -> None:
        """Begin a transfer as `T.sim.http` or `T.sim.flow` say. Raises `ConfigError`."""
        if self.refused:
            raise ConfigError(f"T.sim.{kind}: {self.refused}")
        self._transfers += 1
        rng = random.Random(f"{self._seed}/transfer/{self._transfers}")
        transfer = read_http(given, rng) if kind == "http" else read_flow(given)
        self._begin(transfer, rng)
        self.used.set()

    def _begin(self, transfer: Transfer, rng: random.Random) -> None:
        now = self._loop.time()
        begin = now if transfer.at is None else max(transfer.at, now)
        port = _FIRST_PORT + self._transfers % _PORTS
        frames = transfer.frames(round(begin * 1e9), port, rng, self._count_lost)
        self._push(self._transfers, frames)
        self._arm()

    def _count_lost(self, segments: int) -> None:
        self.lost += segments

    def _push(self, number: int, frames: Iterator[tuple[int, bytes]]) -> None:
        following = next(frames, None)
        if following is not None:
            heapq.heappush(self._running, (following[0], number, following[1], frames))

    def _arm(self) -> None:
        if not self._running:
            return
        due_ns = math.ceil(self._running[0][0] / _TICK_NS) * _TICK_NS
        if self._armed_ns is None or due_ns < self._armed_ns:
            self._armed_ns = due_ns
            self._loop.at(due_ns / 1e9, lambda: self._deliver(due_ns))

    def _deliver(self, due_ns: int) -> None:
        if due_ns == self._armed_ns:
            self._armed_ns = None
        epoch = self._loop.wall() - self._loop.time()
        while self._running and self._running[0][0] <= due_ns:
            time_ns, number, frame, frames = heapq.heappop(self._running)
            self.packets += 1
            self.feed.put(epoch + time_ns / 1e9, frame)
            self._push(number, frames)
        self._arm()
