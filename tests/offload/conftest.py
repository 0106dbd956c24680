"""A rig and workers for each test, once for each kind of worker, and holds in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.offload import operations as operations_module
from tests.offload.process_rig import Drive, Driven
from tests.offload.rig import BYTECODES, HeldOperations, Hold, Rig, running_rig
from tests.offload.slow_source import MakeSlow, making_slow_sources
from tests.offload.worker_rig import Exchange, Made
from tests.processes import nothing_left
from tests.support import DEADLINE, WorkerKind


@pytest.fixture
async def rig(worker_kind: WorkerKind) -> AsyncIterator[Rig]:
    with nothing_left():
        async with running_rig(worker_kind) as rig:
            yield rig


@pytest.fixture
def hold(tmp_path: Path) -> Callable[[], Hold]:
    count = iter(range(1000))
    return lambda: Hold(tmp_path / f"hold{next(count)}")


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> HeldOperations:
    held = HeldOperations()
    monkeypatch.setattr(operations_module, "operate", held)
    return held


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeSlow]:
    with making_slow_sources(tmp_path, monkeypatch) as make:
        yield make


@contextmanager
def _making() -> Iterator[list[Made]]:
    """Takes workers, closes them, and checks what is left."""
    made: list[Made] = []
    with nothing_left():
        yield made
        for each in made:
            each.worker.close()
        for each in made:
            each.worker.executor.join(DEADLINE)
        made.clear()


@pytest.fixture
def make(worker_kind: WorkerKind) -> Iterator[Callable[..., Made]]:
    """Makes workers over an exchange, and ends them with the test."""
    with _making() as made:

        def make(exchange: Exchange, codes: Any = BYTECODES, **fields: Any) -> Made:
            made.append(Made(exchange, codes, worker_kind, **fields))
            return made[-1]

        yield make


@pytest.fixture
def drive() -> Iterator[Drive]:
    """Makes worker processes, and ends them with the test."""
    with _making() as made:

        def make(codes: dict[int, str], **fields: Any) -> Driven:
            driven = Driven(codes, **fields)
            made.append(driven)
            return driven

        yield make
