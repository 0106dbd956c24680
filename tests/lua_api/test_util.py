"""T.util: exact bits, MurmurHash2 against a reference, conversions and their inverses."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

WORDS = st.integers(0, 0xFFFFFFFF)


def call(lua: Any, expression: str, *args: Any) -> Any:
    return lua.run(f"local util = require 'offpath.util' return util.{expression}", *args)


def murmur2(data: bytes, seed: int = 0x9747B28C) -> int:
    m = 0x5BD1E995
    h = (seed ^ len(data)) & 0xFFFFFFFF
    whole = len(data) - len(data) % 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & 0xFFFFFFFF
        k = (k ^ k >> 24) * m & 0xFFFFFFFF
        h = (h * m & 0xFFFFFFFF) ^ k
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & 0xFFFFFFFF
    h = (h ^ h >> 13) * m & 0xFFFFFFFF
    return h ^ h >> 15


@given(st.binary(max_size=70))
def test_hash_is_murmur2(shared_lua: Any, data: bytes) -> None:
    assert call(shared_lua, "hash((...))", data) == murmur2(data)


@given(st.binary(max_size=20), st.integers(1, 32))
def test_hash_of_fewer_bits(shared_lua: Any, data: bytes, bits: int) -> None:
    assert call(shared_lua, "hash(...)", data, bits) == murmur2(data) & (1 << bits) - 1


def test_hash_bits_out_of_range(lua: Any) -> None:
    assert call(lua, "hash('x', 0), util.hash('x', -1), util.hash('x', 64) == util.hash('x')") == (0, 0, True)


@given(WORDS)
def test_ntop_and_pton_are_inverse(shared_lua: Any, value: int) -> None:
    dotted = str(ipaddress.IPv4Address(value)).encode()
    assert call(shared_lua, "ntop((...))", value) == dotted
    assert call(shared_lua, "ntop((...))", str(value).encode()) == dotted
    assert call(shared_lua, "pton((...))", dotted) == value


@pytest.mark.parametrize("text", [b"", b"1.2.3", b"1.2.3.4.5", b"256.1.1.1", b"a.b.c.d", b" 1.2.3.4", b"1.2.3.4\0"])
def test_pton_of_garbage_is_zero(lua: Any, text: bytes) -> None:
    assert call(lua, "pton((...))", text) == 0


def test_ntop_coerces(lua: Any) -> None:
    assert call(lua, "ntop('3232235778'), util.ntop(-1), util.ntop(nil), util.ntop(0/0)") == (
        b"192.168.1.2",
        b"255.255.255.255",
        b"0.0.0.0",
        b"0.0.0.0",
    )


@given(WORDS, WORDS)
def test_bits_are_unsigned(shared_lua: Any, p: int, q: int) -> None:
    assert call(shared_lua, "bor(...), util.band(...)", p, q) == (p | q, p & q)
    assert call(shared_lua, "bor(...)", str(p).encode(), str(q).encode()) == p | q


@given(WORDS, st.integers(-3, 40))
def test_testbit32(shared_lua: Any, value: int, index: int) -> None:
    assert call(shared_lua, "testbit32(...)", value, index) is (0 <= index <= 31 and bool(value >> index & 1))


@given(WORDS, st.integers(0, 31), st.integers(1, 32))
def test_bitval32(shared_lua: Any, value: int, start: int, width: int) -> None:
    width = min(width, start + 1)
    assert call(shared_lua, "bitval32(...)", value, start, width) == value >> (start - width + 1) & (1 << width) - 1


def test_bitval32_examples(lua: Any) -> None:
    assert call(lua, "bitval32(0xABCDEF12, 31, 8), util.bitval32(0xA5, 7, 4), util.bitval32(0x1E0000, 20, 4)") == (
        0xAB,
        10,
        15,
    )


@given(st.text(alphabet="ab,%.\0", max_size=30), st.sampled_from([",", "a,", "%", ".", "\0", "bb"]))
def test_split_is_literal_and_keeps_empty_parts(shared_lua: Any, text: str, delimiter: str) -> None:
    parts = call(shared_lua, "split(...)", text.encode(), delimiter.encode())
    assert [part.decode() for part in parts.values()] == text.split(delimiter)


def test_splitm(lua: Any) -> None:
    assert call(lua, "splitm('a||b', '|')") == (b"a", b"", b"b")
    assert call(lua, "splitm('a', '')") == b"a"
    assert call(lua, "splitm(12345, 3)") == (b"12", b"45")


@given(st.binary(max_size=60))
def test_hex_is_lower_case_and_comes_back(shared_lua: Any, data: bytes) -> None:
    assert call(shared_lua, "bin2hex((...))", data) == data.hex().encode()
    assert call(shared_lua, "hex2bin((...))", data.hex().upper().encode()) == data


def test_hex2bin_stops_at_what_is_no_hex(lua: Any) -> None:
    assert call(lua, "hex2bin('4142zz43'), util.hex2bin('414'), util.hex2bin('')") == (b"AB", b"A", b"")


def test_constants(lua: Any) -> None:
    source = """
    local K = require "offpath.constants"
    local v = K.vartype
    return K.loglevel.EMERG, K.loglevel.ERROR, K.loglevel.DEBUG, v.COUNTER, v.RATE_COUNTER, v.GAUGE, v.RUNNING_COUNTER,
      v.AVERAGE, v.DELTA_RATE_COUNTER, v.MAXIMUM, v.MINIMUM
    """
    assert lua.run(source) == (0, 4, 8, 2, 4, 5, 8, 9, 10, 11, 12)


def test_guids_are_compared_in_upper_case(lua: Any) -> None:
    source = """
    local M = require "offpath.guids"
    for _, kind in pairs { M.protocol, M.session, M.alert, M.resource, M.fts } do
      for name, guid in pairs(kind) do assert(M.canonical(guid) == guid, name) end
    end
    return
      M.canonical("{9781db2c-f78a-4f7f-a7e8-2b1a9a7be71a}") == M.resource["File Hashes"],
      M.canonical("{x}"), M.canonical(1)
    """
    assert lua.run(source) == (True, None, None)
