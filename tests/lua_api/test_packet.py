"""Packet and Layer against bytes that are known, and what they say when there is nothing to read."""

from __future__ import annotations

import ctypes
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.capture.frames import NAMES, Frame, dissect, inner_ip, outer, outer_udp, udp_header
from tests.capture.guard_page import GuardedRoom
from tests.capture.packets import ACK, RST, ethernet, ip, pcap, tcp, udp
from tests.lua_api.packet_rig import (
    GUIDS,
    Hook,
    batches,
    copy_of,
    counter,
    keys_and_flows,
    told_of,
    told_of_packet,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
KNOWN = sorted((SHARED / "expected").glob("*.json"))

A, Z = ("10.0.0.5", 40000), ("10.0.0.9", 53)
KEY = "11A:0A.00.00.05:p-9C40_0A.00.00.09:p-0035"


def test_a_layer_is_its_header() -> None:
    packet = udp(A, Z, b"payload")
    assert told_of_packet(packet, 'T.loginfo(layer:layer_bytes() .. " " .. layer:total_bytes())', "UDP") == "8 49"
    assert told_of_packet(packet, "T.loginfo(layer:protocol_id())", "UDP") == GUIDS["UDP"]
    assert told_of_packet(packet, "T.loginfo(layer:rawbytes():tostring())", "UDP").encode("latin-1") == packet[34:42]
    assert told_of_packet(packet, "T.loginfo(layer:rawbytes():tostring())", "IPv4").encode("latin-1") == packet[14:34]


def test_an_icmp_layer_has_its_payload() -> None:
    packet = outer(1, b"\x08\0\0\0" + bytes(range(60)))
    assert told_of_packet(packet, "T.loginfo(layer:rawbytes():size())", "ICMP") == "64"


def test_all_of_a_packet() -> None:
    packet = udp(A, Z, b"payload")
    body = """
      local s, us = packet:timestamp()
      T.loginfo(table.concat({ s, us, packet:rawbytes():size(), packet:wire_length(), packet:capture_length(),
        packet:num_layers(), packet:originid(), packet:flowid():id(), layer:flowkey() }, " ")) """
    assert told_of_packet(packet, body, wire=1000) == f"1 250000 49 1000 49 3 0 {KEY} {KEY}"


def test_times_round_to_the_microsecond() -> None:
    records = [(7.0, udp(A, Z)), (1447680000.999999, udp(A, Z)), (1447680001.000001, udp(A, Z))]
    told = told_of(pcap(list(records)), "local s, us = packet:timestamp() T.loginfo(('%d.%06d'):format(s, us))")
    assert told == ["7.000000", "1447680000.999999", "1447680001.000001"]


def test_layers_of_a_packet_by_place_and_by_protocol() -> None:
    packet = ethernet(b"\x00\x05\x08\x00" + udp(A, Z)[14:], 0x8100)
    body = """
      local found = {}
      for i = 0, packet:num_layers() - 1 do found[#found + 1] = packet:get_layer(i):protocol_id() end
      for _, missing in ipairs { -1, 4, 1e9, 0/0, "x" } do found[#found + 1] = tostring(packet:get_layer(missing)) end
      found[#found + 1] = tostring(packet:get_layer(nil))
      found[#found + 1] = packet:get_layer("2"):layer_bytes()
      T.loginfo(table.concat(found, " "))"""
    names = " ".join(GUIDS[name] for name in ("Ethernet", "VLAN", "IPv4", "UDP"))
    assert told_of_packet(packet, body) == f"{names} nil nil nil nil nil nil 20"


@pytest.mark.parametrize("spelled", [GUIDS["UDP"], GUIDS["UDP"].lower()])
def test_find_layer(spelled: str) -> None:
    body = f"""
      local udp = packet:find_layer("{spelled}")
      T.loginfo(udp:getbyte(3) .. " " .. tostring(packet:find_layer("{GUIDS["TCP"]}")) .. " "
        .. tostring(packet:find_layer("no guid")) .. " " .. tostring(packet:find_layer(nil)) .. " "
        .. tostring(packet:find_layer("{{00000000-0000-0000-0000-000000000001}}")))"""
    assert told_of_packet(udp(A, Z), body) == "53 nil nil nil nil"


def test_find_layer_finds_the_first_one_at_any_depth() -> None:
    """IP in IP in IP: the layer of the simplecounter is the outermost; deeper ones are found by place."""
    innermost = ip("5.5.5.5", "6.6.6.6", 17, udp_header(b"x", (1000, 53)))
    packet = outer(4, ip("1.1.1.1", "2.2.2.2", 4, ip("3.3.3.3", "4.4.4.4", 4, innermost)))
    body = f"""
      local udp = packet:find_layer("{GUIDS["UDP"]}")
      T.loginfo(layer:getbyte(15) .. " " .. packet:get_layer(4):getbyte(15) .. " " .. udp:getbyte(3))"""
    assert told_of_packet(packet, body, "IPv4") == "1 5 53"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("0", 0xDE),
        ("3", 0xEF),
        ('"1"', 0xAD),
        ("1.9", 0xAD),
        ("7", 1),
        ("8", 0),
        ("7.999", 1),
        ("-1", 0),
        ("-0.5", 0),
        ("1e300", 0),
        ("-1e300", 0),
        ("1/0", 0),
        ("0/0", 0),
        ("2^32", 0),
        ("nil", 0),
        ("{}", 0),
        ('"x"', 0),
    ],
)
def test_getbyte(argument: str, value: int) -> None:
    packet = outer(17, bytes.fromhex("deadbeef00080001") + b"\xff" * 20)
    assert told_of_packet(packet, f"T.loginfo(layer:getbyte({argument}))", "UDP") == str(value)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("0", True), ("1", False), ('"7"', True), ("8", False), ("15", True), ("63", True), ("63.5", True), ("64", False)]
    + [(each, False) for each in ("-1", "2^32", "2^32 + 7", "1e300", "1/0", "-1/0", "0/0", "nil", "{}", '"x"')],
)
def test_testbit(argument: str, value: bool) -> None:
    packet = outer(17, bytes.fromhex("8101000000080001") + b"\xff" * 20)
    assert told_of_packet(packet, f"T.loginfo(tostring(layer:testbit({argument})))", "UDP") == str(value).lower()


