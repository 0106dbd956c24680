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
    """Write a capture of at least so many packets into a folder."""
    sample, name = SAMPLE, SAMPLE.name
    if not sample.exists():
        sample, name = folder / "sample.pcap", "`offpath synth`"
        synthesize(sample, files=200, seed=1)
    data = bytearray(sample.read_bytes())
    records = list(_records(data))
    first, last = records[0].seconds, max(each.seconds for each in records)
    path, repeats = folder / "traffic.pcap", -(-packets // len(records))
    addresses = [at for each in records for at in each.addresses]
    with path.open("wb") as file:
        file.write(data[:_HEAD])
        for repeat in range(repeats):
            for each in records:
                struct.pack_into("<I", data, each.at, each.seconds + repeat * (last - first + 1))
            for at in addresses:
                data[at] ^= (
                    (repeat ^ (repeat - 1)) & 0xFF if repeat else 0
                )  # each of 256 repeats has a pattern of its own
            file.write(data[_HEAD:])
    return Traffic(path, repeats * len(records), f"{name}, {repeats} times with other addresses")


@dataclass(frozen=True, slots=True)
class _Record:
    at: int
    seconds: int
    addresses: tuple[int, ...]
    """Where the bytes are that are changed."""


def _records(data: bytearray) -> Iterator[_Record]:
    if struct.unpack_from("<I", data)[0] != _MAGIC:
        raise ValueError("traffic is made of little-endian pcap files with microseconds only")
    at = _HEAD
    while at < len(data):
        seconds, _, captured, _ = _RECORD.unpack_from(data, at)
        frame = at + _RECORD.size
        ethertype = int.from_bytes(data[frame + 12 : frame + 14], "big")
        places = _SECOND_BYTES.get(ethertype, ())
        yield _Record(at, seconds, tuple(frame + place for place in places if place < captured))
        at = frame + captured
