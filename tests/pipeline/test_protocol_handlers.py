"""Protocols that scripts make: where handlers are called, what they may return, and how they stack."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from engine import Capture, Engine
from engine.values.records import Flow
from tests.capture.frames import inner_ip, outer, udp_header
from tests.capture.packets import Record, ethernet, ip, pcap, tcp, udp
from tests.lua_api.packet_rig import GUIDS
from tests.scripts import Collector, write

OURS = [f"{{AAAAAAAA-0000-4000-8000-00000000000{digit}}}" for digit in range(10)]
COUNTERS = "{BBBBBBBB-0000-4000-8000-000000000000}"
A, Z = ("10.0.0.5", 40000), ("10.0.0.9", 514)
ALL = "return layer:layer_bytes()"


def handler(own: str, host: str | None, ports: str, body: str) -> str:
    """A script with a protocol_handler; `host` is a name or a GUID."""
    hosted = f'host_protocol_guid = "{GUIDS.get(host, host)}",' if host else ""
    return (
        f'TrisulPlugin = {{ id = {{ name = "h" }}, protocol_handler = {{ control = {{ guid = "{own}", name = "X", '
        f"{hosted} host_protocol_ports = {ports} }}, parselayer = function(layer) {body}\nend }} }}"
    )


def reader(protocol: str, body: str = "T.loginfo(layer:rawbytes():tostring())") -> str:
    """A script with a simplecounter that logs the bytes of its layer."""
    return (
        f'TrisulPlugin = {{ id = {{ name = "r" }}, simplecounter = {{ protocol_guid = "{protocol}", '
        f"onpacket = function(engine, layer) {body}\nend }} }}"
    )


async def run(tmp_path: Path, packets: list[bytes], *scripts: str) -> Collector:
    """All records of a run over packets; no script fails to load."""
    path = tmp_path / "x.pcap"
    records: list[Record] = [(float(number), packet) for number, packet in enumerate(packets)]
    path.write_bytes(pcap(records))
    files = [write(tmp_path, text, f"s{number}.lua") for number, text in enumerate(scripts)]
    collector = Collector()
    async with Engine(files, sinks=[collector]) as engine:
        assert engine.load_errors == ()
        await engine.run(Capture(path))
    return collector


async def told(tmp_path: Path, packets: list[bytes], *scripts: str) -> list[str]:
    """What scripts logged; none raised."""
    collector = await run(tmp_path, packets, *scripts)
    assert collector.logged("ERROR") == []
    return collector.logged()


SCTP = ethernet(ip("10.0.0.1", "10.0.0.2", 132, struct.pack(">HHII", 9, 36412, 0, 0) + b"hello"))
TAGGED = ethernet(b"\0\1\x88\xb5hello", 0x8100)
EXTENDED = ethernet(ip("::1", "::2", 60, bytes([200, 0, 1, 4, 0, 0, 0, 0]) + b"hello"))


@pytest.mark.parametrize(
    ("host", "ports", "packet"),
    [
        pytest.param("UDP", "{ 514 }", udp(A, Z, b"hello"), id="udp"),
        pytest.param("UDP", "{ 7, 514 }", udp(Z, A, b"hello"), id="udp source port"),
        pytest.param("UDP", "{ '514' }", udp(A, Z, b"hello"), id="a port as text"),
        pytest.param("TCP", "{ 514 }", tcp(A, Z, 1, b"hello"), id="tcp"),
        pytest.param("SCTP", "{ 36412 }", SCTP, id="sctp"),
        pytest.param("Ethernet", "{ 0x88B5 }", ethernet(b"hello", 0x88B5), id="ethertype"),
        pytest.param("VLAN", "{ 0x88B5 }", TAGGED, id="ethertype in a tag"),
        pytest.param("Ethernet", "{ 0x88B5 }", TAGGED, id="ethertype of a frame with a tag"),
        pytest.param("IPv4", "{ 200 }", outer(200, b"hello"), id="ip protocol"),
        pytest.param("IPv6", "{ 200 }", ethernet(ip("::1", "::2", 200, b"hello")), id="ipv6"),
        pytest.param("IPv6", "{ 200 }", EXTENDED, id="behind an extension header"),
    ],
)
async def test_what_lies_above_the_host_is_the_handlers(tmp_path: Path, host: str, ports: str, packet: bytes) -> None:
    found = await told(tmp_path, [packet], handler(OURS[1], host, ports, ALL), reader(OURS[1].lower()))
    assert found == ["hello"]


@pytest.mark.parametrize(
    "packet",
    [
        udp(A, ("10.0.0.9", 515), b"hello"),
        tcp(A, Z, 1, b"hello"),
        udp(A, Z),
        ethernet(ip("1.1.1.1", "2.2.2.2", 17, udp_header(b"hello", (1, 514)), fragment=0x2000)),
    ],
)
async def test_what_does_not_is_not(tmp_path: Path, packet: bytes) -> None:
    assert await told(tmp_path, [packet], handler(OURS[1], "UDP", "{ 514 }", "T.loginfo('called')")) == []


@pytest.mark.parametrize("ports", ["nil", "{}", "false", '"x"', "{ {}, 'y' }"])
async def test_without_ports_it_is_never_its_turn(tmp_path: Path, ports: str) -> None:
    assert await told(tmp_path, [udp(A, Z, b"hello")], handler(OURS[1], "UDP", ports, "T.loginfo('called')")) == []


async def test_padding_is_not_of_the_packet(tmp_path: Path) -> None:
    packets = [outer(200, b"hello") + b"\0" * 7, udp(A, Z, b"hello") + b"\0" * 7]
    scripts = [handler(OURS[1], "IPv4", "{ 200 }", ALL), handler(OURS[1], "UDP", "{ 514 }", ALL)]
    assert await told(tmp_path, packets, *scripts, reader(OURS[1])) == ["hello", "hello"]


async def test_a_fragmented_datagram_is_whole(tmp_path: Path) -> None:
    data = bytes(range(65, 81))
    parts = [
        ethernet(ip("1.1.1.1", "2.2.2.2", 200, data[:8], fragment=0x2000, ident=7)),
        ethernet(ip("1.1.1.1", "2.2.2.2", 200, data[8:], fragment=1, ident=7)),
    ]
    found = await told(tmp_path, parts, handler(OURS[1], "IPv4", "{ 200 }", ALL), reader(OURS[1]))
    assert found == [data.decode()]


async def test_what_a_handler_sees(tmp_path: Path) -> None:
    body = f"""
      T.loginfo(table.concat({{ layer:layer_bytes(), layer:total_bytes(), layer:protocol_id(), layer:getbyte(0),
        layer:getbyte(5), tostring(layer:testbit(1)), layer:rawbytes():tostring(), layer:flowkey(),
        layer:packet():num_layers(), layer:packet():find_layer("{GUIDS["UDP"]}"):getbyte(3) }}, " ")) """
    found = await told(tmp_path, [udp(A, Z, b"hello")], handler(OURS[1], "UDP", "{ 514 }", body))
    assert found == [f"5 47 {OURS[1]} 104 0 true hello 11A:0A.00.00.05:p-9C40_0A.00.00.09:p-0202 3 2"]


@pytest.mark.parametrize(
    ("returned", "layer"),
    [
        ("5", "hello"),
        ("2", "he"),
        ("2.9", "he"),
        ("'3'", "hel"),
        ("1e9", "hello"),
        ("1/0", "hello"),
        ("3, nil", "hel"),
        ("3, 'no guid'", "hel"),
        ("3, {}", "hel"),
        ("3, 7", "hel"),
        ("", None),
        ("nil", None),
        ("0", None),
        ("0.5", None),
        ("-1", None),
        ("0/0", None),
        ("{}", None),
        ("'x'", None),
        ("true", None),
    ],
)
async def test_what_a_handler_returns(tmp_path: Path, returned: str, layer: str | None) -> None:
    scripts = handler(OURS[1], "UDP", "{ 514 }", f"return {returned}"), reader(OURS[1])
    assert await told(tmp_path, [udp(A, Z, b"hello")], *scripts) == ([] if layer is None else [layer])


async def test_who_declines_leaves_it_to_the_next_one(tmp_path: Path) -> None:
    first, second = handler(OURS[1], "UDP", "{ 514 }", "return"), handler(OURS[2], "UDP", "{ 514 }", ALL)
    assert await told(tmp_path, [udp(A, Z, b"hello")], first, second, reader(OURS[2])) == ["hello"]
    third = handler(OURS[3], "UDP", "{ 514 }", "T.loginfo('called')")
    assert await told(tmp_path, [udp(A, Z, b"hello")], first, second, third) == []


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
async def test_protocols_stack_in_any_order_of_loading(tmp_path: Path, order: tuple[int, ...]) -> None:
    """One names the next, which is the host of a third."""
    scripts = [
        handler(OURS[1], "UDP", "{ 514 }", f'return 2, "{OURS[2].lower()}"'),
        handler(OURS[2], None, "nil", "return 1"),
        handler(OURS[3], OURS[2], "nil", ALL),
        reader(
            OURS[3],
            "local packet, own = layer:packet(), layer:rawbytes():tostring() "
            "T.loginfo(packet:num_layers() .. own .. packet:get_layer(3):rawbytes():tostring())",
        ),
    ]
    assert await told(tmp_path, [udp(A, Z, b"hello")], *(scripts[each] for each in order)) == ["6lohe"]


@pytest.mark.parametrize("swapped", [False, True])
async def test_a_redirect_makes_no_layer(tmp_path: Path, swapped: bool) -> None:
    scripts = [
        handler(OURS[1], "UDP", "{ 514 }", f'return 0, "{OURS[2]}"'),
        handler(OURS[2], None, "nil", ALL),
    ]
    both = [reader(OURS[1], "T.loginfo('the first')"), reader(OURS[2])]
    assert await told(tmp_path, [udp(A, Z, b"hello")], *(reversed(scripts) if swapped else scripts), *both) == ["hello"]


async def test_a_loop_of_redirects_ends(tmp_path: Path) -> None:
    scripts = [
        handler(OURS[1], "UDP", "{ 514 }", f'calls = (calls or 0) + 1 T.loginfo(calls) return 0, "{OURS[2]}"'),
        handler(OURS[2], None, "nil", f'return 0, "{OURS[1]}"'),
        handler(OURS[3], "UDP", "{ 515 }", f'return 0, "{OURS[3]}"'),
    ]
    packets = [udp(A, Z, b"hello"), udp(A, ("10.0.0.9", 515), b"hello"), tcp(A, Z, 1, b"hello")]
    assert 1 <= len(await told(tmp_path, packets, *scripts, reader(GUIDS["TCP"], "T.loginfo('other')"))) <= 20


async def test_a_protocol_within_itself_ends_with_its_bytes(tmp_path: Path) -> None:
    own = handler(OURS[1], "UDP", "{ 514 }", f'return 1, "{OURS[1]}"')
    counted = reader(OURS[1], "T.loginfo(layer:packet():num_layers())")
    assert await told(tmp_path, [udp(A, Z, b"hello")], own, counted) == ["8"]
    assert await told(tmp_path, [udp(A, Z, b"h" * 1400)], own, counted) == ["12"]  # one and eight rounds more


async def test_a_handler_that_raises_declines(tmp_path: Path) -> None:
    body = 'if layer:getbyte(0) == 33 then error("cannot") end ' + ALL
    packets = [udp(A, Z, data) for data in (b"one", b"!wo", b"three")]
    collector = await run(tmp_path, packets, handler(OURS[1], "UDP", "{ 514 }", body), reader(OURS[1]))
    assert collector.logged() == ["one", "three"]
    [error] = collector.logged("ERROR")
    assert "s0.lua" in error
    assert "parselayer" in error
    assert "cannot" in error


# ---- back into the dissector


async def test_a_named_protocol_of_the_dissector_goes_on(tmp_path: Path) -> None:
    """A tunnel that a script knows: two bytes, then IPv4 with UDP, in which another script knows the port."""
    packet = udp(A, Z, b"\1\2" + inner_ip())
    scripts = [
        handler(OURS[2], "UDP", "{ 53 }", ALL),
        handler(OURS[1], "UDP", "{ 514 }", f'return 2, "{GUIDS["IPv4"]}"'),
        reader(
            OURS[2],
            'T.loginfo(layer:rawbytes():tostring() .. " " .. layer:packet():num_layers() .. " " .. layer:flowkey())',
        ),
    ]
    collector = await run(tmp_path, [packet], *scripts)
    assert collector.logged("ERROR") == []
    assert collector.logged() == ["payload 7 11A:C0.A8.00.01:p-03E8_C0.A8.00.02:p-0035"]
    flows: list[Flow] = collector.of("flow")
    assert [flow.z_port for flow in flows] == [514]


@pytest.mark.parametrize("cut", [0, 3, 10, 19, 20, 25, 28, 34])
async def test_it_reads_no_further_than_there_are_bytes(tmp_path: Path, cut: int) -> None:
    packet = udp(A, Z, b"\1\2" + inner_ip()[:cut])
    scripts = handler(OURS[1], "UDP", "{ 514 }", f'return 2, "{GUIDS["IPv4"]}"'), reader(OURS[1], "T.loginfo('seen')")
    assert await told(tmp_path, [packet + b"\0" * 40], *scripts) == ["seen"]


@pytest.mark.parametrize(
    ("following", "inside", "layers"),
    [
        ("Ethernet", ethernet(inner_ip()), 7),
        ("VLAN", b"\0\1\x08\0" + inner_ip(), 7),
        ("LLC", b"\xaa\xaa\3\0\0\0\x08\0" + inner_ip(), 7),
        ("SLL", b"\0" * 14 + b"\x08\0" + inner_ip(), 7),
        ("SLL2", b"\x08\0" + b"\0" * 18 + inner_ip(), 7),
        ("Loopback", b"\2\0\0\0" + inner_ip(), 7),
        ("PPP", b"\xff\3\0\x21" + inner_ip(), 7),
        ("UDP", udp_header(b"x"), 5),
        ("TCP", tcp(A, Z, 1)[34:], 5),
        ("ARP", b"\0\1\x08\0\6\4\0\1" + b"\0" * 20, 5),
        ("ICMP", b"\0" * 8, 5),
    ],
)
async def test_dissectors_that_may_be_named(tmp_path: Path, following: str, inside: bytes, layers: int) -> None:
    scripts = [
        handler(OURS[1], "TCP", "{ 514 }", f'return 1, "{GUIDS[following]}"'),
        reader(OURS[1], "T.loginfo(layer:packet():num_layers())"),
    ]
    assert await told(tmp_path, [tcp(A, Z, 1, b"\1" + inside)], *scripts) == [str(layers)]


# ---- names and numbers


async def test_a_counter_of_an_unknown_protocol_waits_for_its_handler(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap([(1.0, udp(A, Z, b"hello"))]))
    collector = Collector()
    async with Engine([write(tmp_path, reader(OURS[1]), "r.lua")], sinks=[collector]) as engine:
        await engine.run(Capture(path))
        assert collector.logged() == []
        await engine.load(write(tmp_path, handler(OURS[1], "UDP", "{ 514 }", ALL), "h.lua"))
        await engine.run(Capture(path))
        assert collector.logged() == ["hello"]
        await engine.unload("h.lua")
        await engine.run(Capture(path))
        assert collector.logged() == ["hello"]
        await engine.load(tmp_path / "h.lua")
        await engine.run(Capture(path))
    assert collector.logged() == ["hello", "hello"]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("simplecounter = { onpacket = print }", "simplecounter.protocol_guid is missing"),
        (
            "simplecounter = { protocol_guid = 'x', onpacket = print }",
            "simplecounter.protocol_guid must be a GUID, not x",
        ),
        (
            "simplecounter = { protocol_guid = 7, onpacket = print }",
            "simplecounter.protocol_guid must be a GUID, not 7",
        ),
        ("protocol_handler = { parselayer = print }", "protocol_handler.control is missing"),
        ("protocol_handler = { control = {}, parselayer = print }", "protocol_handler.control.guid is missing"),
        (
            "protocol_handler = { control = { guid = '{}' }, parselayer = print }",
            "protocol_handler.control.guid must be a GUID, not {}",
        ),
        (
            f"protocol_handler = {{ control = {{ guid = '{OURS[1]}', host_protocol_guid = true }} }}",
            "protocol_handler.control.host_protocol_guid must be a GUID, not true",
        ),
    ],
)
async def test_a_wrong_guid_is_a_load_error_that_names_the_field(tmp_path: Path, block: str, message: str) -> None:
    script = write(tmp_path, f'TrisulPlugin = {{ id = {{ name = "w" }}, {block} }}')
    async with Engine([script]) as engine:
        [error] = engine.load_errors
        assert message in str(error)
        assert "script.lua" in str(error)


async def test_there_is_an_end_to_the_protocols_that_scripts_name(tmp_path: Path) -> None:
    collector = Collector()
    async with Engine(sinks=[collector]) as engine:
        for number in range(27):
            guid = f"{{CCCCCCCC-0000-4000-8000-0000000000{number:02X}}}"
            await engine.load(write(tmp_path, reader(guid), f"s{number}.lua"))
        script = write(tmp_path, reader("{CCCCCCCC-0000-4000-8000-0000000000FF}"), "more.lua")
        with pytest.raises(Exception, match="scripts name more than 27 protocols"):
            await engine.load(script)
        await engine.load(write(tmp_path, reader(GUIDS["TCP"]), "known.lua"))
