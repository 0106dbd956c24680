"""packet_storage: which packets are stored, and that they are the source's, byte for byte."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from engine import Capture, Config, Engine, EngineError, EngineStats
from engine.capture.pcap_files import PcapFolder, Run
from engine.capture.synth import synthesize
from tests.capture.packets import (
    CLIENT,
    SERVER,
    Record,
    enhanced,
    ethernet,
    handshake,
    interface,
    ip,
    pcap,
    section,
    simple,
    tcp,
    udp,
)
from tests.lua_api.packet_rig import GUIDS
from tests.scripts import Collector, plugin, run_capture, write

DNS, PEER = ("10.0.0.9", 53), ("10.0.0.1", 41000)
HANDLED = "{AAAAAAAA-0000-4000-8000-000000000001}"
ICMP_HEADERS = 14 + 20 + 30  # it carries nothing that the dissector sets apart


class Stored(NamedTuple):
    """A packet of a file: link type and time in nanoseconds, bytes on the wire, bytes in the file."""

    link: int
    time: int
    wire: int
    data: bytes


def stored(folder: Path) -> Iterator[Stored]:
    """All packets of all files, in the order of the files' names, checked for their form."""
    for path in sorted(folder.glob("*.pcap")):
        data = path.read_bytes()
        magic, major, minor, _, _, snaplen, link = struct.unpack_from("<IHHiIII", data)
        scale = {0xA1B2C3D4: 1_000, 0xA1B23C4D: 1}[magic]
        assert (major, minor, snaplen) == (2, 4, 262_144)
        at = 24
        while at < len(data):
            seconds, fraction, length, wire = struct.unpack_from("<IIII", data, at)
            assert fraction * scale < 10**9
            assert at + 16 + length <= len(data)
            yield Stored(link, seconds * 10**9 + fraction * scale, wire, data[at + 16 : at + 16 + length])
            at += 16 + length


async def store(
    tmp_path: Path, records: list[Record] | bytes, *hooks: str, scripts: Sequence[Path] = (), **config: object
) -> tuple[list[Stored], Collector, EngineStats]:
    """Store a capture with scripts, and with others of these packet_storage hooks; what was stored."""
    (tmp_path / "in.pcap").write_bytes(records if isinstance(records, bytes) else pcap(records))
    others = [write(tmp_path, plugin(f"packet_storage = {{ {body} }}"), f"s{n}.lua") for n, body in enumerate(hooks)]
    settings = Config(store=tmp_path / "out", **config)  # type: ignore[arg-type]
    collector, stats = await run_capture(tmp_path / "in.pcap", [*scripts, *others], settings)
    told = stats.store
    assert told.seen == told.packets + told.skipped + told.lost
    assert told.pending == 0
    found = list(stored(tmp_path / "out"))
    assert len(found) == told.packets
    return found, collector, stats


def answer(code: int | str, hook: str = "filter") -> str:
    return f"{hook} = function() return {code} end"


def bulk(packets: int = 40, size: int = 1000) -> list[Record]:
    """One connection that sends so much."""
    sent = [tcp(CLIENT, SERVER, 101 + n * size, bytes([n % 251]) * size) for n in range(packets)]
    return [*handshake(100, 200), *((1 + n / 1000, data) for n, data in enumerate(sent))]


async def test_without_a_script_everything_is_stored_as_it_was(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "x.pcap", files=12, seed=5, faults=True)
    data = made.path.read_bytes()
    await store(tmp_path, data)
    (path,) = (tmp_path / "out").glob("*.pcap")
    assert path.read_bytes() == data


