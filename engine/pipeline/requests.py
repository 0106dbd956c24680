"""Requests: events whose handlers answer, at once or by a promise. Loop thread only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, Literal

from engine.pipeline.crossing import Event
from engine.pipeline.events import EventDoor
from engine.plugins.plugin import Plugin
from engine.values.errors import EngineClosedError, RequestError
from engine.vm.state import text
from lua_api import plain_from_lua

Collect = Literal["first", "all"] | Callable[[Any, Any], Any]
"""Which answers a request wants: the first that is not nil, all of these in the order of the plugins, or all of them
reduced by a function of two."""

_Answer = asyncio.Future[Any]


class Requests:
    """Asks the handlers of a topic, and waits for those that promised."""

    def __init__(self, door: EventDoor, now: Callable[[], float], take: Callable[[Iterable[Plugin]], None]) -> None:
        """`take` empties outboxes."""
        self._door = door
        self._now = now
        self._take = take
        self._promised: dict[tuple[Plugin, int], set[_Answer]] = {}

    @property
    def pending(self) -> int:
        """Answers that were promised and are waited for."""
        return sum(map(len, self._promised.values()))

    async def ask(self, topic: str, event: Event, timeout: float | None, collect: Collect) -> Any:  # noqa: ASYNC109
        """As `Engine.request`."""
        if collect not in ("first", "all") and not callable(collect):
            raise TypeError(f"collect is {collect!r}: it may be 'first', 'all' or a function of two answers")
        waiting: dict[_Answer, tuple[Plugin, int]] = {}
        answers = self._door.ask(topic, event, lambda plugin, told: self._answer(plugin, told, waiting))
        try:
            self._take([plugin for plugin, _ in answers])
            async with asyncio.timeout(timeout):
                each = [answer for _, answer in answers]
                return await (_first(each) if collect == "first" else _all(each, collect))
        finally:
            for answer, promise in waiting.items():
                self._forget(promise, answer)
            for _, answer in answers:
                if not answer.cancel() and not answer.cancelled():
                    answer.exception()  # looked at, so that nobody warns of it

    def _answer(self, plugin: Plugin, told: tuple[Any, Any], waiting: dict[_Answer, tuple[Plugin, int]]) -> _Answer:
        answer: _Answer = asyncio.get_running_loop().create_future()
        first, second = told
        if first is True:
            answer.set_result(None)
        elif first is False:
            answer.set_exception(RequestError(plugin.script, text(second)))
        elif isinstance(first, bytes):
            answer.set_result(plain_from_lua(first))
        else:
            promise = plugin, int(first)
            waiting[answer] = promise
            self._promised.setdefault(promise, set()).add(answer)
        return answer

    def answered(self, plugin: Plugin, number: int, ok: bool, value: bytes) -> None:
        """A promise that a request waits for was settled."""
        for answer in self._promised.pop((plugin, int(number)), ()):
            if answer.done():
                continue
            if ok:
                answer.set_result(plain_from_lua(value))
            else:
                answer.set_exception(RequestError(plugin.script, text(value or b"")))

    def plugins_changed(self) -> None:
        """Those that are gone will not answer."""
        for plugin, number in [each for each in self._promised if each[0].closed]:
            for answer in self._promised.pop((plugin, number)):
                if not answer.done():
                    answer.set_exception(RequestError(plugin.script, "it was unloaded before it answered"))

    def close(self) -> None:
        """The engine ends: nobody will answer."""
        for waiting in self._promised.values():
            for answer in waiting:
                if not answer.done():
                    answer.set_exception(EngineClosedError("answer a request"))
        self._promised.clear()

    def _forget(self, promise: tuple[Plugin, int], answer: _Answer) -> None:
        waiting = self._promised.get(promise)
        if waiting is not None:
            waiting.discard(answer)
            if not waiting:
                del self._promised[promise]


async def _first(answers: list[_Answer]) -> Any:
    """The first that is not None, in the order of the plugins among those that are there at a time."""
    failure: BaseException | None = None
    left = answers
    while left:
        await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for answer in [each for each in left if each.done()]:
            failure = failure or answer.exception()
            if answer.exception() is None and answer.result() is not None:
                return answer.result()
        left = [each for each in left if not each.done()]
    if failure is not None:
        raise failure
    return None


async def _all(answers: list[_Answer], collect: Collect) -> Any:
    values = [value for value in [await answer for answer in answers] if value is not None]
    if not callable(collect):
        return values
    return reduce(collect, values) if values else None
