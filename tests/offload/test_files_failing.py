"""File operations that are given up, run out of space or lose their files: what they leave behind."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.offload import Task, files, moving

GIVEN_UP = threading.Event()
GIVEN_UP.set()


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"new \0 contents")
    return path


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("method", [files.copy, files.cat])
def test_a_given_up_operation_leaves_everything_as_it_was(
    source: Path, tmp_path: Path, method: Any, old: bytes | None
) -> None:
    target = tmp_path / "target"
    if old is not None:
        target.write_bytes(old)
    with pytest.raises(moving.Abandoned):
        method(str(source), str(target), GIVEN_UP)
    assert listing(tmp_path) == (["source"] if old is None else ["source", "target"])
    if old is not None:
        assert target.read_bytes() == old


def test_a_failed_cat_to_a_link_that_leads_nowhere_leaves_the_link(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(moving.Abandoned):
        files.cat(str(source), str(tmp_path / "link"), GIVEN_UP)
    assert listing(tmp_path) == ["link", "source"]


class Halfway:
    """Lets something happen after the first piece of a copy of two pieces and a bit."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.happens: Callable[[], object] = lambda: None
        self.given_up = threading.Event()
        self.pieces = 0
        self.source, self.folder, self.target = folder / "source", folder / "into", folder / "into" / "target"
        self.source.write_bytes(os.urandom(2 * moving.SMALL + 7))
        self.folder.mkdir()
        self.target.write_bytes(b"old")
        self._copy_file_range = os.copy_file_range
        monkeypatch.setattr(moving, "PIECE", moving.SMALL)
        monkeypatch.setattr(fcntl, "ioctl", self._refuse)
        monkeypatch.setattr(os, "copy_file_range", self._piece)

    def _refuse(self, *_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "no clones here")

    def _piece(self, *arguments: int) -> int:
        moved = self._copy_file_range(*arguments)
        self.pieces += 1
        if self.pieces == 1:
            self.happens()
        return moved

    def copy(self) -> str | None:
        return files.operate(Task(1, 0, "copy", source=str(self.source), target=str(self.target)), self.given_up)


@pytest.fixture
def halfway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Halfway:
    return Halfway(tmp_path, monkeypatch)


def test_given_up_halfway(halfway: Halfway) -> None:
    halfway.happens = halfway.given_up.set
    assert halfway.copy() == "given up"
    assert halfway.pieces == 1
    assert listing(halfway.folder) == ["target"]
    assert halfway.target.read_bytes() == b"old"


def test_a_source_deleted_halfway_is_copied_all_the_same(halfway: Halfway) -> None:
    data = halfway.source.read_bytes()
    halfway.happens = halfway.source.unlink
    assert halfway.copy() is None
    assert listing(halfway.folder) == ["target"]
    assert halfway.target.read_bytes() == data


def test_a_source_cut_short_halfway_is_copied_as_far_as_it_goes(halfway: Halfway) -> None:
    data = halfway.source.read_bytes()[: moving.SMALL + 100]
    halfway.happens = lambda: os.truncate(halfway.source, len(data))
    assert halfway.copy() is None
    assert halfway.target.read_bytes() == data


def test_the_folder_of_the_target_removed_halfway(halfway: Halfway) -> None:
    halfway.happens = lambda: shutil.rmtree(halfway.folder)
    message = halfway.copy()
    assert message == f"T.async:copy: {halfway.source} -> {halfway.target}: {os.strerror(errno.ENOENT)}"
    assert not halfway.folder.exists()


def test_a_disk_full_halfway(halfway: Halfway) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    halfway.happens = full
    message = halfway.copy()
    assert message is not None
    assert message.endswith(os.strerror(errno.ENOSPC))
    assert listing(halfway.folder) == ["target"]
    assert halfway.target.read_bytes() == b"old"


# A process that may write files of at most 100 kB does one operation and prints what came of it.
_LIMITED = """
import resource, sys, threading
from engine.offload import Task, files, moving

moving.PIECE = 30_000  # so that a part is written before it fails
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
