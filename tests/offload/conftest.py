"""A rig for each test, and holds in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from engine.offload import queue as queue_module
from tests.offload.rig import HeldOperations, Hold, Rig, running_rig
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
