"""The copier: what it copies is as files.py has it, and what it does not copy it leaves as it was."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.offload import Task, copier, files
from engine.offload.copier import MOST, Copier
from engine.offload.moving import SMALL
from tests.offload.rig import contents, running_rig
from tests.offload.slow_source import MakeSlow
from tests.processes import nothing_left
from tests.support import DEADLINE, eventually_in_thread

Kinds = dict[str, Callable[[Path], object]]
Looks = dict[str, tuple[int, bytes | str | None]]


def task(source: Any, target: Any) -> Task:
    return Task(1, 0, "copy", source=str(source), target=str(target))


def copied(with_it: Copier, *tasks: Task) -> list[int]:
    """What the copier's thread says of tasks."""
    with_it.start(len(tasks))
    return with_it.executor.submit(with_it.copy, tasks).result(DEADLINE)


@contextmanager
def made(name: str = "copies") -> Iterator[Copier]:
    with nothing_left():
        one = Copier(name)
        yield one
        one.close().join(DEADLINE)


@pytest.fixture(scope="module")
def shared() -> Iterator[Copier]:
    """A copier that many tests use; each finds it as good as new."""
    with made() as one:
        yield one


@pytest.fixture
def one() -> Iterator[Copier]:
    with made() as one:
        yield one


def looks(folder: Path) -> Looks:
    """All that is in a folder: modes, and contents or where links lead."""
    found: Looks = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        what: bytes | str | None = None
        if stat.S_ISLNK(mode):
            what = os.readlink(path)  # noqa: PTH115 - as it is written
        elif stat.S_ISREG(mode):
            what = b"unreadable" if not os.access(path, os.R_OK) else path.read_bytes()
        found[str(path.relative_to(folder))] = mode, what
    return found


# ---- all kinds of sources and targets


def a_file(data: bytes, mode: int = 0o644) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        path.write_bytes(data)
        path.chmod(mode)

    return make


def a_link(to: str, data: bytes | None) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        if data is not None:
            (path.parent / to).write_bytes(data)
        path.symlink_to(to)

    return make


def a_second_name_of_the_source(path: Path) -> None:
    source = Path(os.path.realpath(path.with_name("source")))
    if source.parent == path.parent and source.is_file():
        path.hardlink_to(source)


SOURCES: Kinds = {
    "file": a_file(b"new \0 contents"),
    "SMALL": a_file(os.urandom(SMALL)),
    "SMALL+1": a_file(os.urandom(SMALL + 1)),
    "empty": a_file(b""),
    "executable": a_file(b"#!/bin/sh", 0o755),
    "unreadable": a_file(b"secret", 0),
    "link": a_link("linked source", b"linked"),
    "broken link": a_link("nowhere", None),
    "endless link": a_link("source", None),
    "directory": Path.mkdir,
    "fifo": os.mkfifo,
    "proc": lambda path: path.symlink_to("/proc/sys/kernel/ostype"),
    "null": lambda path: path.symlink_to("/dev/null"),
    "missing": lambda path: None,
}

TARGETS: Kinds = {
    "new": lambda path: None,
    "old": a_file(b"old, and longer than what is new"),
    "private": a_file(b"old", 0o600),
    "read-only": a_file(b"old", 0o444),
    "odd mode": a_file(b"old", 0o6751),
    "link": a_link("linked target", b"old"),
    "dangling link": a_link("not yet there", None),
    "directory": Path.mkdir,
    "fifo": os.mkfifo,
    "same": a_second_name_of_the_source,
}

DONE_SOURCES = {"file", "SMALL", "executable", "link"}
DONE_TARGETS = {"new", "old", "private", "read-only", "odd mode", "same"}


