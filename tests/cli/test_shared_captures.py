"""`offpath run` over real captures, if they are there: however one is read, the file of records is the same."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.capture.frames import dissect
from tests.cli.test_run import COMMAND, DEADLINE
from tests.pipeline.test_shared_captures import DATA, oriented, rows
from tests.scripts import HASHES, on_file_hash, write

CAPTURES = (
    "dns-udp-tcp-fragments",
    "http-206-out-of-order",
    "ipv6-exthdr",
    "mpls-vlan",
    "pcapng-http",
    "raw-ip-tls",
    "trisul-tutorial1",
    "vxlan-http",
)
LAYERS = ("Ethernet", "VLAN", "MPLS", "IPv4", "IPv6", "IPv6 fragment", "TCP", "UDP", "ICMP", "VXLAN", "ARP")
LAYER_COUNTS = "{0C6E6A1D-5D0C-4C53-9E7C-0B6A9B6A2E55}"
REPLAY_SECONDS = 0.5

pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"the captures with known contents are not there: {DATA}")

Rows = list[dict[str, Any]]


def scripts(folder: Path) -> list[Path]:
    """One that hashes each file off the path, and for each of some layers one that counts it."""
    counting = [write(folder, _counting(name), f"{number}.lua") for number, name in enumerate(LAYERS)]
    return [write(folder, on_file_hash()), *counting]


def _counting(name: str) -> str:
    return f"""
    local protocols = require "offpath.protocols"
    local guid
    for number, name in pairs(protocols.name) do if name == "{name}" then guid = protocols.guid[number] end end
    TrisulPlugin = {{ id = {{ name = "count" }}, simplecounter = {{ protocol_guid = guid,
      onpacket = function(engine) engine:update_counter("{LAYER_COUNTS}", "{name}", 0, 1) end }} }}"""


def records(folder: Path, name: str, *args: str | Path, data: bytes = b"") -> Rows:
    """The records of a run, in their order, without what belongs to this run: folders and seconds."""
    out = folder / f"{name}.jsonl"
    command = [*COMMAND, *map(str, scripts(folder)), *map(str, args), "--records", str(out)]
    done = subprocess.run(command, input=data, capture_output=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in each.items() if key not in ("path", "seconds")} for each in found]


def of(found: Rows, *kinds: str) -> Rows:
    return [each for each in found if each["kind"] in kinds]


def in_order(found: Rows, *, replayed: bool) -> Rows:
    """All but what comes back from workers, which may take turns, and what depends on the machine.

    A replay is cut into batches by time. In a batch, datagrams come before streams, and bytes of a stream that follow
    on each other have one time: so between the kinds the order differs, and so may the times of files.
    """
    kept = [each for each in found if each["kind"] not in ("resource", "log", "summary")]
    if replayed:
        kept = [{**each, "time": 0} if each["kind"] == "file" else each for each in kept]
        kept.sort(key=lambda each: each["kind"])
    return kept


def hashes(found: Rows) -> Counter[tuple[str, ...]]:
    return Counter(
        (each["flow"], each["uri"], each["contents"]) for each in of(found, "resource") if each["group"] == HASHES
    )


def counts(found: Rows) -> dict[str, int]:
    """Of packets, flows, streams, HTTP, DNS and TLS in the summary."""
    (summary,) = of(found, "summary")
    timed = ("source_", "tasks_", "records_", "messages_", "events_", "kind")
    return {key: value for key, value in summary.items() if not key.startswith(timed)}


@pytest.fixture(scope="module", params=CAPTURES)
def known(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / "expected" / f"{request.param}.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def capture(known: dict[str, Any]) -> Path:
    path: Path = DATA / "pcap" / known["capture"]
    return path


@pytest.fixture(scope="module")
def plain(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The records when it is read as the file it is."""
    return records(tmp_path_factory.mktemp("plain"), "plain", "--capture", capture)


def test_the_records_are_those_that_are_known(known: dict[str, Any], capture: Path, plain: Rows) -> None:
    layers = dissect(capture).layers
    counted: Counter[str] = Counter()
    for each in of(plain, "counter"):
        if each["group"] == LAYER_COUNTS:
            counted[each["key"]] += each["value"]
    assert counted == {name: layers[name] for name in LAYERS if name in layers}
    flows = Counter(
        oriented(
            each["proto"], *((*(each[f"{end}_{key}"] for key in ("ip", "port", "packets", "bytes")),) for end in "az")
        )
        for each in of(plain, "flow")
    )
    assert flows == rows(known["flows"])
    asked = Counter(
        (question["name"].lower(), question["type"])
        for each in of(plain, "dns")
        if not each["is_response"]
        for question in each["questions"]
    )
    assert asked == Counter({(each["name"], each["type"]): each.get("n", 1) for each in known["dns"]})
    assert {each["sni"] for each in of(plain, "tls") if each["sni"]} == {each["name"] for each in known["sni"]}
    sure = {
        (each["size"], each["sha256"])
        for each in known["files"]
        if each["size"] and len(each["src"]) > 1 and not {"partial", "odd", "decode", "note"} & each.keys()
    }
    assert sure <= {(int(size.split()[0]), sha256) for _, sha256, size in hashes(plain)}


@pytest.mark.parametrize("way", ["file", "replay", "own pace", "stdin", "gzip", "gzip on stdin"])
def test_they_are_the_same_however_it_is_read(
    known: dict[str, Any], capture: Path, plain: Rows, tmp_path: Path, way: str
) -> None:
    data = b""
    args: tuple[str | Path, ...] = ("--capture", capture)
    if way == "replay":
        args = (*args, "--replay", "1e9")
    elif way == "own pace":
        span = float(known["last_ts"]) - float(known["first_ts"])
        args = (*args, "--replay", str(max(span, 0.01) / REPLAY_SECONDS))
    elif way == "gzip":
        packed = tmp_path / "packed"
        packed.write_bytes(gzip.compress(capture.read_bytes()))
        args = ("--capture", packed)
    elif "stdin" in way:
        args, data = ("-",), capture.read_bytes()
        data = gzip.compress(data) if way.startswith("gzip") else data
    found = records(tmp_path, "again", *args, data=data)
    replayed = "--replay" in args
    assert in_order(found, replayed=replayed) == in_order(plain, replayed=replayed)
    assert hashes(found) == hashes(plain)
    assert counts(found) == counts(plain)
