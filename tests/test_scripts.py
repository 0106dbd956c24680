"""Every example in scripts/ runs as its header says, and does what it is for."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engine import Capture, Config, Engine, Script
from engine.capture.synth import Synthesis, synthesize
from engine.values.groups import HTTP_URIS
from engine.values.records import Alert, Flow, Record, Resource, Tls, TrackedFlow
from engine.values.records import Counter as Counted
from engine.values.windows import CounterGroup, GroupWindow, Meter, MeterType, Window
from tests.capture.packets import pcap, udp

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "pcap"
HOSTS, USER_ALERTS = "{4CD742B1-C1CA-4708-BE78-0FCA2EB01A86}", "{B5F1DECB-51D5-4395-B71B-6FA730B772D9}"
SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def synthesis(tmp_path: Path) -> Synthesis:
    return synthesize(tmp_path / "x.pcap", files=24, seed=3)


async def run(script: str, capture: Path | None, args: str, *kinds: str, **config: Any) -> tuple[Engine, list[Record]]:
    """Run an example over a capture, or as the source; the engine and the records of some kinds."""
    settings = Config(args=args, **config)
    async with asyncio.timeout(60), Engine(scripts=[SCRIPTS / script], config=settings) as engine:
        assert engine.load_errors == ()
        records = engine.subscribe(*kinds)
        await engine.run(Capture(capture) if capture is not None else Script(SCRIPTS / script))
    assert engine.stats.script_errors == 0
    return engine, [record async for record in records]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("script", ["copy_inline.lua", "copy_async.lua", "copy_schedule.lua"])
async def test_the_three_copies_save_every_file(script: str, synthesis: Synthesis, tmp_path: Path) -> None:
    target = tmp_path / "saved files"
    await run(script, synthesis.path, str(target), "file")
    whole = {sha256(path.read_bytes()) for path in target.iterdir() if not path.name.endswith(".part")}
    parts = sorted(target.glob("*.part"), key=lambda path: int(path.name.split(".")[-2]))
    assert parts, "the capture has one file that comes in parts"
    whole.add(sha256(b"".join(path.read_bytes() for path in parts)))
    assert {each.sha256 for each in synthesis.files} <= whole


async def test_sha1_files(synthesis: Synthesis, capfd: pytest.CaptureFixture[str]) -> None:
    engine, _ = await run("sha1_files.lua", synthesis.path, "", "file")
    sums = set(re.findall(r"^([0-9a-f]{40}) ", capfd.readouterr().out, re.MULTILINE))
    assert {each.sha1 for each in synthesis.files if 0 < each.size <= 5 << 20} <= sums
    assert engine.stats.tasks.completed == engine.stats.tasks.submitted


async def test_save_by_type(synthesis: Synthesis, tmp_path: Path) -> None:
    _, records = await run("save_by_type.lua", synthesis.path, str(tmp_path / "out"), "resource")
    folders = {"image/png": "images", "application/pdf": "documents", "text/html": "pages"}
    for folder in folders.values():
        saved = {sha256(path.read_bytes()) for path in (tmp_path / "out" / folder).iterdir()}
        wanted = {
            each.sha256
            for each in synthesis.downloads
            if each.size and folders.get(each.content_type.partition(";")[0]) == folder
        }
        assert saved == wanted
    named = {record.uri for record in records if isinstance(record, Resource) and record.script}
    assert named == {
        f"SHA256:{each.sha256}"
        for each in synthesis.downloads
        if 0 < each.size <= 5 << 20 and each.content_type.partition(";")[0] in folders
    }


async def test_malware_hash(synthesis: Synthesis, tmp_path: Path) -> None:
    bad = next(each for each in synthesis.downloads if 1 < each.size < 5 << 20)
    listed = tmp_path / "hashes.txt"
    listed.write_text(f"# a comment\n{bad.sha256.upper()} Test.Malware\n{'0' * 64} Absent\n")
    _, records = await run("malware_hash.lua", synthesis.path, str(listed), "alert")
    messages = [record.message for record in records if isinstance(record, Alert)]
    assert len(messages) == 1
    assert messages[0].startswith(f"Test.Malware in {bad.uri}")


@pytest.mark.skipif(not SHARED.exists(), reason="the shared captures are not there")
async def test_tls_sni(capfd: pytest.CaptureFixture[str]) -> None:
    _, records = await run("tls_sni.lua", SHARED / "trisul-tutorial1.pcap", "", "tls", "counter")
    printed = [line.split(maxsplit=3) for line in capfd.readouterr().out.splitlines()]
    hellos = [each for each in records if isinstance(each, Tls)]
    assert len(hellos) == 10
    assert Counter((name, cipher) for _, name, cipher, _ in printed) == Counter(
        (each.sni, each.cipher.upper()) for each in hellos
    )
    counted = {each.key: each.value for each in records if isinstance(each, Counted)}
    assert counted == Counter(each.sni for each in hellos)
    assert "GitHub, Inc." in {owner for *_, owner in printed}


async def test_malware_hash_without_a_list_is_disabled(tmp_path: Path) -> None:
    config = Config(args=str(tmp_path / "absent.txt"))
    async with Engine(scripts=[SCRIPTS / "malware_hash.lua"], config=config) as engine:
        assert engine.stats.plugins == ()


async def test_store_dns_only(synthesis: Synthesis, tmp_path: Path) -> None:
    dns = [(5.0 + n, udp(("10.9.9.9", 40_000 + n), ("10.0.0.53", 53), b"question")) for n in range(7)]
    noise = [(6.0, udp(("10.9.9.9", 40_000), ("10.0.0.53", 54), b"noise"))]
    capture = tmp_path / "both.pcap"
    capture.write_bytes(synthesis.path.read_bytes() + pcap([*dns, *noise])[24:])
    engine, _ = await run("store_dns_only.lua", capture, "", "log", store=tmp_path / "out")
    told = engine.stats.store
    whole = told.packets - told.shortened
    assert told.shortened > 100
    assert told.skipped > 0
    (path,) = (tmp_path / "out").iterdir()
    assert all(data in path.read_bytes() for _, data in dns)
    assert noise[0][1] not in path.read_bytes()
    assert whole >= len(dns)


async def test_alerts_from_log() -> None:
    _, records = await run("alerts_from_log.lua", None, str(SCRIPTS / "alerts.log"), "alert", "log")
    alerts = [record for record in records if isinstance(record, Alert)]
    assert [(each.time, each.priority, each.message) for each in alerts] == [
        (1700000000.25, 1, "beacon to a known host"),
        (1700000003.0, 3, "cleartext password"),
        (1700000007.5, 2, "many logins"),
    ]
    assert alerts[0].flow == "06A:0A.00.00.05:p-9CB0_CB.00.71.09:p-01BB"
    assert alerts[1].extra["dest_ip"] == "203.0.113.80"


async def test_tcp_flags(synthesis: Synthesis) -> None:
    engine, records = await run("tcp_flags.lua", synthesis.path, "", "counter")
    sums = {(record.key, record.meter): record.value for record in records if isinstance(record, Counted)}
    assert {key for key, _ in sums} == {"data", "SYN", "SYN ACK", "FIN"}
    assert sums["SYN", 0] == sums["SYN ACK", 0] == synthesis.connections
    packets = sum(value for (_, meter), value in sums.items() if meter == 0)
    assert packets == engine.stats.decode.packets == synthesis.packets
    rates = sum(value for (_, meter), value in sums.items() if meter == 1)
    assert rates * 60 == pytest.approx(engine.stats.decode.wire_bytes)


async def test_my_protocol(synthesis: Synthesis) -> None:
    engine, records = await run("my_protocol.lua", synthesis.path, "", "counter")
    sums = {record.key: record.value for record in records if isinstance(record, Counted)}
    calls = {hook.name: hook.calls for plugin in engine.stats.plugins for hook in plugin.hooks}
    assert calls["onpacket"] == sum(sums.values()) > 0
    assert {key.split()[0] for key in sums} <= {"GET", "HEAD", "POST", "PUT"}
    assert not any("none" in key for key in sums)


async def test_busy_keys() -> None:
    group = CounterGroup(HOSTS, "Hosts", "", (Meter(0, MeterType.RATE_COUNTER, "Total"),))
    values = {"SYS:GROUP_TOTALS": (3e6,), "0A.00.00.01": (2e6,), "0A.00.00.02": (1e6,), "0A.00.00.03": (0.0,)}
    async with Engine(scripts=[SCRIPTS / "busy_keys.lua"]) as engine:
        alerts, kept = engine.subscribe("alert"), []
        engine.on_window(kept.append)
        await engine.flush(Window(0, 0.0, 60.0, (GroupWindow(group, values, {}),)))
    assert [each.message async for each in alerts if isinstance(each, Alert)] == [
        "0A.00.00.01: 2000000 is over 1000000"
    ]
    assert list(kept[0].groups[0].values) == ["SYS:GROUP_TOTALS", "0A.00.00.01", "0A.00.00.02"]


async def test_tag_flows(synthesis: Synthesis) -> None:
    _, records = await run("tag_flows.lua", synthesis.path, "", "flow")
    flows = [each for each in records if isinstance(each, Flow)]
    assert len(flows) == synthesis.connections
    for flow in flows:
        assert flow.tags == ("large" if flow.a_bytes + flow.z_bytes > 1e6 else "")
    assert any(flow.tags for flow in flows)


async def test_plain_uris(synthesis: Synthesis) -> None:
    engine, records = await run("plain_uris.lua", synthesis.path, "", "resource")
    uris = [each.uri for each in records if isinstance(each, Resource) and each.group == HTTP_URIS]
    assert uris
    assert not any("?" in uri or uri.endswith(".png") for uri in uris)
    assert engine.stats.flush.kept == len(uris)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared captures are not there")
async def test_certificate_names() -> None:
    _, records = await run("certificate_names.lua", SHARED / "trisul-tutorial1.pcap", "", "resource")
    assert "github.com" in {each.uri for each in records if isinstance(each, Resource)}


async def test_alert_once(capfd: pytest.CaptureFixture[str]) -> None:
    body = "for n = 1, 5 do engine:add_alert(T.group, nil, 'sig' .. n % 2, 1, 'm') end"
    source = f"T.group = '{USER_ALERTS}' TrisulPlugin = {{ id = {{ name = 's' }}, event_monitor = {{ "
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source.lua"
        path.write_text(source + f"onevent = function(engine) {body} end }} }}")
        async with Engine(scripts=[SCRIPTS / "alert_once.lua", path]) as engine:
            alerts = engine.subscribe("alert")
            await engine.emit("t", "x")
    assert [each.sigid async for each in alerts if isinstance(each, Alert)] == ["sig1", "sig0"]
    assert "3 repeated alerts left out" in capfd.readouterr().out


async def test_heartbeat(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capture = tmp_path / "x.pcap"
    capture.write_bytes(pcap([(59.0 + n, udp(("10.9.9.9", 4000), ("10.0.0.5", 54), b"x")) for n in range(70)]))
    await run("heartbeat.lua", capture, "")
    lines = capfd.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines[-2:]] == ["00:02:00: 60 seconds", "00:03:00: 8 seconds"]


async def test_top_uploads(synthesis: Synthesis) -> None:
    _, records = await run("top_uploads.lua", synthesis.path, "", "flow", "tracked_flow")
    sent = [flow.a_bytes for flow in records if isinstance(flow, Flow) and flow.a_bytes > flow.z_bytes]
    tracked = [each for each in records if isinstance(each, TrackedFlow)]
    assert [each.metric for each in tracked] == sorted(sent, reverse=True)[:20]
    assert {each.tracker for each in tracked} == {"Uploads"}


def test_orders_service_prints_the_alert(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "orders_service.py")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SCRIPTS.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "alert: order 8 is worth 2400.00\n3 events handled, 3 journal lines written\n"
    assert len((tmp_path / "orders.log").read_text().splitlines()) == 3


def test_every_example_says_how_it_is_run() -> None:
    for script in SCRIPTS.glob("*.lua"):
        head = script.read_text().split("\n\n")[0]
        assert re.search(rf"offpath run scripts/{script.name}|python scripts/\w+\.py", head), script.name
