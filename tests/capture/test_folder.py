"""Which captures a folder stands for, and in which order."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from engine.capture.folder import find_captures
from engine.values.errors import CaptureError
from tests.capture.packets import CLIENT, SERVER, Record, block, enhanced, interface, pcap, run, section, simple, udp

FRAME = udp(CLIENT, SERVER, b"hello")


def at(*times: float) -> list[Record]:
    return [(time, FRAME) for time in times]


def named(folder: Path, captures: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in captures.items():
        (folder / name).write_bytes(data)
    return folder


def test_captures_come_in_the_order_of_their_first_packets(tmp_path: Path) -> None:
    folder = named(
        tmp_path / "caps",
        {
            "c": pcap(at(5.5, 1.0)),
            "b": gzip.compress(pcap(at(7.25))),
            "a": zstandard.compress(section() + interface() + enhanced(FRAME, 6_000_000)),
            "empty.pcap": pcap([]),
            "x.pcap10": pcap(at(9.0)),
            "x.pcap2": pcap(at(9.0)),
        },
    )
    found, skipped = find_captures([folder])
    assert [(each.path.name, each.first) for each in found] == [
        ("c", 5.5), ("a", 6.0), ("b", 7.25), ("x.pcap2", 9.0), ("x.pcap10", 9.0), ("empty.pcap", None),
    ]  # fmt: skip
    assert skipped == []


def test_what_is_no_capture_is_skipped_with_its_reason(tmp_path: Path) -> None:
    folder = named(tmp_path / "caps", {"ok": pcap(at(1.0)), "notes.txt": b"hello world, a text", "none": b""})
    (folder / "sub").mkdir()
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    found, skipped = find_captures([folder])
    assert [each.path.name for each in found] == ["ok"]
    assert [(Path(each.path).name, each.reason) for each in skipped] == [
        ("gone", "No such file or directory"),
        ("none", "is empty"),
        ("notes.txt", "is neither pcap nor pcapng, it starts with 68 65 6c 6c"),
        ("sub", "is a folder"),
    ]


@pytest.mark.parametrize("files", [{}, {"notes.txt": b"hello world, a text"}])
def test_a_folder_without_captures_is_an_error(tmp_path: Path, files: dict[str, bytes]) -> None:
    other = named(tmp_path / "other", {"ok": pcap(at(1.0))})
    with pytest.raises(CaptureError, match="is a folder without captures"):
        find_captures([other, named(tmp_path / "caps", files)])


def test_a_named_file_must_be_a_capture(tmp_path: Path) -> None:
    folder = named(tmp_path / "caps", {"ok": pcap(at(1.0)), "notes.txt": b"hello world, a text"})
    with pytest.raises(CaptureError, match=r"notes\.txt: is neither"):
        find_captures([folder / "ok", folder / "notes.txt"])
    with pytest.raises(CaptureError, match="No such file"):
        find_captures([folder / "absent"])


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_first_time_is_the_one_that_the_decoder_reads(tmp_path: Path, order: str) -> None:
    nano = struct.pack(order + "HHB3x", 9, 1, 9)
    binary = struct.pack(order + "HHB3xHHqHH", 9, 1, 0x80 | 10, 14, 8, 1000, 0, 0)
    head = (
        section(order) + interface(1, order) + interface(1, order, options=nano) + interface(1, order, options=binary)
    )
    captures = [
        pcap(at(1700000000.25), order=order, nano=True),
        pcap(at(1700000000.25), order=order),
        head + block(5, bytes(8), order) + enhanced(FRAME, 5_500_000, 0, order),
        head + enhanced(FRAME, 6_000_000_000, 1, order),
        section("<") + head + enhanced(FRAME, 3 * 1024, 2, order) + enhanced(FRAME, 1, 0, order),
    ]
    for number, data in enumerate(captures):
        path = tmp_path / str(number)
        path.write_bytes(data)
        [found], _ = find_captures([path])
        first = pcap([]) if number < 2 else b""
        assert found.first is not None
        flows = run(path).flows
        assert flows[0].start <= found.first <= flows[0].end, first


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize(
    "data",
    [
        pcap(at(1.0))[:39],
        section() + interface() + simple(FRAME),
        section() + enhanced(FRAME, 1),
        section() + struct.pack("<II", 6, 0) + bytes(40),
        section() + struct.pack("<II", 6, 13) + bytes(40),
        section() + interface(options=struct.pack("<HH", 9, 60_000)),
    ],
)
def test_a_start_without_a_readable_time_has_none(tmp_path: Path, data: bytes, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "some").write_bytes(pack(data))
    [found], _ = find_captures([tmp_path])
    assert found.first is None
