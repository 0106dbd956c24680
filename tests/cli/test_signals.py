"""Which signal calls what, on the loop and from the thread that watches it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from engine.cli.signals import Interrupts


class Calls:
    """Notes calls, and can be waited for."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.codes: list[int] = []
        self.left = threading.Event()
        self.changed = asyncio.Event()

    def stop(self) -> None:
        self.names.append("stop")
        self.changed.set()

    def abandon(self) -> None:
        self.names.append("abandon")
        self.changed.set()

    def leave(self, code: int) -> None:
        self.codes.append(code)
        self.left.set()

    async def wait(self) -> None:
        async with asyncio.timeout(30):
            await self.changed.wait()
        self.changed.clear()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_stop_then_abandon_then_leave(number: signal.Signals, code: int) -> None:
    calls = Calls()
    with Interrupts(calls.stop, calls.abandon, calls.leave) as interrupts:
        assert interrupts.exit_code == 0
        os.kill(os.getpid(), number)
        await calls.wait()
        assert (calls.names, interrupts.exit_code) == (["stop"], code)
        os.kill(os.getpid(), number)
        await calls.wait()
        assert (calls.names, calls.codes) == (["stop", "abandon"], [])
        os.kill(os.getpid(), number)
        assert await asyncio.to_thread(calls.left.wait, 30)
    assert calls.codes == [code]


async def test_a_loop_that_is_held_is_left() -> None:
    calls = Calls()
    with Interrupts(calls.stop, calls.abandon, calls.leave, grace=0.01):
        while not calls.left.wait(0.02):  # a pending signal swallows others of its kind
            os.kill(os.getpid(), signal.SIGINT)
    assert calls.codes[0] == 130


async def test_handlers_and_thread_are_gone_afterwards() -> None:
    before = threading.active_count()
    calls = Calls()
    with Interrupts(calls.stop, calls.abandon, calls.leave):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_outside_the_main_thread_it_does_nothing() -> None:
    calls = Calls()

    async def enter() -> int:
        with Interrupts(calls.stop, calls.abandon, calls.leave) as interrupts:
            return interrupts.exit_code

    assert await asyncio.to_thread(asyncio.run, enter()) == 0
