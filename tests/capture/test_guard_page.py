"""No byte is read behind the captured ones: packets end at a page that kills whoever touches it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from tests.capture.packets import pcap
from tests.capture.test_dissect import samples

ROOT = Path(__file__).parents[2]
CAPTURES = sorted((ROOT.parent / "shared" / "data" / "pcap").glob("*"))


def guarded(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.capture.guard_page", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_read_too_far_would_be_seen() -> None:
    assert guarded("--overrun").returncode == -signal.SIGSEGV


@pytest.fixture
def sample_captures(tmp_path: Path) -> Iterator[list[Path]]:
    """Packets of protocols that the shared captures lack, a file for each link type."""
    paths = []
    for link, group in groupby(sorted(samples(), key=lambda each: each[0]), key=lambda each: each[0]):
        paths.append(tmp_path / f"{link}.pcap")
        paths[-1].write_bytes(pcap([(0.0, packet) for _, packet in group for _ in range(40)], link=link))
    yield paths


def test_samples_of_every_protocol(sample_captures: list[Path]) -> None:
    done = guarded(*sample_captures)
    assert (done.returncode, done.stderr) == (0, "")
    packets, tries = map(int, done.stdout.split())
    assert packets == 40 * len(samples())
    assert tries > 100 * packets


@pytest.mark.skipif(not CAPTURES, reason="the captures with known contents are not there")
def test_shared_captures() -> None:
    done = guarded(*CAPTURES)
    assert (done.returncode, done.stderr) == (0, "")
    packets, tries = map(int, done.stdout.split())
    assert packets > 9000
    assert tries > 3_000_000
