"""File operations whose source is deleted, whose folder goes or whose disk is full half way through."""

from __future__ import annotations

import asyncio
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

from engine import Engine
from engine.offload import moving, operations
from tests.offload.rig import turns
from tests.offload.slow_source import MakeSlow, making_slow_sources
from tests.pipeline.async_rig import MakeConfig, enduring
from tests.scripts import Collector, assert_counts_close, files_below, on_event, write
from tests.support import eventually, eventually_in_thread, no_threads_left

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


# ---- copies that are made with one call, of which one is slow


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeSlow]:
    with making_slow_sources(tmp_path, monkeypatch) as make:
        yield make


WARM = "for i = 1, 48 do T.async:copy('{0}/source', '{0}/warm') end"
MANY = "for i = 0, 15 do T.async:copy('{0}/' .. (i == 2 and 'slow' or 'source'), '{0}/t' .. i) end"


def there(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("t*")}


async def at_rest(engine: Engine) -> None:
    """All is settled, and the next run draws all copies of a hook at once; a worker may wait at the lane."""

    def is_it() -> bool:
        [queue] = engine._pipeline.gate._queues
        servers = int(queue._lane.is_idle_server(queue._lane.slot))
        return not engine.stats.tasks.pending and queue._running == servers

    await eventually(is_it)


EVENTS = """
local function work(data) return data end
local function back(engine, data, answer) T.loginfo(answer) end
local function quick(data)
  for i = 1, 20 do T.async:schedule{{ data = data, onexecute = work, onresult = back }} end
end
"""


async def test_quick_tasks_do_not_start_before_copies_that_were_called_before_them(
    config: MakeConfig, tmp_path: Path, slow: MakeSlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_WATCH_SECONDS", 3600.0)  # nothing is taken from the copier
    (tmp_path / "source").write_bytes(b"quick")
    hook = f"""
      if topic == 'quick' then quick(event) elseif topic == 'warm' then {WARM.format(tmp_path)}
      elseif topic == 'many' then {MANY.format(tmp_path)} end"""
    script = write(tmp_path, on_event(hook, before=EVENTS.format(), rest="request_async_workers = 2"))
    collector = Collector()
    with no_threads_left():
        async with asyncio.timeout(60), Engine([script], config=config(), sinks=[collector]) as engine:

            async def settled() -> None:
                await eventually(lambda: not engine.stats.tasks.pending)

            for topic in ("warm", "quick", "quick", "quick"):  # and these may go by the lane
                await engine.emit(topic, b"before")
                await settled()
            await at_rest(engine)
            held = slow()
            await engine.emit("many", b"")
            await eventually(held.is_entered)
            for _ in range(3):
                await engine.emit("nothing", b"")
                await engine.emit("quick", b"behind")
                await turns()
            assert engine.stats.tasks.queued == 60
            assert collector.logged() == ["before"] * 60
            held.release()
            await settled()
            assert collector.logged() == ["before"] * 60 + ["behind"] * 60
        assert_counts_close(engine.stats)
    assert len(there(tmp_path)) == 16


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_script_is_unloaded_while_a_copy_is_slow(
    config: MakeConfig, tmp_path: Path, slow: MakeSlow, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(operations, "_WATCH_SECONDS", 3600.0)
    (tmp_path / "source").write_bytes(b"quick")
    hook = f"if topic == 'warm' then {WARM.format(tmp_path)} else {MANY.format(tmp_path)} end"
    script = write(tmp_path, on_event(hook, rest=f"request_async_workers = {workers}"))
    with no_threads_left():
        async with asyncio.timeout(60), Engine([script], config=config()) as engine:
            await engine.emit("warm", b"")
            await at_rest(engine)
            held = slow()
            await engine.emit("many", b"")
            await eventually(held.is_entered)
            unloading = asyncio.ensure_future(engine.unload(script.name))
            await turns()
            assert engine.stats.tasks.pending == 16
            held.release()
            await unloading
            await eventually(lambda: not engine.stats.tasks.pending)
            assert len(there(tmp_path)) == 16
        assert_counts_close(engine.stats)
        assert (engine.stats.tasks.completed, engine.stats.tasks.abandoned) == (64, 0)


async def test_an_engine_that_ends_by_an_exception_while_a_copy_is_slow(
    config: MakeConfig, tmp_path: Path, slow: MakeSlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_WATCH_SECONDS", 3600.0)
    (tmp_path / "source").write_bytes(b"quick")
    hook = f"if topic == 'warm' then {WARM.format(tmp_path)} else {MANY.format(tmp_path)} end"
    script = write(tmp_path, on_event(hook))
    with no_threads_left():
        with pytest.raises(LookupError):
            async with asyncio.timeout(60), Engine([script], config=config()) as engine:
                await engine.emit("warm", b"")
                await at_rest(engine)
                held = slow()
                await engine.emit("many", b"")
                await eventually(held.is_entered)
                raise LookupError
        held.release()
        assert_counts_close(engine.stats)
        assert engine.stats.tasks.abandoned == 16
    eventually_in_thread(lambda: there(tmp_path) == {"t0", "t1", "t2"})
    assert [path for path in files_below(tmp_path) if path.suffix == ".tmp"] == []