def both_ways(
    folder: Path, with_it: Copier, make: Callable[[Path], tuple[str, str]]
) -> tuple[int, Looks, Looks, Looks, str | None]:
    """What the copier says; the folder before it, after it, and after files.py with what that says."""
    before, alone, plainly = folder / "before", folder / "alone", folder / "plainly"
    for each in (before, alone, plainly):
        each.mkdir()
        source, target = make(each)
        if each is alone:
            [moved] = copied(with_it, task(source, target))
        elif each is plainly:
            wrong = files.operate(task(source, target), threading.Event())
    return moved, looks(before), looks(alone), looks(plainly), wrong


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_it_copies_as_files_does_or_leaves_all_as_it_was(
    shared: Copier, tmp_path: Path, source: str, target: str
) -> None:
    def make(folder: Path) -> tuple[str, str]:
        SOURCES[source](folder / "source")
        TARGETS[target](folder / "target")
        return f"{folder}/source", f"{folder}/target"

    moved, before, alone, plainly, wrong = both_ways(tmp_path, shared, make)
    if moved < 0:
        assert alone == before
    else:
        assert wrong is None
        assert alone == plainly
        assert moved == len((tmp_path / "alone" / "target").read_bytes())
    may_read = source != "unreadable" or os.geteuid() == 0
    expected = source in DONE_SOURCES | {"unreadable"} and target in DONE_TARGETS and may_read
    assert (moved >= 0) is expected
    assert not [name for name in (*alone, *plainly) if name.endswith(".tmp")]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_a_new_file_has_the_mode_that_files_gives_it(shared: Copier, tmp_path: Path, mask: int) -> None:
    def make(folder: Path) -> tuple[str, str]:
        (folder / "source").write_bytes(b"new")
        return f"{folder}/source", f"{folder}/target"

    before = os.umask(mask)
    try:
        moved, _, alone, plainly, _ = both_ways(tmp_path, shared, make)
    finally:
        os.umask(before)
    assert moved == 3
    assert alone == plainly


NAMES = {
    "into a missing folder": ("source", "missing/target", False),
    "into a file": ("source", "source/target", False),
    "from a missing folder": ("missing/source", "target", False),
    "with a slash behind": ("source", "target/", False),
    "with a slash behind the source": ("source/", "target", False),
    "no target": ("source", "", False),
    "no source": ("", "target", False),
    "neither": ("", "", False),
    "a NUL in the source": ("source\0", "target", False),
    "a NUL in the target": ("source", "target\0x", False),
    "NUL": ("\0", "\0", False),
    "here": ("source", ".", False),
    "above": ("source", "..", False),
    "up and down": ("./folder/../source", "folder/.././target", True),
    "slashes": (".//source", "folder///target", True),
    "like an option": ("-r", "--target", True),
    "a percent sign": ("source", "%s%n/%d", True),
    "a line break": ("new\nline", "folder/a\nb", True),
    "no UTF-8": ("caf\udce9", "folder/\udcff\udcfe", True),
    "UTF-8": ("schön", "folder/ä→", True),
    "three dots": ("source", "...", True),
    "the longest": ("source", "x" * 255, True),
    "too long": ("source", "x" * 256, False),
}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("is_relative", [False, True])
def test_all_kinds_of_names(
    shared: Copier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, is_relative: bool
) -> None:
    from_name, to_name, expected = NAMES[names]

    def make(folder: Path) -> tuple[str, str]:
        for name in ("folder", "%s%n"):
            (folder / name).mkdir()
        for name in ("source", "-r", "new\nline", "caf\udce9", "schön"):
            (folder / name).write_bytes(b"of " + os.fsencode(name))
        monkeypatch.chdir(folder)
        if is_relative:
            return from_name, to_name
        return f"{folder}/{from_name}" if from_name else "", f"{folder}/{to_name}" if to_name else ""

    moved, before, alone, plainly, wrong = both_ways(tmp_path, shared, make)
    assert (moved >= 0) is expected
    assert alone == (plainly if expected else before)
    assert not expected or wrong is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do all")
