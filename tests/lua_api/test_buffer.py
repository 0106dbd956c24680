"""Buffer: reads are bounded, offsets start at 0, a slice is what bytes would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

NEW = "local buffer = require('offpath.buffer').from_string((...))\n"


def test_sizes_and_big_endian_numbers(lua: Any) -> None:
    sizes = "buffer:size(), buffer:length()"
    numbers = "buffer:hval_8(1), buffer:hval_16(1), buffer:hval_24(1), buffer:hval_32(1)"
    assert lua.run(NEW + f"return {sizes}, {numbers}", b"\x01\xf2\x03\x04\x05") == (
        5,
        5,
        0xF2,
        0xF203,
        0xF20304,
        0xF2030405,
    )


@pytest.mark.parametrize("offset", ["-1", "5", "2^31", "-2^53", "1/0", "-1/0", "0/0"])
@pytest.mark.parametrize("method", ["hval_8", "hval_16", "hval_24", "hval_32"])
def test_numbers_out_of_range_are_zero(lua: Any, method: str, offset: str) -> None:
    assert lua.run(NEW + f"return buffer:{method}({offset})", b"\xff" * 5) == 0


def test_a_number_that_only_begins_inside_is_zero(lua: Any) -> None:
    source = NEW + "return buffer:hval_8(2), buffer:hval_16(2), buffer:hval_24(1), buffer:hval_32(0)"
    assert lua.run(source, b"\xff" * 3) == (0xFF, 0, 0, 0)


def test_numeric_text_is_an_offset_and_garbage_is_zero(lua: Any) -> None:
    assert lua.run(NEW + "return buffer:hval_8('1'), buffer:hval_8('x'), buffer:hval_8(1.9)", b"\1\2\3") == (2, 1, 2)


def test_tostring_example(lua: Any) -> None:
    assert lua.run(NEW + "return buffer:tostring(9, 4)", bytes(range(20))) == bytes(range(9, 13))


@given(st.binary(max_size=40), st.integers(-50, 50), st.one_of(st.none(), st.integers(-50, 50)))
def test_tostring_is_the_overlap(shared_lua: Any, data: bytes, offset: int, size: int | None) -> None:
    end = len(data) if size is None else max(offset + size, 0)
    assert (
        shared_lua.run(NEW + "local _, o, s = ... return buffer:tostring(o, s)", data, offset, size)
        == data[max(offset, 0) : end]
    )


@given(st.binary(max_size=12), st.integers(-3, 14), st.sampled_from([1, 2, 3, 4]))
def test_numbers_equal_bytes(shared_lua: Any, data: bytes, offset: int, width: int) -> None:
    inside = 0 <= offset <= len(data) - width
    expected = int.from_bytes(data[offset : offset + width], "big") if inside else 0
    assert shared_lua.run(NEW + f"local _, o = ... return buffer:hval_{8 * width}(o)", data, offset) == expected


def test_hexdump_pads_a_short_last_line(lua: Any) -> None:
    assert lua.run(NEW + "return buffer:hexdump()", b"ABCDEFGHIJKLMNOP\x00\xff~\x7f").decode() == (
        "00000000   41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f 50    ABCDEFGHIJKLMNOP\n"
        "00000010   00 ff 7e 7f 00 00 00 00 00 00 00 00 00 00 00 00    ..~.............\n"
    )


def test_hexdump_of_a_part_starts_at_zero(lua: Any) -> None:
    dump = lua.run(NEW + "return buffer:hexdump(3, 2)", b"ABCDEFG").decode()
    assert dump == "00000000   44 45" + " 00" * 14 + "    DE" + "." * 14 + "\n"


def test_an_empty_buffer(lua: Any) -> None:
    assert lua.run(NEW + "return buffer:size(), buffer:tostring(), buffer:hexdump(), buffer:hval_8(0)", b"") == (
        0,
        b"",
        b"",
        0,
    )


def test_pointers_are_views_and_reset_empties_them(lua: Any) -> None:
    source = """
    local M, ffi = require "offpath.buffer", require "ffi"
    local memory = ffi.new("uint8_t[4]", {1, 2, 3, 4})
    local buffer = M.from_pointer(memory + 1, 2, memory)
    local before, past = buffer:tostring(), buffer:hval_8(2)
    M.reset(buffer, nil, 0)
    return before, past, buffer:size(), buffer:tostring(0, 9), buffer:hval_8(0)
    """
    assert lua.run(source) == (b"\2\3", 0, 0, b"", 0)


def test_is_buffer(lua: Any) -> None:
    source = (
        "local M = require 'offpath.buffer' return M.is_buffer(M.from_string('')), M.is_buffer({}), M.is_buffer('')"
    )
    assert lua.run(source) == (True, False, False)


def test_append_creates_and_appends(lua: Any, tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    lua.run(
        NEW + "local _, name = ... buffer:appendtofile(name) buffer:appendtofile(name)", b"a\0b", str(target).encode()
    )
    assert target.read_bytes() == b"a\0ba\0b"


def test_write_goes_to_its_offset_and_keeps_the_rest(lua: Any, tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    source = NEW + "local _, name, offset = ... buffer:writetofile(name, offset)"
    lua.run(source, b"xyz", str(target).encode(), 4)
    assert target.read_bytes() == b"\0\0\0\0xyz"
    lua.run(source, b"Q", str(target).encode(), b"5")
    assert target.read_bytes() == b"\0\0\0\0xQz"


@pytest.mark.parametrize("call", ["appendtofile(name)", "writetofile(name, 0)"])
def test_a_failed_write_names_the_file_and_the_line(lua: Any, tmp_path: Path, call: str) -> None:
    name = str(tmp_path / "absent" / "out.bin")
    message = lua.error(NEW + f"local _, name = ...\nbuffer:{call}", b"x", name.encode())
    assert name in message
    assert message.startswith("test.lua:3:")


def test_a_full_disk_is_an_error(lua: Any) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    assert "/dev/full" in lua.error(NEW + "buffer:appendtofile('/dev/full')", b"x")
