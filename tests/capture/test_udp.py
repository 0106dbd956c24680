"""Datagrams of chosen ports, picked from the frames of a step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from engine.capture.batches import Datagram
from engine.capture.decoder import Decoder
from engine.capture.source import open_capture
from engine.values.config import CaptureLimits
from tests.capture.datagrams import datagrams
from tests.capture.packets import pcap, tcp, udp

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "pcap"
CAPTURES = sorted(SHARED.glob("*"))
HERE, THERE = "10.0.0.1", "10.0.0.2"


def picked(path: Path, *, udp_ports: tuple[int, ...] = (), quic_ports: tuple[int, ...] = ()) -> list[Datagram]:
    decoder = Decoder(CaptureLimits(), streams=False, udp_ports=udp_ports, quic_ports=quic_ports)
    found: list[Datagram] = []
    with open_capture(path) as capture:
        decoder.begin(capture)
        done = False
        while not done:
            batch = decoder.step(7)
            found += decoder.datagrams(batch)
            done = batch.done
        decoder.finish()
    decoder.close()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    frames = [
        udp((HERE, 40000), (THERE, 53), b"asked"),
        udp((THERE, 53), (HERE, 40000), b"answered"),
        udp((HERE, 40000), (THERE, 54), b"of no such port"),
        udp((HERE, 40000), (THERE, 53)),
        tcp((HERE, 40000), (THERE, 53), 1, b"no datagram"),
        udp((HERE, 40001), (THERE, 443), b"\xc3 long header"),
        udp((HERE, 40001), (THERE, 443), b"\x43 short header"),
        udp((THERE, 443), (HERE, 40001), b"\xc3 of the server"),
        b"\0" * 11,
    ]
    path = tmp_path / "udp.pcap"
    path.write_bytes(pcap([(float(at), frame) for at, frame in enumerate(frames)]))
    return path


def test_both_ways_and_nothing_else(path: Path) -> None:
    flow = b"11A:0A.00.00.01:p-9C40_0A.00.00.02:p-0035"
    assert picked(path, udp_ports=(53,)) == [(0.0, flow, 40000, 53, b"asked"), (1.0, flow, 53, 40000, b"answered")]


def test_of_quic_what_a_client_may_begin_with(path: Path) -> None:
    assert [each.data for each in picked(path, quic_ports=(443,))] == [b"\xc3 long header"]


def test_none_are_wanted_by_default(path: Path) -> None:
    assert picked(path) == []


@pytest.mark.skipif(not CAPTURES, reason="no shared captures")
@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_the_shared_captures_as_another_reader_has_them(path: Path) -> None:
    ports = (53, 123, 137, 138, 5353, 5355)
    known = [each for each in datagrams(path) if each.data and {each.source, each.target} & set(ports)]
    found = picked(path, udp_ports=ports)
    assert Counter((each.source_port, each.target_port, each.data) for each in found) == Counter(known)
