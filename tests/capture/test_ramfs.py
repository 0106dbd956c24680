"""The directory of extracted files: names, leases, what is removed and what never is."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.capture import ramfs as module
from engine.capture.ramfs import NAME_BYTES, Ramfs
from engine.values.errors import ConfigError

FLOW = b"06A:0A.00.00.05:p-9C40_0A.00.00.09:p-0050"
FLOW6 = b"06B:20010DB8111122223333444455556666:p-9C40_20010DB8111122223333444455557777:p-0050"


def test_the_fresh_directory_is_private_and_goes_with_its_files() -> None:
    ramfs = Ramfs()
    assert stat.S_IMODE(ramfs.directory.stat().st_mode) == 0o700
    ramfs.append(ramfs.path_of("a"), b"x")
    ramfs.close()
    ramfs.close()
    assert not ramfs.directory.exists()


def test_without_shared_memory_the_temp_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARED_MEMORY", tmp_path / "none")
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    ramfs = Ramfs()
    assert ramfs.directory.parent == tmp_path
    ramfs.close()


def test_a_given_directory_is_made_and_foreign_files_stay(tmp_path: Path) -> None:
    ramfs = Ramfs(tmp_path / "new" / "dir")
    foreign = ramfs.directory / "foreign"
    foreign.write_bytes(b"mine")
    ramfs.append(ramfs.path_of("ours"), b"x")
    ramfs.close()
    assert [each.name for each in ramfs.directory.iterdir()] == ["foreign"]


def test_a_directory_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="ramfs"):
        Ramfs(tmp_path / "file" / "dir")


def test_the_file_goes_when_the_last_hold_is_released(tmp_path: Path) -> None:
    ramfs = Ramfs(tmp_path)
    path = ramfs.path_of("a")
    ramfs.append(path, b"one")
    ramfs.append(path, b"two")
    assert Path(path).read_bytes() == b"onetwo"
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    lease = ramfs.publish(path)
    ramfs.hold(lease)
    ramfs.release(lease)
    assert Path(path).exists()
    assert ramfs.leases == 1
    ramfs.release(lease)
    assert not Path(path).exists()
    assert ramfs.leases == 0


def test_leases_that_ended_are_refused_until_close_and_ignored_after(tmp_path: Path) -> None:
    ramfs = Ramfs(tmp_path)
    ramfs.append(ramfs.path_of("a"), b"")
    lease = ramfs.publish(ramfs.path_of("a"))
    ramfs.release(lease)
    with pytest.raises(KeyError):
        ramfs.release(lease)
    with pytest.raises(KeyError):
        ramfs.hold(lease)
    ramfs.close()
    ramfs.release(lease)
    ramfs.hold(lease)


def test_only_our_own_files_can_be_published_or_removed(tmp_path: Path) -> None:
    ramfs = Ramfs(tmp_path)
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"mine")
    with pytest.raises(ValueError, match="not a file of this directory"):
        ramfs.publish(str(foreign))
    with pytest.raises(FileExistsError):
        ramfs.append(str(foreign), b"x")
    ramfs.discard(str(foreign))
    ramfs.append(ramfs.path_of("a"), b"")
    with pytest.raises(FileExistsError):
        ramfs.rename(ramfs.path_of("a"), str(foreign))
    ramfs.close()
    assert foreign.read_bytes() == b"mine"


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"mine")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "a").symlink_to(tmp_path / "target")
    ramfs = Ramfs(tmp_path / "dir")
    with pytest.raises(OSError, match="a"):
        ramfs.append(ramfs.path_of("a"), b"x")
    ramfs.close()
    assert (tmp_path / "target").read_bytes() == b"mine"


def test_a_file_that_a_script_removed_is_no_error(tmp_path: Path) -> None:
    ramfs = Ramfs(tmp_path)
    ramfs.append(ramfs.path_of("a"), b"x")
    lease = ramfs.publish(ramfs.path_of("a"))
    Path(ramfs.path_of("a")).unlink()
    ramfs.release(lease)
    ramfs.close()


def test_names_say_where_a_file_came_from(tmp_path: Path) -> None:
    ramfs = Ramfs(tmp_path)
    assert (
        ramfs.name_for(FLOW, "www.example.org:8080", "/a/b/c.tar.gz?x=/y")
        == "10.0.0.5-40000_10.0.0.9-80_000001_www.example.org-8080_c.tar.gz"
    )
    assert ramfs.name_for(FLOW, "", "/") == "10.0.0.5-40000_10.0.0.9-80_000002"
    assert ramfs.name_for(FLOW, "", "/x.5.part").endswith(".part_")
    assert ramfs.name_for(FLOW6, "h", "/x").startswith("v6-2001-db8-1111")


def test_names_taken_by_others_are_stepped_over(tmp_path: Path) -> None:
    ramfs = Ramfs(tmp_path)
    first = Ramfs(tmp_path).name_for(FLOW, "h", "/x")
    (tmp_path / first).write_bytes(b"left over")
    assert ramfs.name_for(FLOW, "h", "/x") == first.replace("000001", "000002")


@given(st.sampled_from([FLOW, FLOW6, b"", b"\xff../x", b"." * 200]), st.text(max_size=300), st.text(max_size=300))
def test_names_are_always_safe(flow: bytes, host: str, uri: str) -> None:
    ramfs = Ramfs()
    try:
        names = [ramfs.name_for(flow, host, uri) for _ in range(2)]
    finally:
        ramfs.close()
    assert names[0] != names[1]
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name)
        assert len(name) <= NAME_BYTES
        assert not name.endswith(".part")


@given(st.binary(min_size=4, max_size=4), st.integers(0, 65535), st.binary(min_size=4, max_size=4))
def test_names_begin_with_the_ends_of_the_flow(a: bytes, port: int, z: bytes) -> None:
    flow = f"06A:{a.hex('.').upper()}:p-{port:04X}_{z.hex('.').upper()}:p-0050".encode()
    known = f"{'.'.join(map(str, a))}-{port}_{'.'.join(map(str, z))}-80"
    assert module._ends(flow) == known
    assert module._ends(flow + b"x") == known  # not in the form of IPv4 alone
