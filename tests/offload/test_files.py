"""File operations: what they do, and that a failed one leaves the target as it was and nothing beside it."""

from __future__ import annotations

import fcntl
import itertools
import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.offload import Task, files, moving

NOT_GIVEN_UP = threading.Event()


def perform(method: str, source: Any = "", target: Any = "", **fields: Any) -> str | None:
    return files.operate(Task(1, 0, method, source=str(source), target=str(target), **fields), NOT_GIVEN_UP)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"new \0 contents")
    return path


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A file on another file system than `tmp_path`."""
    path = Path("/dev/shm") / f"offpath-test-{uuid4().hex}"
    if not path.parent.is_dir():
        pytest.skip("no /dev/shm here")
    yield path
    path.unlink(missing_ok=True)


# ---- copy


def test_copy_creates_and_replaces(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    for old in (None, b"", b"a much longer text than the new one is"):
        if old is not None:
            target.write_bytes(old)
        assert perform("copy", source, target) is None
        assert target.read_bytes() == source.read_bytes()
    assert listing(tmp_path) == ["source", "target"]


def test_copy_replaces_by_rename(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with target.open("rb") as opened_before:
        assert perform("copy", source, target) is None
        assert opened_before.read() == b"old"


def test_copy_keeps_the_mode_of_the_target(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    target.chmod(0o604)
    assert perform("copy", source, target) is None
    assert stat.S_IMODE(target.stat().st_mode) == 0o604


def test_nobody_may_open_what_is_to_replace_a_private_target(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "target").touch(0o600)
    modes: list[int] = []
    monkeypatch.setattr(os, "fchmod", lambda descriptor, _: modes.append(os.fstat(descriptor).st_mode))
    assert perform("copy", source, tmp_path / "target") is None
    assert [stat.S_IMODE(mode) for mode in modes] == [0o600]


@pytest.mark.parametrize("old", [None, b"old"])
def test_copy_to_a_link_follows_it(source: Path, tmp_path: Path, old: bytes | None) -> None:
    (tmp_path / "link").symlink_to("target")
    if old is not None:
        (tmp_path / "target").write_bytes(old)
    assert perform("copy", source, tmp_path / "link") is None
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    assert listing(tmp_path) == ["link", "source", "target"]


def test_copy_onto_itself_changes_nothing(source: Path, tmp_path: Path) -> None:
    assert perform("copy", source, source) is None
    assert source.read_bytes() == b"new \0 contents"
    assert listing(tmp_path) == ["source"]


def test_copy_to_the_longest_name_there_is(source: Path, tmp_path: Path) -> None:
    target = tmp_path / ("n" * 255)
    assert perform("copy", source, target) is None
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("method", ["copy", "cat"])
def test_a_directory_as_target_is_refused(source: Path, tmp_path: Path, method: str) -> None:
    (tmp_path / "folder").mkdir()
    message = perform(method, source, tmp_path / "folder")
    assert message == f"T.async:{method}: {source} -> {tmp_path / 'folder'}: Is a directory"
    assert listing(tmp_path) == ["folder", "source"]
    assert listing(tmp_path / "folder") == []


@pytest.mark.parametrize("method", ["copy", "cat"])
def test_a_directory_as_source_is_refused(tmp_path: Path, method: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "target").write_bytes(b"old")
    message = perform(method, tmp_path / "folder", tmp_path / "target")
    assert message is not None
    assert message.endswith("Is a directory")
    assert (tmp_path / "target").read_bytes() == b"old"
    assert listing(tmp_path) == ["folder", "target"]


def test_temporary_names_differ_between_threads_and_processes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    rename = os.rename

    def watched(temporary: str, target: str) -> None:
        names.append(temporary)
        rename(temporary, target)

    monkeypatch.setattr(os, "rename", watched)
    with ThreadPoolExecutor(8) as threads:
        wrong = list(threads.map(lambda at: perform("copy", source, tmp_path / str(at % 5)), range(800)))
    assert wrong == [None] * 800
    assert len(set(names)) == 800
    assert listing(tmp_path) == ["0", "1", "2", "3", "4", "source"]
    monkeypatch.setattr(files, "_numbers", itertools.count())  # as a forked process has it
    monkeypatch.setattr(os, "getpid", lambda: 2**30)
    perform("copy", source, tmp_path / "target")
    assert len(set(names)) == 801


@pytest.mark.parametrize("method", ["copy", "cat"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_missing_source_leaves_the_target(tmp_path: Path, method: str, old: bytes | None) -> None:
    target = tmp_path / "target"
    if old is not None:
        target.write_bytes(old)
    message = perform(method, tmp_path / "absent", target)
    assert message == f"T.async:{method}: {tmp_path / 'absent'} -> {target}: No such file or directory"
    assert listing(tmp_path) == ([] if old is None else ["target"])


def test_a_copy_shares_blocks_where_the_file_system_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(moving.SMALL + 1)
    (tmp_path / "source").write_bytes(data)

    def clone(to: int, _request: int, of: int) -> None:
        os.write(to, os.pread(of, len(data), 0))

    monkeypatch.setattr(fcntl, "ioctl", clone)
    monkeypatch.delattr(os, "copy_file_range")
    assert perform("copy", tmp_path / "source", tmp_path / "target") is None
    assert (tmp_path / "target").read_bytes() == data


@pytest.mark.parametrize("method", ["copy", "cat"])
def test_a_big_file_in_many_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(moving, "PIECE", 64 << 10)
    data = os.urandom((3 << 20) + 7)
    (tmp_path / "source").write_bytes(data)
    assert perform(method, tmp_path / "source", tmp_path / "target") is None
    assert (tmp_path / "target").read_bytes() == data


@pytest.mark.parametrize("method", ["copy", "cat"])
def test_from_one_file_system_to_another(elsewhere: Path, tmp_path: Path, method: str) -> None:
    data = os.urandom(100_000)
    elsewhere.write_bytes(data)
    assert perform(method, elsewhere, tmp_path / "target") is None
    assert (tmp_path / "target").read_bytes() == data


@pytest.mark.parametrize("also_sendfile", [False, True])
@pytest.mark.parametrize("code", sorted(moving.NO_KERNEL_COPY))
def test_where_the_kernel_does_not_copy(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, also_sendfile: bool
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    source.write_bytes(os.urandom(moving.SMALL + 1))
    monkeypatch.setattr(fcntl, "ioctl", refuse)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    if also_sendfile:
        monkeypatch.setattr(os, "sendfile", refuse)
    assert perform("copy", source, tmp_path / "target") is None
    assert (tmp_path / "target").read_bytes() == source.read_bytes()


def test_a_file_that_has_no_size_is_copied_all_the_same(tmp_path: Path) -> None:
    assert perform("copy", "/proc/self/status", tmp_path / "target") is None
    assert (tmp_path / "target").read_bytes().startswith(b"Name:")


@pytest.mark.parametrize("method", ["copy", "cat"])
def test_a_pipe_as_source_does_not_hang(tmp_path: Path, method: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    perform(method, tmp_path / "pipe", tmp_path / "target")
    assert set(listing(tmp_path)) <= {"pipe", "target"}


@pytest.mark.parametrize("method", ["cat", "copybuffer"])
def test_a_pipe_as_target_does_not_hang(source: Path, tmp_path: Path, method: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    message = perform(method, source if method == "cat" else "", tmp_path / "pipe", data=b"x")
    assert message is not None
    assert listing(tmp_path) == ["pipe", "source"]


# ---- cat, rm, copybuffer


def test_cat_appends_and_creates(source: Path, tmp_path: Path) -> None:
    for times in (1, 2, 3):
        assert perform("cat", source, tmp_path / "target") is None
        assert (tmp_path / "target").read_bytes() == source.read_bytes() * times


@pytest.mark.parametrize("size", [10, 3 * moving.SMALL])
def test_cat_onto_itself_doubles_it(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    assert perform("cat", tmp_path / "file", tmp_path / "file") is None
    assert (tmp_path / "file").read_bytes() == data * 2


def test_rm_deletes_and_does_not_mind_absence(source: Path, tmp_path: Path) -> None:
    assert perform("rm", target=source) is None
    assert perform("rm", target=source) is None
    assert listing(tmp_path) == []


def test_rm_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    message = perform("rm", target=tmp_path / "folder")
    assert message is not None
    assert message.startswith(f"T.async:rm: {tmp_path / 'folder'}: ")
    assert listing(tmp_path) == ["folder"]


@given(st.lists(st.tuples(st.binary(max_size=20), st.integers(-1, 40)), max_size=6))
def test_buffers_land_where_a_bytearray_would_have_them(tmp_path_factory: pytest.TempPathFactory, writes: Any) -> None:
    target = tmp_path_factory.mktemp("w") / "target"
    model = bytearray()
    for data, position in writes:
        files.write(data, str(target), position)
        at = len(model) if position < 0 else position
        if data:
            model.extend(bytes(max(at - len(model), 0)))
            model[at : at + len(data)] = data
        assert target.read_bytes() == model


@pytest.mark.parametrize("position", [-1, 0])
def test_a_buffer_into_a_missing_folder_names_the_file(tmp_path: Path, position: int) -> None:
    message = perform("copybuffer", target=tmp_path / "no" / "file", data=b"x", position=position)
    assert message == f"T.async:copybuffer: {tmp_path / 'no' / 'file'}: No such file or directory"


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("copybuffer", {"data": b"x", "position": 2**53}),
        ("copybuffer", {"data": b"x", "target": "/nul\0/file"}),
        ("rm", {"target": "nul\0"}),
        ("copy", {"source": "nul\0", "target": "x"}),
    ],
)
def test_impossible_arguments_fail_with_a_message(tmp_path: Path, method: str, fields: dict[str, Any]) -> None:
    fields = {"target": str(tmp_path / "file"), **fields}
    message = perform(method, **fields)
    assert message is not None
    assert message.startswith(f"T.async:{method}: ")
    assert listing(tmp_path) == []


def test_touched_paths_follow_links_of_folders(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    via_link = files.touched_paths(Task(1, 0, "copy", source=f"{tmp_path}/link/a", target=f"{tmp_path}/link/b"))
    assert via_link == files.touched_paths(Task(1, 0, "copy", source=f"{tmp_path}/real/a", target=f"{tmp_path}/real/b"))
    assert files.touched_paths(Task(1, 0, "rm", target="/nul\0/file"))[1]


async def test_a_sequence_runs_on_the_thread_of_the_executor() -> None:
    ran: list[str] = []
    with ThreadPoolExecutor(1, thread_name_prefix="file") as executor:
        await files.in_thread(lambda: ran.append(threading.current_thread().name), executor)
    assert [name.startswith("file") for name in ran] == [True]
