"""Inputs to begin with, of the captures with known contents where they are, and of packets that tests make."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path

from engine.capture.batches import Datagram, EventKind
from engine.capture.decoder import Decoder
from engine.capture.source import open_capture
from engine.capture.synth import synthesize
from engine.values.config import CaptureLimits
from tests.capture.frames import FrameReader, Seen
from tests.capture.packets import pcap, run
from tests.capture.test_dissect import samples

CAPTURES = sorted((Path(__file__).parents[2].parent / "shared" / "data" / "pcap").glob("*"))
SHORT = 120_000
"""Bytes; what is longer has more of the same."""


def packets(folder: Path) -> Iterator[Seen]:
    """Packets that differ in their layers: of captures, and of protocols that these lack."""
    reader, known = FrameReader(), set()
    for path in [*_sample_captures(folder), *captures(folder)]:
        for seen in reader.read(path):
            kind = (*seen.names, seen.frame.fragment, seen.frame.captured.bit_length(), seen.frame.flags)
            if kind not in known and not seen.frame.reassembled:
                known.add(kind)
                yield seen
    reader.close()


def captures(folder: Path) -> list[Path]:
    """Capture files; one made here where there are none."""
    return CAPTURES or [synthesize(folder / "made.pcap", files=8, seed=7, faults=True).path]


def _sample_captures(folder: Path) -> Iterator[Path]:
    ordered = sorted(samples(), key=lambda each: each[0])
    for link, group in groupby(ordered, key=lambda each: each[0]):
        path = folder / f"{link}.pcap"
        path.write_bytes(pcap([(0.0, packet) for _, packet in group], link=link))
        yield path


def conversations(folder: Path, first: Collection[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """Data of TCP streams with direction, of those whose first bytes begin so."""
    for path in captures(folder):
        told = run(path).told.values()
        for events in told:
            said = [(side, data) for kind, side, data in events if kind == EventKind.DATA.name]
            if said and any(said[0][1].startswith(each) for each in first):
                yield [(side, bytes(data)) for side, data in said if isinstance(data, bytes)]


def datagrams(folder: Path, udp_ports: Collection[int] = (), quic_ports: Collection[int] = ()) -> Iterator[Datagram]:
    """UDP datagrams of ports."""
    for path in captures(folder):
        decoder, done = Decoder(CaptureLimits(), streams=False, udp_ports=udp_ports, quic_ports=quic_ports), False
        with open_capture(path) as mapped:
            decoder.begin(mapped)
            while not done:
                batch = decoder.step(1_000)
                done = batch.done
                yield from decoder.datagrams(batch)
        decoder.close()
