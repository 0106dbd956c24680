"""What the platform itself counts of a capture for its counter groups. Knows measures.lua, no windows."""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from engine.vm.state import LuaState

MEASURED: Final = (
    "Hosts",
    "Internal Hosts",
    "External Hosts",
    "HostsIPv6",
    "HostsIPv6 (scripts)",
    "Apps",
    "Aggregates",
    "NetworkLayerStats",
    "LinkLayerStats",
    "VLANStats",
    "Mac",
)
"""The groups that can be measured, by name."""


class Sums(NamedTuple):
    """Some keys of a group, as in `engine.stream.counters.Run`."""

    group: str
    """A name of `MEASURED`."""
    keys: bytes
    lengths: bytes
    updates: bytes
    columns: bytes


class Measures:
    """Counts in a decoder's state: use it on the thread that made that."""

    def __init__(self, state: LuaState, lua: Mapping[str, Any], groups: Iterable[str], home: Iterable[str]) -> None:
        """`lua` are the functions of decoder.lua, `home` networks as CIDR text; what is none is left out."""
        self._fold: Callable[[int], float] = lua["fold"]
        self._next: Callable[[], tuple[bytes, ...] | None] = lua["next_sums"]
        self._full: Callable[[], bool] = lua["sums_full"]
        networks = state.table([list(words) for words in filter(None, map(_words, home))])
        lua["measure"](state.table(list(groups)), networks, int.from_bytes(os.urandom(4), "little", signed=True))

    @property
    def full(self) -> bool:
        """Whether what was counted is to be taken, by `sums`, before the next batch."""
        return self._full()

    def sums(self, *, flows: bool = True) -> Iterator[Sums | None]:
        """Take what was counted since the last time; to be read to its end, between two batches.

        None comes where others may have their turn: each step takes a millisecond or so. Without `flows` what they have
        carried is left for later, but for those that are over.
        """
        row = 1 if flows else 0
        while True:
            while row:
                after = int(self._fold(row))
                yield None
                if after == row:
                    break  # no room
                row = after
            while (found := self._next()) is not None:
                group, *rest = found
                yield Sums(group.decode(), *rest)
            if not row:
                return


def _words(text: str) -> tuple[int, ...] | None:
    """Family, address and mask, these as words that lie in memory like the addresses of packets."""
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return None
    whole = (each.packed.ljust(16, b"\0") for each in (network.network_address, network.netmask))
    return (network.version, *(word for each in whole for word in struct.unpack("=4i", each)))