def test_a_reset_is_bit_109() -> None:
    for flags, expected in ((RST, "true"), (ACK, "false")):
        assert told_of_packet(tcp(A, Z, 1, flags=flags), "T.loginfo(tostring(layer:testbit(109)))", "TCP") == expected


def test_what_the_snap_length_cut_is_not_there() -> None:
    packet = tcp(A, Z, 0x01020304)
    body = (
        'T.loginfo(table.concat({ layer:layer_bytes(), layer:getbyte(4), layer:getbyte(8), layer:total_bytes() }, "|"))'
    )
    assert told_of_packet(packet[:42], body, "TCP", wire=len(packet)) == "8|1|0|54"


def test_setters_are_for_input_filters() -> None:
    body = """
      local _, a = pcall(packet.set_packet, packet, 1, 2, 3, "x")
      local _, b = pcall(packet.set_timestamp, packet, 1)
      T.loginfo(a .. b)
      packet:set_packetstore_policy(1)"""
    told = told_of_packet(udp(A, Z), body)
    assert "packet:set_packet: only" in told
    assert "packet:set_timestamp: only" in told


# ---- flow keys


@pytest.mark.parametrize(
    ("packet", "key"),
    [
        pytest.param(udp(Z, A), KEY, id="the reply"),
        pytest.param(outer(1, b"\0" * 8), "01A:0A.00.00.01:p-0000_0A.00.00.02:p-0000", id="icmp"),
        pytest.param(
            ethernet(ip("10.0.0.2", "10.0.0.1", 1, b"\0" * 8)),
            "01A:0A.00.00.01:p-0000_0A.00.00.02:p-0000",
            id="icmp back",
        ),
        pytest.param(
            udp(("9.0.0.1", 7), ("10.0.0.0", 7)), "11A:09.00.00.01:p-0007_0A.00.00.00:p-0007", id="equal ports"
        ),
        pytest.param(
            udp(("200.0.0.1", 7), ("10.0.0.0", 7)), "11A:0A.00.00.00:p-0007_C8.00.00.01:p-0007", id="and back"
        ),
        pytest.param(ethernet(b"\0" * 46, 0x88B5), "00A:00.00.00.00:p-0000_00.00.00.00:p-0000", id="no IP"),
        pytest.param(
            udp(("fe80::1", 5353), ("ff02::fb", 5353)),
            "11B:FE800000000000000000000000000001:p-14E9_FF0200000000000000000000000000FB:p-14E9",
            id="IPv6",
        ),
        pytest.param(
            udp(("ff02::fb", 1), ("fe80::1", 2)),
            "11B:FE800000000000000000000000000001:p-0002_FF0200000000000000000000000000FB:p-0001",
            id="IPv6 by ports",
        ),
        pytest.param(
            ethernet(ip("fe80::2", "fe80::1", 58, b"\0" * 8)),
            "3AB:FE800000000000000000000000000001:p-0000_FE800000000000000000000000000002:p-0000",
            id="ICMPv6",
        ),
        pytest.param(
            outer_udp(4789, b"\x08\0\0\0\0\0\1\0" + ethernet(inner_ip())),
            "11A:C0.A8.00.01:p-03E8_C0.A8.00.02:p-0035",
            id="the inner flow of a tunnel",
        ),
    ],
)
def test_flow_keys(packet: bytes, key: str) -> None:
    assert told_of_packet(packet, 'T.loginfo(layer:flowkey() .. " " .. packet:flowid():id())') == f"{key} {key}"


