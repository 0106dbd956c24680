"""Flow keys as text (spec 3.2): ``06A:C0.A8.01.02:p-0B94_D1.D8.F9.3A:p-0016``."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_KEY = re.compile(
    r"(?P<protocol>[0-9A-F]{2})[ABCD]:(?P<a_ip>[0-9A-F.]+):(?P<a_port>p-[0-9A-F]{4})"
    r"_(?P<z_ip>[0-9A-F.]+):(?P<z_port>p-[0-9A-F]{4})(?:_.*)?"
)

PROTOCOL_NAMES: Final = {6: "tcp", 17: "udp", 132: "sctp"}
"""Names of those IP protocols whose flows have ports."""


_PORTS = re.compile(
    rb"([0-9A-F]{2}[AB]):([0-9A-F.]+):p-([0-9A-F]{4})_([0-9A-F.]+):p-([0-9A-F]{4})", re.IGNORECASE | re.ASCII
)


class Endpoints(NamedTuple):
    """The parts of a flow key, each in key format."""

    protocol: str
    a_ip: str
    a_port: str
    z_ip: str
    z_port: str


def endpoints(key: str) -> Endpoints | None:
    """The parts of a flow key, or None when it is malformed, as keys made by scripts may be."""
    found = _KEY.fullmatch(key)
    return Endpoints(**found.groupdict()) if found else None


def canonical(key: bytes) -> bytes:
    """A key as the decoder writes it: Z has the lower port, or with equal ports the higher address."""
    found = _PORTS.fullmatch(key)
    if found is None:
        return key
    kind, *ends = (part.upper() for part in found.groups())
    a, z = sorted((ends[:2], ends[2:]), key=lambda end: (-int(end[1], 16), end[0]))
    return b"%b:%b:p-%b_%b:p-%b" % (kind, *a, *z)


def port_numbers(key: bytes) -> tuple[int, int]:
    """The ports of A and Z of a key that the decoder made."""
    half = key.partition(b"_")[0]
    return int(half[-4:], 16), int(key[-4:], 16)
