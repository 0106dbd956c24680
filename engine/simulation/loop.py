"""An asyncio loop in virtual time: it never waits, but goes on to the next moment at which something is to happen.

Two kinds of things happen. Timers of the loop, which are late when a hook holds it. And *moments* of the world around
it, as the arrival of an event or the end of a task on another thread: they happen at their time whatever the loop does.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import itertools
import math
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from engine.values.errors import EngineError

_MOST_TURNS = 1_000_000  # of the loop at one time
_PATIENCE = 5.0  # seconds of the wall's clock that a thread of somebody else may take when nothing else is left


class TimeStandsStillError(EngineError):
    """Raised when something goes on for ever without any time going by, or nothing is left that could happen."""


class _Selector(selectors.DefaultSelector):
    """Asks for files that are ready, and never waits for them: time goes on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on: Callable[[float | None], bool] = lambda _timeout: False
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As in the base class, without waiting."""
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            self._turns += 1
            if self._turns > _MOST_TURNS:
                raise TimeStandsStillError("the simulation goes on and on, and no time goes by")
            return ready
        self._turns = 0
        if self.go_on(timeout):
            return ready
        ready = super().select(_PATIENCE)
        if not ready:
            raise TimeStandsStillError("the simulation waits for something that will never happen")
        return ready


class Moment:
    """Something that will happen in the world, unless it is cancelled."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Let it not happen."""
        self.call = None


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs in one thread, in which executor jobs run, too, at once. `time()` begins at 0."""

    def __init__(self, epoch: float) -> None:
        """`epoch` is what a clock on the wall says at the beginning."""
        self._cell = (ctypes.c_double * 2)(0.0, epoch)
        self._moments: list[tuple[float, float, int, Moment]] = []
        self._numbers = itertools.count()
        self._in_moment = False
        self._waiting: list[asyncio.Future[None]] = []
        self.has_threads: Callable[[], bool] = lambda: False
        """Whether a thread is at work that time has to wait for."""
        selector = _Selector()
        super().__init__(selector)
        selector.go_on = self._go_on

    # ---- time

    def time(self) -> float:
        """Seconds since the beginning."""
        return self._cell[0]

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._cell[0] + self._cell[1]

    def jump_wall(self, seconds: float) -> None:
        """Put the clock on the wall forward, or back."""
        self._cell[1] += seconds

    @property
    def clock_address(self) -> int:
        """Where two doubles lie: `time()`, and the epoch at the beginning. They live as long as the loop."""
        return ctypes.addressof(self._cell)

    def _set(self, moment: float) -> None:
        self._cell[0] = moment
        # A timer counts as due within the resolution of the clock: not less than what a double can tell apart.
        self._clock_resolution = max(1e-9, 4 * math.ulp(moment))

    def _go_on(self, timeout: float | None) -> bool:
        """Go to the next thing that is to happen, and at most so many seconds. False when there is none."""
        if self.has_threads():
            return False
        until = None if timeout is None else self.time() + timeout
        self._forget_cancelled()
        if self._moments and (until is None or self._moments[0][0] <= until):
            self._set(max(self._moments[0][0], self.time()))
            self.call_soon(self._happen, self.time())
            return True
        if until is not None:
            self._set(until)
        return until is not None

    # ---- the world

    def at(self, time: float, call: Callable[[], object], tie: float = 0.0) -> Moment:
        """Have something happen at a time; of what happens at the same one, the least `tie` comes first."""
        moment = Moment(call)
        heapq.heappush(self._moments, (time, tie, next(self._numbers), moment))
        return moment

    @property
    def is_over(self) -> bool:
        """Whether nothing is to happen in the world any more."""
        self._forget_cancelled()
        return not self._moments

    async def quiet(self) -> None:
        """Wait until nothing is to happen in the world any more."""
        while not self.is_over:
            self._waiting.append(self.create_future())
            await self._waiting[-1]

    def hold(self, seconds: float) -> None:
        """Let time go by while the loop does nothing else. The world goes on, but nothing in it can hold the loop."""
        if self._in_moment:
            raise EngineError("only work on the loop can hold it, not what happens in the world around")
        until = self.time() + seconds
        self._happen(until)
        self._set(until)

    def _happen(self, until: float) -> None:
        """Have everything happen up to a time."""
        self._in_moment = True
        try:
            while self._moments and self._moments[0][0] <= until:
                time, _, _, moment = heapq.heappop(self._moments)
                call, moment.call = moment.call, None
                if call is not None:
                    self._set(max(time, self.time()))
                    call()
        finally:
            self._in_moment = False
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)
            self._waiting.clear()

    def _forget_cancelled(self) -> None:
        while self._moments and self._moments[0][3].call is None:
            heapq.heappop(self._moments)

    # ---- threads

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call a function here and now; no time goes by."""
        del executor
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as exc:
            future.set_exception(exc)
        return future
