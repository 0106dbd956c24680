"""Rows in memory become records that are like any other."""

from __future__ import annotations

import ctypes
import dataclasses
import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.capture.flow_rows import read_flows
from engine.values.records import Flow

ROW = struct.Struct("<16s16sHHBBBBiiiiiiiBBHdddddddd" + "dd6idii" + "dd8i")


def row(a: bytes, z: bytes, ports: tuple[int, int], proto: int, counts: tuple[int, int, int, int]) -> bytes:
    family = 4 if len(a) == 4 else 6
    known = (a, z, *ports, proto, family, 1, 0, *range(7), 1, 2, 0, *map(float, counts), 1.5, 2.5, 9.0, 9.0)
    return ROW.pack(*known, 7.0, 8.0, *range(6), 9.0, 30, 4, 9.0, 9.0, *range(8))


def records(*rows: bytes) -> list[Flow]:
    memory = ctypes.create_string_buffer(b"".join(rows), ROW.size * len(rows))
    return list(read_flows(ctypes.addressof(memory), len(rows)))


def test_a_row_is_a_record() -> None:
    assert ROW.size == 240
    made = row(bytes([10, 0, 0, 9]), bytes([10, 0, 0, 1]), (4000, 53), 17, (1, 2, 60, 2**40))
    assert records(made) == [
        Flow(
            id="11A:0A.00.00.09:p-0FA0_0A.00.00.01:p-0035",
            proto="udp",
            a_ip="10.0.0.9",
            a_port=4000,
            z_ip="10.0.0.1",
            z_port=53,
            a_packets=1,
            z_packets=2,
            a_bytes=60,
            z_bytes=2**40,
            start=1.5,
            end=2.5,
            a_payload=7,
            z_payload=8,
            setup_rtt=30,
            retransmissions=4,
        )
    ]


def test_records_are_frozen_and_can_be_replaced() -> None:
    [flow] = records(row(bytes(4), bytes(4), (1, 1), 6, (0, 0, 0, 0)))
    assert type(flow) is Flow
    with pytest.raises(dataclasses.FrozenInstanceError):
        flow.tags = "x"  # type: ignore[misc]
    assert dataclasses.replace(flow, tags="x").tags == "x"
    assert hash(flow) == hash(dataclasses.replace(flow))
    assert dataclasses.asdict(flow)["tags"] == ""


ADDRESSES = st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)


@given(st.one_of(*(st.tuples(each, each) for each in ADDRESSES)), st.tuples(*[st.integers(0, 65_535)] * 2))
def test_any_address_is_written_as_others_write_it(ends: tuple[bytes, bytes], ports: tuple[int, int]) -> None:
    [flow] = records(row(*ends, ports, 132, (1, 0, 1, 0)))
    assert (ipaddress.ip_address(flow.a_ip).packed, ipaddress.ip_address(flow.z_ip).packed) == ends
    assert (flow.a_port, flow.z_port, flow.proto) == (*ports, "sctp")
    letter = "A" if len(ends[0]) == 4 else "B"
    assert flow.id.startswith(f"84{letter}:")
    digits = flow.id.replace(".", "").replace("p-", "").replace("_", ":").split(":")[1:]
    assert digits == [ends[0].hex().upper(), f"{ports[0]:04X}", ends[1].hex().upper(), f"{ports[1]:04X}"]
