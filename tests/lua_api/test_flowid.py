"""FlowID: the parts of a key, their readable forms, and keys that are none."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

TCP = b"06A:C0.A8.01.02:p-0B94_D1.D8.F9.3A:p-0016"
MDNS = b"11B:FE80000000000000BA2A72FFFECC5E33:p-14E9_FF0200000000000000000000000000FB:p-14E9"
NETFLOW = b"06C:4A.CF.EA.5A:p-0050_C0.A8.01.21:p-8FA6_C0.A8.00.01_00000011_00000008"
NETFLOW6 = MDNS.replace(b"B", b"D", 1) + b"_C0.A8.00.01_00000011_FFFFFFFF"
METHODS = [
    "id",
    "key",
    "flow_type",
    "protocol",
    "ipa",
    "ipz",
    "porta",
    "portz",
    "ipa_readable",
    "ipz_readable",
    "porta_readable",
    "portz_readable",
    "netflow_router",
    "netflow_ifindex_in",
    "netflow_ifindex_out",
    "netflow_router_readable",
    "netflow_ifindex_in_readable",
    "netflow_ifindex_out_readable",
    "to_s",
]


def ask(lua: Any, key: bytes, *methods: str) -> Any:
    calls = ", ".join(f"flow:{method}()" for method in methods)
    return lua.run(f"local flow = require('offpath.flowid').from_key((...)) return {calls}", key)


def test_parts_of_an_ipv4_flow(lua: Any) -> None:
    parts = ask(lua, TCP, "id", "key", "flow_type", "protocol", "ipa", "porta", "ipz", "portz")
    assert parts == (TCP, TCP, b"A", b"06", b"C0.A8.01.02", b"p-0B94", b"D1.D8.F9.3A", b"p-0016")


def test_readable_parts_of_an_ipv4_flow(lua: Any) -> None:
    parts = ask(lua, TCP, "ipa_readable", "porta_readable", "ipz_readable", "portz_readable")
    assert parts == (b"192.168.1.2", b"2964", b"209.216.249.58", b"22")


def test_parts_of_an_ipv6_flow(lua: Any) -> None:
    parts = ask(lua, MDNS, "flow_type", "ipa", "ipa_readable", "ipz_readable", "porta", "portz_readable")
    assert parts == (
        b"B",
        b"FE80000000000000BA2A72FFFECC5E33",
        b"fe80::ba2a:72ff:fecc:5e33",
        b"ff02::fb",
        b"p-14E9",
        b"5353",
    )


def test_netflow_parts(lua: Any) -> None:
    names = [name for name in METHODS if name.startswith("netflow")]
    assert ask(lua, NETFLOW, *names) == (b"C0.A8.00.01", b"00000011", b"00000008", b"192.168.0.1", b"17", b"8")
    assert ask(lua, NETFLOW6, "flow_type", *names)[-1] == b"4294967295"
    assert ask(lua, TCP, *names) == (b"",) * 6


def test_to_s_columns(lua: Any) -> None:
    assert ask(lua, TCP, "to_s") == b"TCP  192.168.1.2     2964  209.216.249.58  22    "
    assert ask(lua, NETFLOW, "to_s") == (
        b"TCP  74.207.234.90   80    192.168.1.33    36774 192.168.0.1     17      8       "
    )


def test_long_values_stay_apart_in_to_s(lua: Any) -> None:
    assert ask(lua, MDNS, "to_s").split() == [b"UDP", b"fe80::ba2a:72ff:fecc:5e33", b"5353", b"ff02::fb", b"5353"]


@pytest.mark.parametrize(
    ("key", "word"),
    [
        (b"01A:0A.00.00.01:p-0000_0A.00.00.02:p-0000", b"icmp00"),
        (b"01A:0A.00.00.01:p-0008_0A.00.00.02:p-0000", b"icmp08"),
        (b"2FA:0A.00.00.01:p-0000_0A.00.00.02:p-0000", b"gre00"),
        (b"FDA:0A.00.00.01:p-0000_0A.00.00.02:p-0000", b"protofd00"),
        (b"02A:0A.00.00.01:igmp_0A.00.00.02:igmp", b"igmp"),
        (b"84A:0A.00.00.01:p-0B59_0A.00.00.02:p-0050", b"2905"),
    ],
)
def test_ports_of_other_protocols_are_words(lua: Any, key: bytes, word: bytes) -> None:
    assert ask(lua, key, "porta_readable", "ipz_readable") == (word, b"10.0.0.2")


def test_the_flow_of_no_ip_packet(lua: Any) -> None:
    zero = b"00A:00.00.00.00:p-0000_00.00.00.00:p-0000"
    assert lua.expression("require('offpath.flowid').from_key(nil):key()") == zero
    assert ask(lua, zero, "ipa_readable") == b"0.0.0.0"


@pytest.mark.parametrize(
    "key",
    [b"", b"06A:", b"garbage", TCP[:30], b"06E" + TCP[3:], TCP + b"x", b"\0" * 41, TCP + b"_a_b", b"zzA:1:2_3:4"],
)
def test_malformed_keys_give_strings(lua: Any, key: bytes) -> None:
    parts = ask(lua, key, *METHODS)
    assert parts[0] == parts[1] == key
    assert all(isinstance(part, bytes) for part in parts)


@given(st.binary(max_size=90))
def test_no_key_raises(shared_lua: Any, key: bytes) -> None:
    assert all(isinstance(part, bytes) for part in ask(shared_lua, key, *METHODS))


@given(st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None))
def test_ipv6_reads_as_ipaddress_has_it(shared_lua: Any, address: ipaddress.IPv6Address) -> None:
    key = address.packed.hex().upper().encode()
    assert shared_lua.expression("require('offpath.address').readable((...))", key).decode() == str(address)


@given(st.lists(st.sampled_from([0, 0, 1, 0xFFFF]), min_size=8, max_size=8))
def test_runs_of_zeros(shared_lua: Any, groups: list[int]) -> None:
    address = ipaddress.IPv6Address(b"".join(group.to_bytes(2, "big") for group in groups))
    if address.ipv4_mapped is None:
        test_ipv6_reads_as_ipaddress_has_it.hypothesis.inner_test(shared_lua, address)  # type: ignore[attr-defined]


def test_mapped_ipv4_is_dotted(lua: Any) -> None:
    assert (
        lua.expression("require('offpath.address').readable(('0'):rep(20) .. 'FFFFC0A80102')") == b"::ffff:192.168.1.2"
    )


def test_key_of(lua: Any) -> None:
    source = """
    local M = require "offpath.flowid"
    return M.key_of(M.from_key(...)), M.key_of((...)), M.key_of(7), M.key_of({}), M.key_of(nil)
    """
    assert lua.run(source, TCP) == (TCP, TCP, b"7", None, None)
