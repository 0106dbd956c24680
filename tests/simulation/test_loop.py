"""The loop in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from engine.simulation.loop import TimeStandsStillError, VirtualLoop
from engine.values.errors import EngineError


def run(loop: VirtualLoop, main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a loop, and close that."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)


def test_an_hour_of_sleep_takes_no_time() -> None:
    loop = VirtualLoop(1_000.0)
    began = time.monotonic()
    run(loop, asyncio.sleep(3_600))
    assert time.monotonic() - began < 5
    assert (loop.time(), loop.wall()) == (3_600.0, 4_600.0)


def test_timers_come_in_their_order_and_at_their_time() -> None:
    loop, seen = VirtualLoop(0.0), []

    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((seconds, loop.time()))

    async def main() -> None:
        await asyncio.gather(*map(wait, (3.0, 0.1, 2.5, 0.1 + 0.2)))

    run(loop, main())
    assert [each for each, _ in seen] == [0.1, 0.1 + 0.2, 2.5, 3.0]
    assert all(abs(due - at) < 1e-9 for due, at in seen)


def test_timers_work_after_a_thousand_years() -> None:
    loop = VirtualLoop(0.0)

    async def main() -> None:
        await asyncio.sleep(3.2e10)
        for _ in range(100):
            await asyncio.sleep(1e-7)

    run(loop, main())
    assert loop.time() >= 3.2e10


def test_the_world_goes_on_while_the_loop_is_held() -> None:
    loop, seen = VirtualLoop(0.0), []

    async def main() -> None:
        for at in (1.0, 2.0, 5.0):
            loop.at(at, lambda: seen.append(("moment", loop.time())))
        loop.call_later(1.5, lambda: seen.append(("timer", loop.time())))
        loop.hold(3.0)
        await asyncio.sleep(3.0)

    run(loop, main())
    assert seen == [("moment", 1.0), ("moment", 2.0), ("timer", 3.0), ("moment", 5.0)]


def test_what_happens_in_the_world_cannot_hold_the_loop() -> None:
    loop, refused = VirtualLoop(0.0), []

    def hold() -> None:
        with pytest.raises(EngineError, match="only work on the loop"):
            loop.hold(1.0)
        refused.append(loop.time())

    async def main() -> None:
        loop.at(1.0, hold)
        await loop.quiet()

    run(loop, main())
    assert refused == [1.0]


def test_ties_are_broken_by_rank_then_by_order() -> None:
    loop, seen = VirtualLoop(0.0), []

    async def main() -> None:
        for name, tie in (("c", 0.5), ("a", 0.1), ("d", 0.5), ("b", 0.2)):
            loop.at(1.0, lambda name=name: seen.append(name), tie)
        loop.at(1.0, lambda: seen.append("cancelled"), 0.3).cancel()
        await loop.quiet()

    run(loop, main())
    assert seen == ["a", "b", "c", "d"]


def test_executor_jobs_run_at_once_in_this_thread() -> None:
    loop = VirtualLoop(0.0)

    async def main() -> tuple[int, float]:
        await asyncio.sleep(2.0)
        return await asyncio.to_thread(threading.get_ident), loop.time()

    assert run(loop, main()) == (threading.get_ident(), 2.0)


def test_waiting_for_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.simulation.loop._PATIENCE", 0.01)
    loop = VirtualLoop(0.0)
    with pytest.raises(TimeStandsStillError, match="never happen"):
        run(loop, asyncio.Event().wait())


def test_going_on_without_time_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.simulation.loop._MOST_TURNS", 1_000)

    async def main() -> None:
        for _ in itertools.count():
            await asyncio.sleep(0)

    with pytest.raises(TimeStandsStillError, match="no time goes by"):
        run(VirtualLoop(0.0), main())
