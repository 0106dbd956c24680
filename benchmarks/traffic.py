"""Captures to measure with: one that is there, repeated with other addresses and times until it is large enough."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.capture.synth import synthesize

SAMPLE = Path(__file__).parents[2] / "shared" / "data" / "pcap" / "trisul-16minutes.pcap"
"""A real mix of traffic, where it is there."""

_HEAD, _RECORD = 24, struct.Struct("<IIII")
_SECOND = 1_000_000
_MAGIC = 0xA1B2C3D4  # of a pcap file with microseconds, little-endian
_IPV4, _IPV6 = 0x0800, 0x86DD
_SECOND_BYTES = {_IPV4: (27, 31), _IPV6: (23, 39)}  # of source and destination address, in an Ethernet frame


@dataclass(frozen=True, slots=True)
class Traffic:
    """A capture file that was made."""

    path: Path
    packets: int
    source: str
    """What it was made of."""


def make_traffic(folder: Path, packets: int) -> Traffic:
    """Write a capture of at least so many packets into a folder.

    Copies lie side by side, as the connections of a busy link do: each begins a little after the one before, so that as
    many run at a time in the middle of the capture as there are copies, and its seconds are full of packets.
    """
    sample, name = SAMPLE, SAMPLE.name
    if not sample.exists():
        sample, name = folder / "sample.pcap", "`offpath synth`"
        synthesize(sample, files=200, seed=1)
    data = sample.read_bytes()
    records = list(_records(data))
    first, last = records[0].time, max(each.time for each in records)
    copies = -(-packets // len(records))
    shift = (last - first) // copies + 1
    order = sorted(
        (each.time + copy * shift, copy, number) for copy in range(copies) for number, each in enumerate(records)
    )
    path = folder / "traffic.pcap"
    with path.open("wb") as file:
        file.write(data[:_HEAD])
        for time, copy, number in order:
            file.write(_copied(data, records[number], copy, time))
    return Traffic(path, len(order), f"{name}, {copies} copies side by side with addresses of their own")


@dataclass(frozen=True, slots=True)
class _Record:
    time: int
    """In microseconds."""
    start: int
    end: int
    addresses: tuple[int, ...]
    """Where the second bytes of addresses are, from the start of the record."""


def _records(data: bytes) -> Iterator[_Record]:
    if struct.unpack_from("<I", data)[0] != _MAGIC:
        raise ValueError("traffic is made of little-endian pcap files with microseconds only")
    at = _HEAD
    while at < len(data):
        seconds, micros, captured, _ = _RECORD.unpack_from(data, at)
        frame = at + _RECORD.size
        ethertype = int.from_bytes(data[frame + 12 : frame + 14], "big")
        places = tuple(_RECORD.size + place for place in _SECOND_BYTES.get(ethertype, ()) if place + 1 < captured)
        yield _Record(seconds * _SECOND + micros, at, frame + captured, places)
        at = frame + captured


def _copied(data: bytes, record: _Record, copy: int, time: int) -> bytes:
    """A record with the time and the addresses that it has in a copy; all other bytes are as they were."""
    copied = bytearray(data[record.start : record.end])
    struct.pack_into("<II", copied, 0, *divmod(time, _SECOND))
    for at in record.addresses:
        copied[at] ^= copy & 0xFF
        copied[at + 1] ^= copy >> 8
    return bytes(copied)