@pytest.mark.parametrize("nano", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
async def test_times_links_and_cut_packets_are_kept(tmp_path: Path, nano: bool, order: str) -> None:
    packet = udp(PEER, DNS, b"question")
    times = [(1_700_000_000, 123_456_789), (1_700_000_000, 999_999_999), (1_700_000_001, 1)]
    head = struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    body = b"".join(
        struct.pack(order + "IIII", seconds, nanos if nano else nanos // 1000, len(packet), 1500) + packet
        for seconds, nanos in times
    )
    found, _, _ = await store(tmp_path, head + body)
    expected = [seconds * 10**9 + (nanos if nano else nanos // 1000 * 1000) for seconds, nanos in times]
    assert [each.time for each in found] == expected
    assert {(each.link, each.wire, each.data) for each in found} == {(101, 1500, packet)}


async def test_pcapng_gives_a_file_for_each_link_type_and_exact_nanoseconds(tmp_path: Path) -> None:
    packet, raw = udp(PEER, DNS, b"x"), udp(PEER, DNS, b"y")[14:]
    nanoseconds = struct.pack("<HHB3xI", 9, 1, 9, 0)
    capture = section() + interface(1) + interface(101, options=nanoseconds) + enhanced(packet, 1_700_000_000_000_001)
    capture += simple(packet) + enhanced(raw, 1_700_000_000_123_456_789, index=1)
    found, _, stats = await store(tmp_path, capture)
    assert stats.store.files == 2
    assert {(each.link, each.time, each.data) for each in found if each.link == 101} == {
        (101, 1_700_000_000_123_456_789, raw)
    }
    others = [each[1:] for each in found if each.link == 1]
    assert others == [(1_700_000_000_000_001_000, len(packet), packet)] * 2


async def test_fragments_are_stored_as_they_came(tmp_path: Path) -> None:
    datagram = udp(PEER, DNS, b"z" * 40)[34:]
    parts = [
        ethernet(ip(PEER[0], DNS[0], 17, datagram[:24], fragment=0x2000, ident=7)),
        ethernet(ip(PEER[0], DNS[0], 17, datagram[24:], fragment=3, ident=7)),
    ]
    found, _, stats = await store(tmp_path, [(1.0, parts[0]), (2.0, parts[1])])
    assert stats.decode.datagrams == 1
    assert [each.data for each in found] == parts


LIBERAL = [-1, 0, 2, 5, 4, 3, 6, 1]
"""The codes, each more liberal than those before it."""


@pytest.mark.parametrize("at", range(len(LIBERAL) - 1))
async def test_of_two_answers_the_more_liberal_one_holds(tmp_path: Path, at: int) -> None:
    mean, kind = LIBERAL[at], LIBERAL[at + 1]
    for folder, codes in (("a", [kind]), ("b", [mean, kind]), ("c", [kind, mean])):
        (tmp_path / folder).mkdir()
        found, _, _ = await store(tmp_path / folder, bulk(), *(answer(code) for code in codes))
        assert [each.data for each in found] == [each.data for each in stored(tmp_path / "a" / "out")], (
            f"{codes} gave something else than {kind}"
        )


@pytest.mark.parametrize(("code", "limit"), [(5, 10 * 1024), (4, 100 * 1024), (3, 1024 * 1024), (6, 10 * 1024 * 1024)])
async def test_the_first_bytes_of_each_flow_are_stored(tmp_path: Path, code: int, limit: int) -> None:
    count = limit // 60_000 + 12
    packets = [(n / 1000, tcp(CLIENT, SERVER, n * 60_000, b"b" * 60_000)) for n in range(count)]
    found, _, _ = await store(tmp_path, packets, answer(code))
    sizes = [len(each.data) for each in found]
    assert sum(sizes[:-1]) < limit <= sum(sizes)


async def test_of_headers_only_the_payload_is_left_out(tmp_path: Path) -> None:
    packets = [
        *bulk(3),
        (9.0, udp(PEER, DNS, b"question")),
        (9.0, ethernet(ip("10.0.0.1", "10.0.0.2", 1, b"\x08" * 30))),
    ]
    found, _, stats = await store(tmp_path, packets, answer(2))
    assert [len(each.data) for each in found] == [54, 54, 54, 54, 54, 54, 42, ICMP_HEADERS]
    assert [each.wire for each in found] == [len(each[1]) for each in packets]
    assert all(each[1].startswith(kept.data) for each, kept in zip(packets, found, strict=True))
    assert stats.store.shortened == len([each for each in found if each.wire > len(each.data)])


@pytest.mark.parametrize("code", ["-1", "nil", "7", "'x'", "{}", "true", "nil + 1"])
async def test_anything_else_is_no_opinion(tmp_path: Path, code: str) -> None:
    found, collector, _ = await store(tmp_path, bulk(4), answer(code))
    assert len(found) == 7
    assert len(collector.logged("ERROR")) == (code == "nil + 1")


async def test_numbers_may_be_text(tmp_path: Path) -> None:
    assert (await store(tmp_path, bulk(4), answer("'0'")))[0] == []


async def test_filter_is_asked_once_for_each_flow(tmp_path: Path) -> None:
    ping, arp = ethernet(ip("10.0.0.1", "10.0.0.2", 1, b"\x08" * 8)), ethernet(b"\0\1" + b"\0" * 26, 0x0806)
    packets = [
        *bulk(30),
        (2.0, udp(PEER, DNS)),
        (3.0, udp(DNS, PEER)),
        (4.0, ping),
        (4.5, ping),
        (5.0, arp),
        (5.5, arp),
    ]
    told = "filter = function(engine, ts, flow) T.loginfo(ts .. ' ' .. flow:id()) return 1 end"
    _, collector, _ = await store(tmp_path, packets, told)
    assert collector.logged() == [
        "0 06A:0A.00.00.01:p-9C40_0A.00.00.02:p-0050",
        "2 11A:0A.00.00.01:p-A028_0A.00.00.09:p-0035",
        "4 01A:0A.00.00.01:p-0000_0A.00.00.02:p-0000",
        "5 00A:00.00.00.00:p-0000_00.00.00.00:p-0000",
    ]


SHOW = (
    "filter_payload = function(engine, ts, flow, direction, seekpos, buffer) "
    "T.loginfo(flow:protocol() .. ' ' .. direction .. ' ' .. seekpos .. ' ' .. buffer:tostring()) %s end"
)


async def test_the_first_payload_of_each_direction_is_shown(tmp_path: Path) -> None:
    packets = [
        *handshake(100, 200),
        (1.0, tcp(CLIENT, SERVER, 101, b"hello", ack=201)),
        (1.1, tcp(CLIENT, SERVER, 106, b"again", ack=201)),
        (1.2, tcp(SERVER, CLIENT, 201, b"answer", ack=111)),
        (2.0, udp(DNS, PEER, b"")),
        (2.1, udp(DNS, PEER, b"first")),
        (2.2, udp(PEER, DNS, b"back")),
        (2.3, udp(DNS, PEER, b"more")),
    ]
    _, collector, _ = await store(tmp_path, packets, SHOW % "")
    told = collector.logged()
    assert [each for each in told if each.startswith("11")] == ["11 0 0 first", "11 1 0 back"]
    (first, second) = (each for each in told if each.startswith("06"))
    assert first.startswith("06 0 0 hello")
    assert second == "06 1 0 answer"


async def test_payload_may_choose_beside_other_readers_of_streams(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "in.pcap", files=6, seed=2)
    chooses = write(
        tmp_path, plugin("packet_storage = { " + SHOW % "return direction == 1 and 2 or -1" + " }"), "s.lua"
    )
    files = write(tmp_path, plugin("filex_monitor = { onfile_http = function() T.logwarning('file') end }"), "f.lua")
    config = Config(store=tmp_path / "out")
    collector, stats = await run_capture(made.path, [chooses, files], config)
    assert len(collector.logged("WARN")) >= stats.http.files_complete > 0
    assert 0 < stats.store.shortened < stats.store.packets == stats.decode.packets


def hint(body: str) -> str:
    """A script that sees every Ethernet packet; its hook has `packet`."""
    hook = f"onpacket = function(engine, layer) local packet = layer:packet() {body} end"
    return plugin(f'simplecounter = {{ protocol_guid = "{GUIDS["Ethernet"]}", {hook} }}')


@pytest.mark.parametrize(
    ("code", "other", "sizes"),
    [
        (0, None, [54] * 3),
        (2, None, [54] * 8),
        (0, "1", [54] * 3 + [1054] * 5),
        ("'2'", "0", [54] * 8),
        (9, "0", [54] * 3),
    ],
)
async def test_a_hint_for_a_packet_is_one_more_answer(
    tmp_path: Path, code: int | str, other: str | None, sizes: list[int]
) -> None:
    """Three packets are hinted to be stored in full, the five longer ones as `code` says."""
    hints = write(tmp_path, hint(f"packet:set_packetstore_policy(packet:wire_length() > 500 and {code} or 1)"), "h.lua")
    found, _, _ = await store(tmp_path, bulk(5), *([answer(other)] if other else []), scripts=[hints])
    assert [len(each.data) for each in found] == sizes


async def test_a_hint_is_for_its_packet_only(tmp_path: Path) -> None:
    """Also where the packet goes back into the dissector, which the next one goes through, too."""
    inside = ip("10.1.0.1", "10.1.0.2", 17, udp(PEER, DNS, b"q")[34:])
    tunnel, plain = udp(PEER, ("10.0.0.9", 514), inside), udp(PEER, DNS, b"plain")
    control = f'guid = "{HANDLED}", name = "X", host_protocol_guid = "{GUIDS["UDP"]}", host_protocol_ports = {{ 514 }}'
    says = f'layer:packet():set_packetstore_policy(1) return 0, "{GUIDS["IPv4"]}"'
    body = f"protocol_handler = {{ control = {{ {control} }}, parselayer = function(layer) {says} end }}"
    packets: list[Record] = [(n / 10, tunnel if n % 1000 == 999 else plain) for n in range(9000)]
    handler = write(tmp_path, plugin(body), "h.lua")
    found, _, stats = await store(tmp_path, packets, answer(0), scripts=[handler])
    assert stats.script_errors == 0
    assert [each.data for each in found] == [tunnel] * 9


async def test_files_end_at_their_size_and_are_named_by_time(tmp_path: Path) -> None:
    packets: list[Record] = [
        (1_700_000_000 + n / 1000, tcp(CLIENT, SERVER, n * 1400, b"b" * 1400)) for n in range(2400)
    ]
    found, _, stats = await store(tmp_path, packets, store_mb=1)
    paths = sorted((tmp_path / "out").iterdir())
    assert [each.data for each in found] == [each[1] for each in packets]
    assert stats.store.files == len(paths) >= 4
    assert all(500_000 < path.stat().st_size <= 1_000_000 for path in paths[:-1])
    assert paths[0].name == "20231114-221320.000000.pcap"
    assert stats.store.bytes == sum(path.stat().st_size - 24 for path in paths)


async def test_no_file_is_replaced(tmp_path: Path) -> None:
    first, _, _ = await store(tmp_path, bulk(2))
    await run_capture(tmp_path / "in.pcap", [], Config(store=tmp_path / "out"))
    assert list(stored(tmp_path / "out")) == first * 2
    assert len(list((tmp_path / "out").iterdir())) == 2


async def test_two_sources_one_after_the_other(tmp_path: Path) -> None:
    """Flows of the second are new ones: what was said of the first does not count."""
    for name, packets in (("a", bulk(2)), ("b", [(5.0, udp(PEER, DNS, b"q"))])):
        (tmp_path / name).write_bytes(pcap(packets))
    body = "filter = function(e, ts, flow) T.loginfo(flow:id()) return flow:protocol() == '06' and 0 or 1 end"
    collector = Collector()
    script = write(tmp_path, plugin(f"packet_storage = {{ {body} }}"))
    async with Engine([script], config=Config(store=tmp_path / "out"), sinks=[collector]) as engine:
        await engine.run(Capture(tmp_path / "a"))
        await engine.run(Capture(tmp_path / "b"))
        assert [each.data for each in stored(tmp_path / "out")] == [udp(PEER, DNS, b"q")]
    assert collector.logged() == [
        "06A:0A.00.00.01:p-9C40_0A.00.00.02:p-0050",
        "11A:0A.00.00.01:p-A028_0A.00.00.09:p-0035",
    ]


async def test_a_folder_that_can_not_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "in.pcap").write_bytes(pcap(bulk(2)))
    async with Engine(config=Config(store=tmp_path / "file" / "out")) as engine:
        with pytest.raises(EngineError, match="Not a directory"):
            await engine.run(Capture(tmp_path / "in.pcap"))
        assert engine.stats.store.seen == 0


async def test_what_can_not_be_written_is_counted_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_one = PcapFolder.write
    calls = []

    def fail(folder: PcapFolder, run: Run, records: memoryview) -> None:
        calls.append(run.packets)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_one(folder, run, records)

    monkeypatch.setattr(PcapFolder, "write", fail)
    found, collector, stats = await store(tmp_path, bulk(3000))
    assert stats.store.packets == sum(calls[:3]) == len(found)
    assert stats.store.lost == 3003 - stats.store.packets > 0
    assert len([line for line in collector.logged("ERROR") if "No space left on device" in line]) == 1


def test_half_a_run_is_taken_back(tmp_path: Path) -> None:
    class Full:
        """A file that takes ten bytes of what comes after the header."""

        def __init__(self, file: object) -> None:
            self.file, self.left = file, 10

        def write(self, data: memoryview) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, "full")
            part, self.left = data[: self.left], 0
            return int(self.file.write(part))  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    folder = PcapFolder(tmp_path, 1_000_000)
    run = Run(1, 0, 40, 1, 5, 0)
    folder.write(run, memoryview(b"a" * 40))
    target = folder._open[1, 0]
    target.file = Full(target.file)  # type: ignore[assignment]
    with pytest.raises(OSError, match="full"):
        folder.write(run, memoryview(b"b" * 40))
    folder.close()
    (path,) = tmp_path.iterdir()
    assert path.read_bytes()[24:] == b"a" * 40


async def test_leaving_early_writes_what_was_chosen(tmp_path: Path) -> None:
    (tmp_path / "in.pcap").write_bytes(pcap(bulk(4000)))
    with pytest.raises(KeyError):
        async with Engine(config=Config(store=tmp_path / "out")) as engine:
            packets = engine._pipeline.store

            async def stop(_batch: object, keep: object = packets.keep) -> None:
                await keep(_batch)  # type: ignore[operator]
                if engine.stats.store.seen > 1000:
                    raise KeyError

            packets.keep = stop  # type: ignore[method-assign]
            await engine.run(Capture(tmp_path / "in.pcap"))
    told = engine.stats.store
    assert told.packets == told.seen == len(list(stored(tmp_path / "out")))
    assert told.pending == 0
