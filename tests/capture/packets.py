"""Captures in memory, field by field, and what a decoder makes of them. Knows the code under test by its doors only."""

from __future__ import annotations

import socket
import struct
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.capture.batches import EventKind, StreamEvent
from engine.capture.decoder import Decoder
from engine.capture.source import open_capture
from engine.values.config import CaptureLimits
from engine.values.records import Flow
from engine.values.stats import DecodeStats

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)

Record = tuple[float, bytes] | tuple[float, bytes, int]
"""Time, captured bytes, and bytes on the wire where those were more."""


def pcap(records: list[Record], *, order: str = "<", nano: bool = False, link: int = 1, snaplen: int = 262144) -> bytes:
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link)]
    ticks = 1_000_000_000 if nano else 1_000_000
    for time, data, *wire in records:
        seconds, fraction = int(time), round(time % 1 * ticks)
        out.append(struct.pack(order + "IIII", seconds, fraction, len(data), *(wire or [len(data)])) + data)
    return b"".join(out)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A pcapng block, padded."""
    body += b"\0" * (-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link: int = 1, order: str = "<", snaplen: int = 0, options: bytes = b"") -> bytes:
    return block(1, struct.pack(order + "HHI", link, 0, snaplen) + options, order)


def enhanced(data: bytes, ticks: int, index: int = 0, order: str = "<") -> bytes:
    head = struct.pack(order + "IIIII", index, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
    return block(6, head + data, order)


def simple(data: bytes, order: str = "<") -> bytes:
    return block(3, struct.pack(order + "I", len(data)) + data, order)


def ethernet(packet: bytes, ethertype: int | None = None) -> bytes:
    if ethertype is None:
        ethertype = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    return b"\2\0\0\0\0\2\2\0\0\0\0\1" + struct.pack(">H", ethertype) + packet


def ip(
    source: str, target: str, proto: int, data: bytes, *, total: int | None = None, fragment: int = 0, ident: int = 0
) -> bytes:
    if ":" in source:
        head = struct.pack(">IHBB", 6 << 28, len(data) if total is None else total, proto, 64)
        return head + socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target) + data
    length = 20 + len(data) if total is None else total
    head = struct.pack(">BBHHHBBH", 0x45, 0, length, ident, fragment, 64, proto, 0)
    return head + socket.inet_aton(source) + socket.inet_aton(target) + data


def tcp(
    source: tuple[str, int], target: tuple[str, int], seq: int, data: bytes = b"", flags: int = ACK, ack: int = 0
) -> bytes:
    """An Ethernet frame with one TCP segment."""
    head = struct.pack(">HHIIBBHHH", source[1], target[1], seq % 2**32, ack % 2**32, 5 << 4, flags, 8192, 0, 0)
    return ethernet(ip(source[0], target[0], 6, head + data))


def udp(source: tuple[str, int], target: tuple[str, int], data: bytes = b"") -> bytes:
    head = struct.pack(">HHHH", source[1], target[1], 8 + len(data), 0)
    return ethernet(ip(source[0], target[0], 17, head + data))


def handshake(client_seq: int, server_seq: int, time: float = 0.0) -> list[Record]:
    return [
        (time, tcp(CLIENT, SERVER, client_seq, flags=SYN)),
        (time, tcp(SERVER, CLIENT, server_seq, flags=SYN | ACK, ack=client_seq + 1)),
        (time, tcp(CLIENT, SERVER, client_seq + 1, ack=server_seq + 1)),
    ]


COUNTS = ("a_packets", "z_packets", "a_bytes", "z_bytes")


@dataclass
class Decoded:
    """What came out of a capture. `told` is, per stream, ``(kind, direction, data or length)`` in order."""

    packets: int = 0
    events: list[StreamEvent] = field(default_factory=list)
    keys: dict[int, bytes] = field(default_factory=dict)
    roles: dict[int, bool] = field(default_factory=dict)
    told: dict[int, list[tuple[str, int, bytes | int]]] = field(default_factory=lambda: defaultdict(list))
    flows: list[Flow] = field(default_factory=list)
    stats: DecodeStats = field(default_factory=DecodeStats)

    def data(self, stream: int = 1, direction: int = 0) -> bytes:
        return b"".join(
            e.data for e in self.events if (e.kind, e.stream, e.direction) == (EventKind.DATA, stream, direction)
        )

    def gaps(self, stream: int = 1, direction: int = 0) -> list[tuple[int, int]]:
        return [
            (e.position, e.length)
            for e in self.events
            if (e.kind, e.stream, e.direction) == (EventKind.GAP, stream, direction)
        ]


def run(
    capture: Path | bytes, limits: CaptureLimits | None = None, *, step: int = 1000, streams: bool = True
) -> Decoded:
    """Decode a file, or bytes as one, from open to finish, checking what holds for every stream."""
    if isinstance(capture, bytes):
        with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
            file.write(capture)
            file.flush()
            return run(Path(file.name), limits, step=step, streams=streams)
    decoder, result = Decoder(limits or CaptureLimits(), streams=streams), Decoded()
    try:
        with open_capture(capture) as mapped:
            decoder.begin(mapped)
            for call in (lambda: decoder.step(step), decoder.finish):
                done = False
                while not done:
                    batch = call()
                    done, result.packets = batch.done, result.packets + batch.packets
                    result.flows += decoder.flows_over(batch)
                    take(result, decoder, batch.events)
        result.flows += [flow for each in decoder.flow_records() for flow in each]
    finally:
        decoder.close()
    result.stats = decoder.stats()
    check(result)
    return result


def take(result: Decoded, decoder: Decoder, events: Iterable[StreamEvent]) -> None:
    """Note the events of a batch, which may be read once only."""
    for event in events:
        result.events.append(event)
        if event.kind == EventKind.OPEN:
            result.keys[event.stream] = decoder.flow_key(event.stream)
            result.roles[event.stream] = decoder.roles_known(event.stream)
        told = event.data if event.kind == EventKind.DATA else event.length
        result.told[event.stream].append((EventKind(event.kind).name, event.direction, told))


def summed(flows: Iterable[Flow]) -> Iterable[Flow]:
    """One flow for each key: the flows that used it one after the other."""
    sums: dict[str, Flow] = {}
    for each in flows:
        known = sums.setdefault(each.id, each)
        if known is not each:
            counts = {name: getattr(known, name) + getattr(each, name) for name in COUNTS}
            sums[each.id] = replace(known, **counts)
    return sums.values()


def check(result: Decoded) -> None:
    """What must hold whatever the capture: counts close, events are in order, positions have no seams."""
    stats = result.stats
    assert stats.packets == result.packets == stats.decoded + stats.malformed + stats.undecoded
    position: dict[tuple[int, int], int] = defaultdict(int)
    state: dict[int, str] = {}
    for event in result.events:
        if event.kind == EventKind.OPEN:
            assert event.stream not in state
            state[event.stream] = "open"
            continue
        assert state[event.stream] == "open"
        if event.kind == EventKind.CLOSE:
            state[event.stream] = "closed"
            continue
        key = (event.stream, event.direction)
        assert event.position == position[key]
        assert event.length > 0
        assert event.kind == EventKind.GAP or len(event.data) == event.length
        position[key] += event.length
    assert set(state.values()) <= {"closed"}
    assert stats.streams == len(state)
    assert stats.gap_bytes == sum(e.length for e in result.events if e.kind == EventKind.GAP)