def test_a_folder_that_may_not_be_written(shared: Copier, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "target").write_bytes(b"old")
    (tmp_path / "source").write_bytes(b"new")
    folder.chmod(0o555)
    try:
        assert copied(shared, task(tmp_path / "source", folder / "target")) == [-1]
    finally:
        folder.chmod(0o755)
    assert looks(folder) == {"target": ((folder / "target").lstat().st_mode, b"old")}


# A process in which no file may have more than 1000 bytes says what the copier moved, and then what files.py says.
_LIMITED = """
import resource, sys, threading
from engine.offload import Task, files
from engine.offload.copier import Copier

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
tasks = [Task(1, 0, "copy", source=source, target=sys.argv[-1]) for source in sys.argv[1:-1]]
copier = Copier("copies")
copier.start(len(tasks))
print(copier.executor.submit(copier.copy, tasks).result())
print([files.operate(task, threading.Event()) for task in tasks])
copier.close().join(60)
"""


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_disk_that_is_full(tmp_path: Path, old: bytes | None) -> None:
    (tmp_path / "fits").write_bytes(b"x" * 1000)
    (tmp_path / "big").write_bytes(b"x" * 1001)
    target = tmp_path / "target"
    if old is not None:
        target.write_bytes(old)
    before = looks(tmp_path)

    def said(*names: str) -> list[str]:
        arguments = [*(f"{tmp_path}/{name}" for name in names), str(target)]
        program = [sys.executable, "-c", _LIMITED, *arguments]
        return subprocess.run(program, capture_output=True, text=True, check=True).stdout.splitlines()

    moved, wrong = said("big")
    assert moved == "[-1]"
    assert "File too large" in wrong
    assert looks(tmp_path) == before
    assert said("fits", "big", "fits")[0] == "[1000, -1]"
    assert target.read_bytes() == b"x" * 1000
    assert sorted(looks(tmp_path)) == ["big", "fits", "target"]


def test_it_stops_at_the_first_that_it_does_not_do(shared: Copier, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"123")
    tasks = [task(tmp_path / "source", tmp_path / f"target{number}") for number in range(5)]
    tasks[2] = task(tmp_path / "missing", tmp_path / "target2")
    before = shared.begun
    assert copied(shared, *tasks) == [3, 3, -1]
    assert shared.begun - before == 3
    assert sorted(looks(tmp_path)) == ["source", "target0", "target1"]


# ---- stopped, closed, not usable


