"""A plugin of pytest with the fixture `offpath_engine`: engines that live as long as a test. Needs pytest-asyncio.

pytest finds it by itself where offpath is installed.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from engine.pipeline.engine import Engine
from engine.pipeline.records import Sink
from engine.values.config import Config
from engine.values.errors import EngineError

_fixture: Any
try:
    import pytest_asyncio
except ImportError:  # others may run their tests without it
    _fixture = pytest.fixture
else:
    _fixture = pytest_asyncio.fixture


class MakeEngine(Protocol):
    """What the fixture gives."""

    async def __call__(
        self,
        *scripts: str | Path,
        config: Config | None = None,
        sinks: Iterable[Sink] = (),
        script_errors: bool = False,
    ) -> Engine:
        """Start an engine. A script is a path, or text of more than one line, which is Lua.

        Raises `ScriptLoadError` for the first that does not load. The engine ends with the test, which fails when a
        script raised, unless `script_errors` says that it may.
        """


@_fixture  # type: ignore[untyped-decorator]
async def offpath_engine(tmp_path: Path) -> AsyncIterator[MakeEngine]:
    """Starts engines for a test: `engine = await offpath_engine("hash.lua")`. They end with it, in reverse order."""
    names = (f"script{number}.lua" for number in itertools.count(1))
    engines: list[tuple[Engine, bool]] = []
    async with AsyncExitStack() as stack:

        async def start(
            *scripts: str | Path,
            config: Config | None = None,
            sinks: Iterable[Sink] = (),
            script_errors: bool = False,
        ) -> Engine:
            paths = [_path_of(script, tmp_path, names) for script in scripts]
            engine = Engine(paths, config=config or Config(ramfs=tmp_path / "ramfs"), sinks=sinks)
            await stack.enter_async_context(_OwnTask(engine))
            for error in engine.load_errors:
                raise error
            engines.append((engine, script_errors))
            return engine

        yield start
    for engine, script_errors in engines:
        if engine.stats.script_errors and not script_errors:
            pytest.fail(f"scripts raised {engine.stats.script_errors} errors, see the log")


def _path_of(script: str | Path, folder: Path, names: Iterable[str]) -> Path:
    if isinstance(script, Path) or "\n" not in script:
        return Path(script)
    path = folder / next(iter(names))
    path.write_text(script, encoding="utf-8")
    return path


class _OwnTask:
    """Enters and leaves an engine in one task, which a fixture does not: it begins and ends in different ones."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._live())
        await asyncio.wait([self._ready, self._task], return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.done():
            await self._task
            raise EngineError("the engine ended before it began")

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        assert self._task is not None
        await self._task

    async def _live(self) -> None:
        async with self._engine:
            self._ready.set_result(None)
            await self._stop.wait()
