"""A rig for each test, and holds in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.offload import queue as queue_module
from tests.offload.rig import BYTECODES, HeldOperations, Hold, Rig, running_rig
from tests.offload.worker_rig import Exchange, Made
from tests.support import no_threads_left


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    with no_threads_left():
        async with running_rig() as rig:
            yield rig


@pytest.fixture
def hold(tmp_path: Path) -> Callable[[], Hold]:
    count = iter(range(1000))
    return lambda: Hold(tmp_path / f"hold{next(count)}")


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> HeldOperations:
    held = HeldOperations()
    monkeypatch.setattr(queue_module, "operate", held)
    return held


@pytest.fixture
def make() -> Iterator[Callable[..., Made]]:
    """Makes workers over an exchange, and ends them with the test."""
    made: list[Made] = []

    def make(exchange: Exchange, codes: Any = BYTECODES, **fields: Any) -> Made:
        made.append(Made(exchange, codes, **fields))
        return made[-1]

    with no_threads_left():
        yield make
        for each in made:
            each.worker.close()
