"""Scripts with async work, and what engines with workers of either kind make of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

from engine import Config, Engine, EngineStats
from tests.processes import nothing_left
from tests.scripts import Collector, assert_counts_close, files_below, on_event, write
from tests.support import eventually

MakeConfig = Callable[..., Config]
"""Settings with the kind of worker that the test runs for."""

Logged = Callable[..., Coroutine[None, None, tuple[Collector, EngineStats]]]

TOLD = 'onerror = function(engine, d, message) T.loginfo(d .. "!" .. message) end'
"""Logs what a task failed of, for `more` of `task`."""


def task(onexecute: str, onresult: str = "T.loginfo(d .. '>' .. r)", *, data: str = "in", more: str = "") -> str:
    """One call of schedule; the callbacks have `d`, and `r` for the result."""
    return (
        f'T.async:schedule{{ data = "{data}", onexecute = function(d) {onexecute} end, '
        f"onresult = function(engine, d, r) {onresult} end, {more} }}"
    )


def times(count: int, body: str) -> str:
    return f"for i = 1, {count} do {body} end"


async def logged_of(
    folder: Path, config: Config, body: str, *, rest: str = "", before: str = ""
) -> tuple[Collector, EngineStats]:
    """All records after one event to a script with this hook."""
    collector = Collector()
    script = write(folder, on_event(body, rest=rest, before=before), "work.lua")
    async with Engine([script], config=config, sinks=[collector]) as engine:
        assert engine.load_errors == ()
        await engine.emit("t", "go")
    assert_counts_close(engine.stats)
    return collector, engine.stats


# Taken out of T while it is whole.
_BEFORE = "local async, info = T.async, T.loginfo\n"


def _well(said: str) -> str:
    return (
        f'async:schedule{{ data = "well", onexecute = function(d) return d .. ">{said}" end, '
        "onresult = function(engine, d, r) info(r) end }"
    )


class Enduring:
    """An engine with a script that does something wrong, and one beside it that does not."""

    def __init__(self, engine: Engine, collector: Collector) -> None:
        self.engine = engine
        self.stuck = 0
        """Threads that are expected to be left behind at the end, as nothing can end them."""
        self.let_go: Callable[[], object] = lambda: None
        """Ends what is left, after it was looked at."""
        self._collector = collector
        self._well = 0

    @property
    def stats(self) -> EngineStats:
        return self.engine.stats

    @property
    def lines(self) -> list[str]:
        """What was logged, but for what both scripts say when all is well."""
        return [line for line in self._collector.logged() if not line.startswith("well")]

    @property
    def errors(self) -> list[str]:
        return self._collector.logged("ERROR")

    async def settled(self) -> None:
        await eventually(lambda: not self.stats.tasks.pending)

    async def wrong(self, event: bytes = b"") -> None:
        """Have it done, and wait for what comes of it."""
        await self.engine.emit("wrong", event)
        await self.settled()

    async def well(self) -> None:
        """Both scripts get their results."""
        await self.engine.emit("well", b"")
        await self.settled()
        self._well += 1
        said = [line for line in self._collector.logged() if line.startswith("well")]
        assert sorted(said) == sorted(["well>one", "well>two", "well>other"] * self._well)


@asynccontextmanager
async def enduring(
    folder: Path, config: Config, wrong: str, *, before: str = "", rest: str = ""
) -> AsyncIterator[Enduring]:
    """Has a hook that does `wrong`, when it is told to. Afterwards nothing may be lost, and nothing left.

    Both scripts do their work before and after; all tasks are accounted for; no thread, no process, no descriptor, no
    temporary and no extracted file stays.
    """
    collector = Collector()
    hook = f"if topic == 'well' then {_well('one')} {_well('two')} elseif topic == 'wrong' then {wrong} end"
    script = write(folder, on_event(hook, before=_BEFORE + before, rest=rest), "wrong.lua")
    other = write(folder, on_event(_well("other"), topics='"well"', before=_BEFORE), "other.lua")
    with nothing_left():
        scripts = [script, other]
        async with asyncio.timeout(60), Engine(scripts, config=config, sinks=[collector]) as engine:
            assert engine.load_errors == ()
            run = Enduring(engine, collector)
            await run.well()
            yield run
            await run.well()
        assert_counts_close(engine.stats)
        assert engine.stats.tasks.stuck_threads == run.stuck
        run.let_go()
    assert [path for path in files_below(folder) if path.suffix == ".tmp"] == []
    assert config.ramfs is None or files_below(config.ramfs) == []