def captures() -> list[Any]:
    if not KNOWN:
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no captures in {SHARED}"))]
    return [pytest.param(path, id=path.stem) for path in KNOWN]


def capture_of(known: Path) -> Path:
    return SHARED / "pcap" / json.loads(known.read_text())["capture"]


@pytest.mark.parametrize("known", captures())
def test_flow_keys_are_those_of_the_flow_records(known: Path) -> None:
    keys, flows = keys_and_flows(capture_of(known))
    keyed = {each for each in keys if each[0]}
    if keyed:
        assert Counter(key for _, key in keyed) == Counter(flow.id for flow in flows)
    for number, key in keys:
        assert number or not key.startswith("06A") or flows == []


@pytest.mark.parametrize("known", captures())
def test_a_counter_sees_each_packet_with_its_layer_once(known: Path) -> None:
    capture = capture_of(known)
    expected = dissect(capture).layers
    for name, number in expected.items():
        told = told_of(capture, "T.loginfo('x')", guid_of(name))
        assert len(told) == number, name


def guid_of(name: str) -> str:
    lua = Hook(counter("", "Ethernet")).lua
    guid: bytes = lua.state.execute(b"return require('offpath.protocols').guid[...]", NAMES.index(name))
    return guid.decode()


@pytest.mark.parametrize("known", captures())
def test_layers_read_as_the_bytes_of_the_capture(known: Path) -> None:
    body = """
      local parts = {}
      for i = 0, packet:num_layers() - 1 do
        local each = packet:get_layer(i)
        local bytes = each:rawbytes()
        assert(each:getbyte(0) == bytes:hval_8(0))
        assert(each:getbyte(each:layer_bytes() - 1) == bytes:hval_8(bytes:size() - 1))
        parts[#parts + 1] = T.util.bin2hex(bytes:tostring())
      end
      T.loginfo(table.concat(parts, " "))"""
    seen = [each for each in dissect(capture_of(known)).frames if each.names and each.names[0] == "Ethernet"]
    told = told_of(capture_of(known), body)
    assert told == [" ".join(each.data[at : at + size].hex() for _, at, size in each.layers) for each in seen]


# ---- what is kept, and the end of memory

KEEPERS = """
  kept = kept or {}
  kept[#kept + 1] = { layer, packet, packet:rawbytes(), layer:rawbytes(), packet:get_layer(0), packet:find_layer("%s") }
  local function all(what)
    local layer, packet, whole, bytes, first, found = unpack(what)
    return table.concat({ layer:layer_bytes(), layer:total_bytes(), layer:protocol_id(), layer:rawbytes():size(),
      tostring(layer:testbit(3)), layer:getbyte(0), layer:flowkey(), packet:timestamp(), packet:rawbytes():size(),
      packet:wire_length(), packet:capture_length(), packet:num_layers(), tostring(packet:get_layer(0)),
      tostring(packet:find_layer("%s")), packet:flowid():id(), whole:size(), whole:hval_32(0), bytes:tostring(),
      first:getbyte(0), found:getbyte(0) }, " ")
  end
  function kept_now() return all(kept[1]) end
""".replace("%s", GUIDS["UDP"])

