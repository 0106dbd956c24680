"""T.host and T.env: home networks in every form of an address, configuration paths as scripts write them."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

NETWORKS = ["10.0.0.0/8", "192.168.1.7/24", "172.16.0.0/255.240.0.0", "8.8.8.8"]

BUILD = """
local networks, wide = ...
local homenets = { "10.0.0.0/8", "192.168.1.7/24", "172.16.0.0/255.240.0.0", "8.8.8.8" }
if wide then homenets[5] = wide end
host, env = require("offpath.hostinfo").build { homenets = homenets, config = { ["App > DBRoot "] = "/data/db" } }
return function(value) return host:is_homenet(value), host:is_homenet_key(value) end
"""


@pytest.mark.parametrize(
    "value",
    [
        b"10.1.2.3",
        b"0A.01.02.03",
        0x0A010203,
        str(0x0A010203).encode(),
        b"192.168.1.255",
        b"172.31.255.255",
        b"8.8.8.8",
        float(0x08080808),
    ],
)
def test_inside(lua: Any, value: Any) -> None:
    assert lua.run(BUILD)(value) == (True, True)


@pytest.mark.parametrize(
    "value",
    [
        *(b"11.0.0.0", b"192.168.2.1", b"172.32.0.0", b"8.8.8.9", b"0B.00.00.00", 0x0B000000, b"", b"x", b"10.1.2"),
        *(
            None,
            True,
            -1,
            2**32,
            float("nan"),
            float("inf"),
            b"fe80::1",
            b"FE800000000000000000000000000001",
            b"::",
            b"1" * 32,
        ),
    ],
)
def test_outside_or_garbage(lua: Any, value: Any) -> None:
    assert lua.run(BUILD)(value) == (False, False)


def test_a_table_is_no_address(lua: Any) -> None:
    lua.run(BUILD)
    assert lua.run("return host:is_homenet({}), host:is_homenet(), host:is_homenet_key(print)") == (False, False, False)


@given(st.integers(0, 0xFFFFFFFF))
def test_agrees_with_ipaddress(shared_lua: Any, number: int) -> None:
    address = ipaddress.IPv4Address(number)
    expected = any(address in ipaddress.ip_network(network, strict=False) for network in NETWORKS)
    assert shared_lua.run(BUILD)(str(address).encode()) == (expected, expected)


@given(st.ip_addresses(v=6), st.integers(0, 128), st.ip_addresses(v=6))
def test_ipv6_agrees_with_ipaddress(
    shared_lua: Any, network: ipaddress.IPv6Address, bits: int, address: ipaddress.IPv6Address
) -> None:
    check = shared_lua.run(BUILD, None, f"{network}/{bits}".encode())
    expected = address in ipaddress.ip_network((network, bits), strict=False)
    assert check(str(address).encode()) == (expected, expected)
    assert check(network.packed.hex().upper().encode()) == (True, True)


def test_list_of_networks(lua: Any) -> None:
    lua.run(BUILD)
    source = "local n = host:get_homenets() return #n, n[1][1], n[1][2], n[2].ip, n[2].netmask, n[4].netmask"
    assert lua.run(source) == (4, 0x0A000000, 0xFF000000, 0xC0A80100, 0xFFFFFF00, 0xFFFFFFFF)


@pytest.mark.parametrize(
    "network", [b"10.0.0.0/33", b"10.0.0.0/255.0.255.0", b"x", b"fd00::/129", b"1.2.3/8", b"", b"1.2.3.4/x"]
)
def test_what_is_no_network_is_logged(lua: Any, network: bytes) -> None:
    lua.run("require('offpath.hostinfo').build { homenets = { (...) } }", network)
    assert [(level, network in text) for level, text in lua.logged] == [(5, True)]


def test_configuration_paths(lua: Any) -> None:
    lua.run(BUILD)
    source = """
    return env.get_config("App>DBRoot"), env.get_config(" app > dbroot"), env.get_config("App>RunStateDirectory"),
      env.get_config("App>User"), env.get_config("No>Such"), env.get_config(nil), env.configfile,
      env.get_domain_config("Domain >LocalReq")
    """
    assert lua.run(source) == (b"/data/db", b"/data/db", b"/data/db/run", b"trisul.trisul", b"", b"", b"", b"")


def test_defaults(lua: Any) -> None:
    lua.run("host, env = require('offpath.hostinfo').build({})")
    root = b"/usr/local/var/lib/trisul-probe/domain0/probe0/context0"
    source = """
    return env.get_config("App>DBRoot"), env.get_config("App>DataDirectory"), env.get_config("App>RunStateDirectory"),
      env.get_config("Reassembly>FileExtraction>Enabled"), host:get_configpath(), host:get_datapath()
    """
    share = b"/usr/local/share/trisul-probe"
    assert lua.run(source) == (root, share, root + b"/run", b"False", root + b"/config", share)


def test_domain_configuration_and_files(lua: Any) -> None:
    source = """
    local _, env = require("offpath.hostinfo").build {
      configfile = "/c.xml", domain_configfile = "/d.xml", domain_config = { ["Domain>LocalReq"] = 5 },
    }
    return env.configfile, env.domain_configfile, env.get_domain_config("Domain >LocalReq")
    """
    assert lua.run(source) == (b"/c.xml", b"/d.xml", b"5")


def test_effects_and_log(lua: Any) -> None:
    source = """
    local seen = {}
    local function note(...) seen[#seen + 1] = table.concat({ ... }, " ") end
    local host = require("offpath.hostinfo").build({}, { createkey = note, broadcast = note })
    host:createkey("g", "k", "label")
    host:broadcast("m", "c", "text")
    host:log(4, "bad")
    local quiet = require("offpath.hostinfo").build({})
    quiet:createkey("g", "k", "l")
    quiet:broadcast("m", "c", "t")
    return seen[1], seen[2], host:prepare_config("g", "t.conf")
    """
    assert lua.run(source) == (b"g k label", b"m c text", b"t.conf")
    assert lua.logged == [(4, b"bad")]
