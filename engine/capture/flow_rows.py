"""Rows of the flow table, as they lie in memory, become flow records."""

from __future__ import annotations

import ctypes
import itertools
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import field, fields, make_dataclass
from typing import Any, Final

from engine.values.flowkeys import PROTOCOL_NAMES
from engine.values.records import Flow

_ROW: Final = struct.Struct("<16s16sHHBBB29xBB2xdddddd16xdd32xii48x")  # offpath_row_t in layouts.lua

_TCP = 6
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_INIT, _SEEN_SYN, _SEEN_SYN_ACK, _SEEN_SYN_ACK_ACK = 0x0001, 0x0002, 0x0004, 0x0008
_A_SERVES, _Z_SERVES, _SEEN_FIN, _SEEN_RST = 0x0010, 0x0020, 0x0040, 0x0080


def read_flows(address: int, number: int) -> Iterator[Flow]:
    """Records of rows that lie one after the other, made as they are taken; the rows are copied at once."""
    return itertools.starmap(_flow, _ROW.iter_unpack(ctypes.string_at(address, number * _ROW.size)))


def _quick_maker() -> Callable[..., Flow]:
    """What makes records in a fifth of the time: a frozen dataclass sets each field by a call.

    They are made by a class of the same layout that is not frozen, and given their own class then.
    """
    loose = make_dataclass(
        "_LooseFlow",
        [(each.name, Any, field(default=each.default, default_factory=each.default_factory)) for each in fields(Flow)],
        slots=True,
    )

    def make(*values: Any, **more: Any) -> Flow:
        flow: Any = loose(*values, **more)
        flow.__class__ = Flow
        return flow  # type: ignore[no-any-return]

    return make


_make_flow: Final = _quick_maker()


def _flow(
    a: bytes,
    z: bytes,
    a_port: int,
    z_port: int,
    proto: int,
    family: int,
    client: int,
    a_flags: int,
    z_flags: int,
    a_packets: float,
    z_packets: float,
    a_bytes: float,
    z_bytes: float,
    start: float,
    end: float,
    a_payload: float,
    z_payload: float,
    setup_rtt: int,
    retransmissions: int,
) -> Flow:
    if family == 4:
        letter, a, z, code = "A", a[:4], z[:4], socket.AF_INET
        a_key, z_key = a.hex("."), z.hex(".")
    else:
        letter, code = "B", socket.AF_INET6
        a_key, z_key = a.hex(), z.hex()
    return _make_flow(
        f"{proto:02X}{letter}:{a_key.upper()}:p-{a_port:04X}_{z_key.upper()}:p-{z_port:04X}",
        PROTOCOL_NAMES[proto],
        socket.inet_ntop(code, a),
        a_port,
        socket.inet_ntop(code, z),
        z_port,
        int(a_packets),
        int(z_packets),
        int(a_bytes),
        int(z_bytes),
        start,
        end,
        state=_state(client, a_flags, z_flags) if proto == _TCP else _INIT,
        a_payload=int(a_payload),
        z_payload=int(z_payload),
        setup_rtt=setup_rtt,
        retransmissions=retransmissions,
    )


def _state(client: int, a_flags: int, z_flags: int) -> int:
    """What TCP flags of both ends say, in the bits of spec 3.3."""
    both = a_flags | z_flags
    state = _INIT | (_SEEN_FIN if both & _FIN else 0) | (_SEEN_RST if both & _RST else 0)
    asking, asked = (z_flags, a_flags) if client == 2 else (a_flags, z_flags)
    if client and asking & _SYN:
        state |= _SEEN_SYN | (_A_SERVES if client == 2 else _Z_SERVES)
        if asked & _SYN:
            state |= _SEEN_SYN_ACK | (_SEEN_SYN_ACK_ACK if asking & _ACK else 0)
    return state