def test_what_was_stopped_before_it_began_is_not_done(one: Copier, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    one.start(2)
    assert one.left == 2
    assert one.stop() == 0
    assert one.left == 0
    assert one.executor.submit(one.copy, [task(tmp_path / "source", tmp_path / "target")] * 2).result(DEADLINE) == []
    assert sorted(looks(tmp_path)) == ["source"]
    assert copied(one, task(tmp_path / "source", tmp_path / "target")) == [1]


@pytest.mark.parametrize("at", range(3))
def test_stopped_while_a_copy_is_at_hand(slow: MakeSlow, one: Copier, tmp_path: Path, at: int) -> None:
    sources = [tmp_path / f"source{number}" for number in range(4)]
    for source in sources:
        source.write_bytes(b"x")
    held = slow(sources[at].name)
    one.start(4)
    copies = one.executor.submit(one.copy, [task(source, f"{source}.copy") for source in sources])
    eventually_in_thread(held.is_entered)
    assert (one.begun, one.left) == (at + 1, 3 - at)
    assert one.stop() == one.stop() == at + 1
    assert one.left == 0
    assert not copies.done()
    held.release()
    assert copies.result(DEADLINE) == [1] * at + [4]
    copies_there = sorted(name for name in looks(tmp_path) if name.endswith(".copy"))
    assert copies_there == [f"source{number}.copy" for number in range(at + 1)]


def test_closed_while_a_copy_is_at_hand(slow: MakeSlow, tmp_path: Path) -> None:
    with made() as one:
        held = slow()
        one.start(1)
        copies = one.executor.submit(one.copy, [task(held.path, tmp_path / "target")])
        eventually_in_thread(held.is_entered)
        one.close()
        assert not one.executor.gone.is_set()
        held.release()
        assert copies.result(DEADLINE) == [4]


@pytest.mark.parametrize("method", ["format", "find"])
def test_out_of_memory(one: Copier, tmp_path: Path, method: str) -> None:
    """What was done before is known, or it would be done again, when its source may be another one."""
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    tasks = [task(tmp_path / "a", tmp_path / "b"), task(tmp_path / "c", tmp_path / "a"), task(tmp_path / "b", "/d")]
    assert copied(one, task(tmp_path / "a", tmp_path / "a")) == [1]

    def fail_at_the_third() -> None:
        assert one._state is not None
        one._state.execute(
            b"local real, calls, method = nil, 0, ... real = string[method] "
            b"string[method] = function(...) calls = calls + 1 "
            b"if calls == (method == 'format' and 2 or 4) then error('not enough memory', 0) end return real(...) end",
            method.encode(),
        )

    one.executor.submit(fail_at_the_third).result(DEADLINE)
    moved = copied(one, *tasks)
    assert not one.is_usable
    assert moved == [1, -1]
    assert (tmp_path / "b").read_bytes() == b"a"
    assert sorted(looks(tmp_path)) == ["a", "b", "c"]


def test_closed_twice_and_never_used() -> None:
    with nothing_left():
        one = Copier("copies")
        assert one.close() is one.close()
        one.executor.join(DEADLINE)


def test_closed_after_it_was_used(tmp_path: Path) -> None:
    with made() as one:
        (tmp_path / "source").write_bytes(b"x")
        assert copied(one, task(tmp_path / "source", tmp_path / "target")) == [1]
        one.close()


def test_a_c_library_without_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lua = Path(copier.__file__).with_suffix(".lua").read_text()
    package = tmp_path / "without"
    package.mkdir()
    (package / "copier.lua").write_text(lua.replace('"statx"', '"offpath_there_is_no_such_function"'))
    monkeypatch.setattr(copier, "__file__", str(package / "copier.py"))
    (tmp_path / "source").write_bytes(b"x")
    before = looks(tmp_path)
    with made() as one:
        assert copied(one, *[task(tmp_path / "source", tmp_path / "target")] * 2) == [-1]
        assert not one.is_usable
    assert looks(tmp_path) == before


# ---- through a queue

NAMED = st.sampled_from("abcde")


@settings(max_examples=60, deadline=None)
@example([("a", "b"), ("b", "c"), ("c", "a"), ("a", "b")] * 9, 1, 2)
@example([("a", "b"), ("c", "a"), ("e", "a"), ("a", "d")] * 9, 3, 2)
@given(st.lists(st.tuples(NAMED, NAMED), max_size=2 * MOST + 9), st.integers(1, 3), st.integers(1, 2))
async def test_copies_through_a_queue_are_as_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, copies: list[tuple[str, str]], workers: int, queues: int
) -> None:
    folders, model = [tmp_path_factory.mktemp("q") for _ in range(queues)], {"a": b"first", "b": b"second", "d": b""}
    for folder in folders:
        for name, data in model.items():
            (folder / name).write_bytes(data)
    failed = 0
    for source, target in copies:
        if source in model:
            model[target] = model[source]
        else:
            failed += 1
    with nothing_left():
        async with running_rig() as rig:
            each = [rig.queue(workers, deliver_count=lambda count: None) for _ in folders]
            for queue, folder in zip(each, folders, strict=True):
                for source, target in copies:
                    rig.operation(queue, "copy", folder / source, folder / target)
            await rig.settled()
            counts = [(queue.stats().completed, queue.stats().failed, queue.stats().waits.count) for queue in each]
    assert [contents(folder) for folder in folders] == [model] * queues
    assert counts == [(len(copies) - failed, failed, len(copies))] * queues
