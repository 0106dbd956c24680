"""File operations: what they do, and that a failed one leaves the target as it was and nothing beside it."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.offload import Task, files

NOT_GIVEN_UP = threading.Event()
GIVEN_UP = threading.Event()
GIVEN_UP.set()


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


@pytest.mark.parametrize("method", ["copy", "cat"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_missing_source_leaves_the_target(tmp_path: Path, method: str, old: bytes | None) -> None:
    target = tmp_path / "target"
    if old is not None:
        target.write_bytes(old)
    message = perform(method, tmp_path / "absent", target)
    assert message == f"T.async:{method}: {tmp_path / 'absent'} -> {target}: No such file or directory"
    assert listing(tmp_path) == ([] if old is None else ["target"])


@pytest.mark.parametrize("method", ["copy", "cat"])
def test_a_big_file_in_many_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(files, "_PIECE", 64 << 10)
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
@pytest.mark.parametrize("code", sorted(files._NO_KERNEL_COPY))
def test_where_the_kernel_does_not_copy(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, also_sendfile: bool
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

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


# ---- given up or out of space


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("method", [files.copy, files.cat])
def test_a_given_up_operation_leaves_everything_as_it_was(
    source: Path, tmp_path: Path, method: Any, old: bytes | None
) -> None:
    target = tmp_path / "target"
    if old is not None:
        target.write_bytes(old)
    with pytest.raises(files.Abandoned):
        method(str(source), str(target), GIVEN_UP)
    assert listing(tmp_path) == (["source"] if old is None else ["source", "target"])
    if old is not None:
        assert target.read_bytes() == old


# A process that may write files of at most 100 kB does one operation and prints what came of it.
_LIMITED = """
import resource, sys, threading
from engine.offload import Task, files

files._PIECE = 30_000  # so that a part is written before it fails
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
method, source, target, position = sys.argv[1:]
task = Task(1, 0, method, source=source, target=target, data=b"n" * 150_000, position=int(position))
print(files.operate(task, threading.Event()))
"""


@pytest.mark.parametrize("old", [None, 50_000], ids=["new", "old"])
@pytest.mark.parametrize(
    ("method", "position"), [("copy", -1), ("cat", -1), ("copybuffer", -1), ("copybuffer", 0), ("copybuffer", 40_000)]
)
def test_out_of_space_restores_the_target(tmp_path: Path, method: str, position: int, old: int | None) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"n" * 150_000)
    contents = os.urandom(old) if old else b""
    if old:
        target.write_bytes(contents)
    source_argument = "" if method == "copybuffer" else str(source)
    said = subprocess.run(
        [sys.executable, "-c", _LIMITED, method, source_argument, str(target), str(position)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip().endswith(os.strerror(errno.EFBIG))
    assert listing(tmp_path) == (["source", "target"] if old else ["source"])
    if old:
        assert target.read_bytes() == contents


async def test_a_sequence_runs_on_the_thread_of_the_executor() -> None:
    ran: list[str] = []
    with ThreadPoolExecutor(1, thread_name_prefix="file") as executor:
        await files.in_thread(lambda: ran.append(threading.current_thread().name), executor)
    assert [name.startswith("file") for name in ran] == [True]
