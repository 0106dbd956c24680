"""Reloads scripts that change on disk while they run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from engine import Engine, EngineError


async def watch_scripts(engine: Engine, scripts: Sequence[Path]) -> None:
    """Until it is cancelled: the backend blocks of a script that changes are replaced, of one that goes are ended.

    A version that does not load leaves the one before it running; the engine's log says why.
    """
    from watchfiles import awatch

    watched = {path.absolute() for path in scripts}
    folders = {path.parent for path in watched}
    async for changes in awatch(*folders, recursive=False, debounce=100, step=20):
        for path in sorted({Path(changed) for _, changed in changes} & watched):
            with suppress(EngineError):  # the engine has logged it
                await engine.reload(path)