EMPTY_KEY = "00A:00.00.00.00:p-0000_00.00.00.00:p-0000"
NOTHING = f"0 0  0 false 0 {EMPTY_KEY} 0 0 0 0 0 nil nil {EMPTY_KEY} 0 0  0 0"


def test_what_is_kept_is_empty_after_the_batch() -> None:
    hook = Hook(counter(KEEPERS, "UDP"))
    with batches(pcap([(1.0, udp(A, Z, b"abc"))])) as (found, _):
        for batch in found:
            hook.feed(batch.frames, batch.frame_count)
        assert hook.lua.state.execute(b"return kept_now()").decode() == NOTHING
    assert hook.lua.state.execute(b"return kept_now()").decode() == NOTHING  # the capture is closed
    assert hook.lua.errors() == []


def test_what_is_kept_is_empty_when_the_hook_raised() -> None:
    hook = Hook(counter(KEEPERS + "error('now')", "UDP"))
    with batches(pcap([(1.0, udp(A, Z, b"abc"))])) as (found, _):
        for batch in found:
            hook.feed(batch.frames, batch.frame_count)
    assert [name for name, _ in hook.lua.errors()] == ["onpacket"]
    assert hook.lua.state.execute(b"return kept_now()").decode() == NOTHING


def test_a_kept_layer_reads_as_the_packet_that_came_next() -> None:
    body = """
      if last then T.loginfo(last:getbyte(3) .. " " .. tostring(deep:getbyte(3))) end
      last, deep = layer, packet:get_layer(2)"""
    records = [(1.0, udp(A, (Z[0], port))) for port in (5, 6)] + [(1.0, ethernet(ip("1.1.1.1", "2.2.2.2", 17, b"")))]
    assert told_of(pcap([*records]), body, "UDP") == ["6 6"]
    assert told_of(pcap([*records]), "deep = deep or packet:get_layer(2) T.loginfo(deep:layer_bytes())") == [
        "8",
        "8",
        "0",
    ]


def test_nothing_beyond_the_captured_bytes_is_read() -> None:
    """Each packet ends where a page begins that can't be read: one byte too far would end the process."""
    body = """
      local bytes = layer:layer_bytes()
      for _, at in ipairs { -1, 0, 1, bytes - 1, bytes, 2^31, 2^31 - 1, 2^32, 1e18, -2^31, 0/0 } do
        layer:getbyte(at) layer:testbit(at) layer:testbit(at * 8) layer:testbit(at * 8 + 7)
        local raw, whole = layer:rawbytes(), packet:rawbytes()
        for _, buffer in ipairs { raw, whole } do
          buffer:hval_8(at) buffer:hval_16(at) buffer:hval_24(at) buffer:hval_32(at)
          buffer:tostring(at, 4) buffer:tostring(at)
        end
      end
      for i = -1, packet:num_layers() do local each = packet:get_layer(i) if each then each:rawbytes():hexdump() end end
      layer:flowkey()
      T.loginfo("ok")"""
    room = GuardedRoom()
    for packet in (udp(A, Z, b"x"), udp(A, Z)[:40], tcp(A, Z, 1)[:45], udp(("::1", 1), ("::2", 2))[:60]):
        for protocol in ("Ethernet", "IPv4", "IPv6", "UDP", "TCP"):
            hook = Hook(counter(body, protocol))
            with batches(pcap([(1.0, packet, 100)])) as (found, _):
                frames = copy_of(next(found))
            ctypes.memmove(room.guard - len(packet), packet, len(packet))
            frames[0].address = room.guard - len(packet)
            hook.feed(ctypes.addressof(frames), len(frames))
            assert hook.lua.errors() == []
            assert hook.told() in (["ok"], [])


def test_frames_are_as_large_as_those_who_feed_them_think() -> None:
    from engine.pipeline.packets import _FRAME_BYTES

    assert ctypes.sizeof(Frame) == _FRAME_BYTES


def test_a_counter_of_a_deep_layer_gets_the_right_one() -> None:
    """The places of a protocol that are looked at one by one, and those behind them."""
    for depth in range(1, 8):
        tags = b"".join(struct.pack(">HH", at, 0x8100) for at in range(depth - 1)) + struct.pack(">HH", depth, 0x0800)
        packet = ethernet(tags + udp(A, Z)[14:], 0x8100)
        assert told_of_packet(packet, "T.loginfo(layer:getbyte(3))", "UDP") == "53"
