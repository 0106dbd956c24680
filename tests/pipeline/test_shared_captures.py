"""Real captures with known contents, if they are there: packets, flows, requests and files are as they should be."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine import Config, EngineStats
from tests.capture.packets import summed
from tests.scripts import Collector, assert_counts_close, files_below, on_file_hash, run_capture, write

DATA = Path(__file__).parents[2].parent / "shared" / "data"
CAPTURES = sorted(path.stem for path in (DATA / "expected").glob("*.json"))

EMPTY = (0, hashlib.sha256().hexdigest())

pytestmark = pytest.mark.skipif(not CAPTURES, reason=f"the captures with known contents are not there: {DATA}")

each_capture = pytest.mark.parametrize("name", CAPTURES or ["none"])

Flows = Counter[tuple[Any, ...]]


class Reading(NamedTuple):
    """What is known of a capture, and what came out of it."""

    known: dict[str, Any]
    collector: Collector
    stats: EngineStats
    left: list[Path]

    def found_files(self) -> Counter[tuple[int, str]]:
        """Size and SHA-256 of each file that a script was given, as a worker computed it."""
        return Counter((int(each.contents), each.uri) for each in self.collector.of("resource"))


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reading]:
    """Captures that were read, each once."""
    return {}


@pytest.fixture
def reading(name: str, readings: dict[str, Reading], tmp_path: Path) -> Reading:
    if name not in readings:
        known = json.loads((DATA / "expected" / f"{name}.json").read_text(encoding="utf-8"))
        ramfs = tmp_path / "ram"
        config = Config(chunk_bytes=1 << 30, ramfs=ramfs)
        script = write(tmp_path, on_file_hash())
        collector, stats = asyncio.run(run_capture(DATA / "pcap" / known["capture"], [script], config))
        readings[name] = Reading(known, collector, stats, files_below(ramfs))
    return readings[name]


def oriented(proto: str, *ends: tuple[str, int, int, int]) -> tuple[Any, ...]:
    """A flow whose ends (address, port, packets, bytes) stand in an order of their own."""
    return (proto, *sorted(ends))


def rows(known: list[dict[str, Any]]) -> Flows:
    """The flows of an expected file."""
    return Counter(
        oriented(
            row["proto"],
            *((row[f"{e}_ip"], row[f"{e}_port"], row[f"{e}_packets"], row[f"{e}_bytes"]) for e in "az"),
        )
        for row in known
        if row["proto"] in ("tcp", "udp", "sctp")
    )


def agreed(entries: list[dict[str, Any]], *keys: str, sources: int = 2) -> Counter[tuple[Any, ...]]:
    """Entries that at least so many readers have seen, by some of their keys."""
    counted: Counter[tuple[Any, ...]] = Counter()
    for entry in entries:
        if len(entry["src"]) >= sources:
            counted[tuple(entry.get(key) or "" for key in keys)] += entry.get("n", 1)
    return counted


@each_capture
def test_it_is_read_to_its_end_and_everything_is_counted(name: str, reading: Reading) -> None:
    known, stats = reading.known, reading.stats
    assert stats.decode.packets == known["packets"]
    assert stats.decode.wire_bytes == known["wire_bytes"]
    assert stats.decode.captured_bytes == known["captured_bytes"]
    assert stats.decode.cut == known.get("cut_packets", 0)
    assert stats.decode.malformed == 0
    assert_counts_close(stats)
    assert reading.collector.logged("ERROR") == []
    assert reading.left == []


@each_capture
def test_its_flows(name: str, reading: Reading) -> None:
    found: Flows = Counter(
        oriented(
            each.proto,
            (each.a_ip, each.a_port, each.a_packets, each.a_bytes),
            (each.z_ip, each.z_port, each.z_packets, each.z_bytes),
        )
        for each in summed(reading.collector.of("flow"))
    )
    assert found == rows(reading.known["flows"])


@each_capture
def test_its_http_requests(name: str, reading: Reading) -> None:
    keys = ("method", "host", "uri")
    found = Counter((each.method, each.host, each.uri) for each in reading.collector.of("http") if each.method)
    assert agreed(reading.known["http_requests"], *keys) - found == Counter()
    assert found - agreed(reading.known["http_requests"], *keys, sources=1) == Counter()


@each_capture
def test_its_http_responses(name: str, reading: Reading) -> None:
    final = [each for each in reading.known["http_responses"] if each["status"] >= 200 or each["status"] == 101]
    found = Counter((each.status,) for each in reading.collector.of("http") if each.status)
    assert agreed(final, "status") - found == Counter()
    assert found - agreed(final, "status", sources=1) == Counter()


@each_capture
def test_its_files(name: str, reading: Reading) -> None:
    whole = [each for each in reading.known["files"] if not {"partial", "odd", "decode", "note"} & each.keys()]
    assert agreed(whole, "size", "sha256") - reading.found_files() == Counter()


@each_capture
def test_it_gives_no_file_that_is_not_in_it(name: str, reading: Reading) -> None:
    """What is found beyond the sure ones: bodies that one reader saw, empty ones, and pieces of broken ones."""
    files = reading.known["files"]
    known = {each.get(key) for each in files for key in ("sha256", "joined_sha256", "raw_sha256")}
    partial = any("partial" in each for each in files)
    strangers = [(size, sha256) for size, sha256 in reading.found_files() if sha256 not in known]
    assert partial or set(strangers) <= {EMPTY}
    complete = Counter(each.size for each in reading.collector.of("file") if each.complete)
    assert complete <= Counter(size for size, _ in reading.found_files().elements())
