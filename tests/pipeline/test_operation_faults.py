"""File operations whose source is deleted, whose folder goes or whose disk is full half way through."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.offload import moving
from tests.pipeline.async_rig import MakeConfig, enduring

COPY = "T.async:copy('{0}/source', '{0}/into/target')"


class Halfway:
    """Lets something happen after the first piece of a copy of two pieces and a bit."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.happens: Callable[[], object] = lambda: None
        self.source, self.folder = folder / "source", folder / "into"
        self.data = os.urandom(2 * moving.SMALL + 7)
        self.again()
        self._copy_file_range = os.copy_file_range
        monkeypatch.setattr(moving, "PIECE", moving.SMALL)
        monkeypatch.setattr(fcntl, "ioctl", self._refuse)
        monkeypatch.setattr(os, "copy_file_range", self._piece)

    def again(self) -> None:
        """All is there, and a copy is interrupted once."""
        self._pieces = 0
        self.source.write_bytes(self.data)
        self.folder.mkdir(exist_ok=True)
        (self.folder / "target").write_bytes(b"old")

    def _refuse(self, *_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "no clones here")

    def _piece(self, *arguments: int) -> int:
        moved = self._copy_file_range(*arguments)
        self._pieces += 1
        if self._pieces == 1:
            self.happens()
        return moved

    def contents(self) -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in self.folder.iterdir()}


@pytest.fixture
def halfway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Halfway:
    return Halfway(tmp_path, monkeypatch)


async def test_the_source_is_deleted(halfway: Halfway, config: MakeConfig, tmp_path: Path) -> None:
    halfway.happens = halfway.source.unlink
    async with enduring(tmp_path, config(), COPY.format(tmp_path)) as run:
        await run.wrong()
        assert halfway.contents() == {"target": halfway.data}
        assert run.errors == []
        await run.wrong()  # now it is not there from the beginning
    [error] = run.errors
    assert error.endswith(f"T.async:copy: {halfway.source} -> {halfway.folder}/target: {os.strerror(errno.ENOENT)}")
    assert halfway.contents() == {"target": halfway.data}


async def test_the_folder_of_the_target_is_removed(halfway: Halfway, config: MakeConfig, tmp_path: Path) -> None:
    halfway.happens = lambda: shutil.rmtree(halfway.folder)
    async with enduring(tmp_path, config(), COPY.format(tmp_path)) as run:
        await run.wrong()
        assert not halfway.folder.exists()
        halfway.again()
        halfway.happens = lambda: None
        await run.wrong()
    [error] = run.errors
    assert error.endswith(f"{halfway.folder}/target: {os.strerror(errno.ENOENT)}")
    assert halfway.contents() == {"target": halfway.data}
    assert run.stats.tasks.failed == 1


async def test_the_disk_is_full(halfway: Halfway, config: MakeConfig, tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    halfway.happens = full
    async with enduring(tmp_path, config(), COPY.format(tmp_path)) as run:
        await run.wrong()
        assert halfway.contents() == {"target": b"old"}
        await run.wrong()  # there is room again
    [error] = run.errors
    assert error.endswith(os.strerror(errno.ENOSPC))
    assert halfway.contents() == {"target": halfway.data}


@contextmanager
def file_size(most: int) -> Iterator[None]:
    """No file of this process may grow past a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "operation",
    [
        "copy('{0}/source', '{0}/target')",
        "cat('{0}/source', '{0}/target')",
        "copybuffer(('x'):rep(2^21), '{0}/target')",
        "copybuffer(('x'):rep(2^21), '{0}/target', 1)",
    ],
)
async def test_files_that_may_not_grow(config: MakeConfig, tmp_path: Path, operation: str) -> None:
    (tmp_path / "source").write_bytes(b"n" * (2 << 20))
    (tmp_path / "target").write_bytes(b"old")
    with file_size(1 << 20):
        async with enduring(tmp_path, config(), f"T.async:{operation.format(tmp_path)}") as run:
            await run.wrong()
            await run.wrong()
    assert [each.endswith(f"/target: {os.strerror(errno.EFBIG)}") for each in run.errors] == [True, True]
    assert (tmp_path / "target").read_bytes() == b"old"
    assert run.stats.tasks.failed == 2
