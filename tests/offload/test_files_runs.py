"""Runs of appends to one target: the same contents and the same messages as one by one, with fewer system calls."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.offload import Task, files, moving

NOT_GIVEN_UP = threading.Event()


def buffer(data: bytes, target: Any = "/t", position: int = -1) -> Task:
    return Task(1, 0, "copybuffer", data=data, target=str(target), position=position)


def cat(source: Any, target: Any = "/t") -> Task:
    return Task(1, 0, "cat", source=str(source), target=str(target))


@contextmanager
def no_file_longer_than(limit: int) -> Iterator[None]:
    """A disk that is full when a file has that many bytes."""

    def limited(real: Callable[..., int], cut: Callable[[Any, int], Any], at: int) -> Callable[..., int]:
        def write(*arguments: Any) -> int:
            to = arguments[at]
            room = limit - os.lseek(to, 0, os.SEEK_CUR)
            taken = list(arguments)
            taken[-1] = cut(arguments[-1], max(room, 0))
            if not taken[-1] and arguments[-1]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*taken)

        return write

    def first_bytes(buffers: list[bytes], room: int) -> list[bytes]:
        joined = b"".join(buffers)
        return [joined[:room]] if room or not joined else []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", limited(os.write, lambda data, room: data[:room], 0))
        patch.setattr(os, "writev", limited(os.writev, first_bytes, 0))
        patch.setattr(os, "copy_file_range", limited(os.copy_file_range, min, 1))
        patch.setattr(moving, "SMALL", 8)  # so that both ways to move bytes are gone
        patch.setattr(moving, "PIECE", 5)
        yield


SOURCES = {"empty": b"", "small": b"12345", "big": b"a file that the kernel copies"}

steps = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from([*SOURCES, "absent", "folder", "target", "nul\0"]),
    ),
    min_size=1,
    max_size=12,
)


@example([b"", b"x"], None, 0)
@given(steps, st.sampled_from([None, b"", b"old contents", "folder"]), st.integers(0, 200))
def test_a_run_is_as_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, steps: list[bytes | str], old: bytes | str | None, limit: int
) -> None:
    came_of_it = []
    for together in (True, False):
        folder = tmp_path_factory.mktemp("run")
        (folder / "folder").mkdir()
        for name, contents in SOURCES.items():
            (folder / name).write_bytes(contents)
        target = folder / "target"
        if isinstance(old, bytes):
            target.write_bytes(old)
        elif old is not None:
            target.mkdir()
        tasks = [cat(f"{folder}/{each}", target) if isinstance(each, str) else buffer(each, target) for each in steps]
        with no_file_longer_than(limit):
            if together:
                wrong = files.operate_run(tasks, NOT_GIVEN_UP)
            else:
                wrong = [files.operate(task, NOT_GIVEN_UP) for task in tasks]
        contents = target.read_bytes() if target.is_file() else None
        messages = [each and each.replace(str(folder), "") for each in wrong]
        came_of_it.append((messages, contents, sorted(path.name for path in folder.iterdir())))
    assert came_of_it[0] == came_of_it[1]


def test_a_failed_one_leaves_what_was_before_and_the_later_ones_go_on(tmp_path: Path) -> None:
    tasks = [buffer(data, tmp_path / "target") for data in (b"one,", b"much too long,", b"two,", b"too", b"3")]
    with no_file_longer_than(9):
        wrong = files.operate_run(tasks, NOT_GIVEN_UP)
    assert [each is None for each in wrong] == [True, False, True, False, True]
    assert (tmp_path / "target").read_bytes() == b"one,two,3"


def test_buffers_that_the_kernel_takes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writev, write = os.writev, os.write
    monkeypatch.setattr(os, "writev", lambda to, buffers: writev(to, [b"".join(buffers)[:7]]))
    monkeypatch.setattr(os, "write", lambda to, data: write(to, data[:3]))
    tasks = [buffer(b"%d," % at * (at % 5), tmp_path / "target") for at in range(60)]
    assert files.operate_run(tasks, NOT_GIVEN_UP) == [None] * 60
    assert (tmp_path / "target").read_bytes() == b"".join(task.data for task in tasks)


def test_a_run_opens_its_target_once_and_writes_buffers_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: Any) -> Any:
            calls.append(name)
            return real(*arguments)

        monkeypatch.setattr(os, name, call)

    target = tmp_path / "target"
    target.write_bytes(b"old,")
    tasks = [buffer(b"%d," % at, target) for at in range(3000)]
    for name in ("open", "write", "writev"):
        counted(name)
    assert files.operate_run(tasks, NOT_GIVEN_UP) == [None] * 3000
    assert calls == ["open", "writev", "writev", "writev"]  # the kernel takes 1024 at once
    assert target.read_bytes() == b"old," + b"".join(task.data for task in tasks)


def test_a_given_up_run_does_not_begin_files(tmp_path: Path) -> None:
    given_up = threading.Event()
    given_up.set()
    (tmp_path / "source").write_bytes(b"x")
    tasks = [cat(tmp_path / "source", tmp_path / "target") for _ in range(3)]
    assert files.operate_run(tasks, given_up) == ["given up"] * 3
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("first", "following", "together"),
    [
        (buffer(b"a"), buffer(b"b"), True),
        (buffer(b"a"), cat("/s"), True),
        (cat("/s"), buffer(b"a"), True),
        (cat("/s"), cat("/t"), True),
        (buffer(b"a"), buffer(b"b", "/other"), False),
        (buffer(b"a"), buffer(b"b", position=0), False),
        (buffer(b"a", position=0), buffer(b"b"), False),
        (buffer(b"a"), Task(1, 0, "rm", target="/t"), False),
        (Task(1, 0, "copy", source="/s", target="/t"), cat("/s"), False),
        (buffer(b"a", ""), Task(1, 0, "schedule"), False),
        (Task(1, 0, "schedule"), Task(1, 0, "schedule"), False),
    ],
)
def test_what_coalesces(first: Task, following: Task, together: bool) -> None:
    assert files.coalesces(first, following) is together


def test_a_run_touches_what_its_operations_touch(tmp_path: Path) -> None:
    tasks = [cat(tmp_path / "a", tmp_path / "t"), buffer(b"", tmp_path / "t"), cat(tmp_path / "b", tmp_path / "t")]
    tasks.append(cat(tmp_path / "a", tmp_path / "t"))
    alone = [files.touched_paths(Task(1, 0, each.method, source=each.source, target=each.target)) for each in tasks]
    reads, writes = files.touched_by_run(tasks)
    assert sorted(reads) == sorted({path for each in alone for path in each[0]})
    assert writes == alone[0][1]
