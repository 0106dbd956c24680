"""Dissected packets as Python sees them, and builders of headers beyond those of `packets`."""

from __future__ import annotations

import ctypes
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from engine.capture.batches import Batch
from engine.capture.decoder import Decoder
from engine.capture.source import open_capture
from engine.values.config import CaptureLimits
from engine.values.records import Flow
from engine.values.stats import DecodeStats
from engine.vm.state import LuaState
from tests.capture.packets import Record, ethernet, ip, pcap

LUA_API = Path(__file__).parents[2] / "lua_api"


class Layer(ctypes.Structure):
    """`offpath_layer_t`."""

    _fields_ = [
        ("protocol", ctypes.c_uint16),
        ("reserved", ctypes.c_uint16),
        ("offset", ctypes.c_int32),
        ("length", ctypes.c_int32),
    ]


class Frame(ctypes.Structure):
    """`offpath_frame_t`."""

    _fields_ = [
        ("time", ctypes.c_double),
        ("address", ctypes.c_double),
        *((name, ctypes.c_int32) for name in ("captured", "wire")),
        ("link", ctypes.c_uint16),
        *((name, ctypes.c_uint8) for name in ("store", "layer_count")),
        *((name, ctypes.c_int32) for name in ("row", "flow")),
        ("ip", ctypes.c_uint8 * 32),
        *((name, ctypes.c_int32) for name in ("seq", "ack", "payload", "payload_captured", "payload_length")),
        ("present", ctypes.c_uint32 * 2),
        ("port", ctypes.c_uint16 * 2),
        *((name, ctypes.c_uint8) for name in ("family", "proto", "flags", "has_ports", "has_tcp", "side", "verdict")),
        *((name, ctypes.c_uint8) for name in ("fragment", "reassembled", "tunnels", "too_deep", "resumed")),
        ("layer", Layer * 16),
    ]


assert ctypes.sizeof(Frame) == 304


def protocol_names() -> list[str]:
    """By number; 0 is none."""
    state = LuaState()
    state.add_modules("offpath", LUA_API)
    names = state.execute(b"return table.concat(require('offpath.protocols').name, '\\n')")
    state.close()
    return ["", *names.decode().split("\n")]


NAMES = protocol_names()


@dataclass
class Seen:
    """One packet: its layers as ``(name, offset, length)``, and bytes that may be read."""

    frame: Frame
    data: bytes

    @property
    def layers(self) -> list[tuple[str, int, int]]:
        layers = self.frame.layer[: self.frame.layer_count]
        return [(NAMES[layer.protocol], layer.offset, layer.length) for layer in layers]

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.layers]

    @property
    def verdict(self) -> str:
        return ("malformed", "undecoded", "decoded")[self.frame.verdict]

    @property
    def ends(self) -> tuple[bytes, int, bytes, int]:
        """Source and destination with their ports, addresses as bytes."""
        size = 4 if self.frame.family == 4 else 16
        source, target = bytes(self.frame.ip[:size]), bytes(self.frame.ip[16 : 16 + size])
        return source, self.frame.port[0], target, self.frame.port[1]

    @property
    def payload(self) -> bytes:
        return self.data[self.frame.payload : self.frame.payload + self.frame.payload_captured]


@dataclass
class Dissected:
    """What came out of a capture."""

    frames: list[Seen] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    stats: DecodeStats = field(default_factory=DecodeStats)
    layers: dict[str, int] = field(default_factory=dict)


def read_frames(batch: Batch) -> list[Seen]:
    """Copies of the frames of a batch, checked: layers lie in order within the bytes that may be read."""
    frames = (Frame * batch.frame_count).from_address(batch.frames) if batch.frame_count else []
    return [_seen(Frame.from_buffer_copy(each)) for each in frames]


def _seen(frame: Frame) -> Seen:
    check_frame(frame)
    return Seen(frame, ctypes.string_at(int(frame.address), frame.captured))


def check_frame(frame: Frame) -> None:
    """What holds for every frame, whatever the packet."""
    assert frame.verdict in (0, 1, 2)
    assert 0 <= frame.layer_count <= 16
    end = 0
    for layer in frame.layer[: frame.layer_count]:
        assert 0 < layer.protocol < len(NAMES)
        assert layer.offset >= end
        assert layer.length > 0
        end = layer.offset + layer.length
    assert end <= frame.captured
    assert frame.captured <= frame.wire or frame.reassembled
    if frame.has_ports and frame.verdict == 2:
        assert 0 <= frame.payload_captured <= frame.payload_length
        assert frame.payload_captured == 0 or frame.payload + frame.payload_captured <= frame.captured


class FrameReader:
    """A decoder that leaves frames, for one capture after another."""

    def __init__(self, limits: CaptureLimits | None = None) -> None:
        self.decoder = Decoder(limits or CaptureLimits(), frames=True)
        self.flows: list[Flow] = []
        """Those that are over."""

    def read(self, capture: Path | bytes, *, step: int = 1000) -> list[Seen]:
        """The frames of a file, or of bytes as one."""
        if isinstance(capture, bytes):
            with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
                file.write(capture)
                file.flush()
                return self.read(Path(file.name), step=step)
        frames, done = [], False
        with open_capture(capture) as mapped:
            self.decoder.begin(mapped)
            while not done:
                batch = self.decoder.step(step)
                done = batch.done
                frames += read_frames(batch)
                self.flows += self.decoder.flows_over(batch)
            while not self.decoder.finish().done:
                pass
        return frames

    def close(self) -> None:
        self.decoder.close()


def dissect(capture: Path | bytes, limits: CaptureLimits | None = None, *, step: int = 1000) -> Dissected:
    """Decode a capture with frames."""
    reader, result = FrameReader(limits), Dissected()
    try:
        result.frames = reader.read(capture, step=step)
        result.flows = reader.flows + [flow for each in reader.decoder.flow_records() for flow in each]
    finally:
        reader.close()
    result.stats, result.layers = reader.decoder.stats(), reader.decoder.layers()
    check_counts(result)
    return result


def check_counts(result: Dissected) -> None:
    """Counts close, and those of the layers are what the frames say."""
    stats = result.stats
    assert stats.packets == stats.decoded + stats.malformed + stats.undecoded
    over = stats.fragments_reassembled + stats.fragments_dropped + stats.fragments_timed_out
    assert stats.fragments == stats.fragments_held + over
    assert stats.fragments_held == 0
    listed: dict[str, int] = {}
    for seen in result.frames:
        for name in set(seen.names):
            listed[name] = listed.get(name, 0) + 1
    assert result.layers == listed


def dissect_one(packet: bytes, *, link: int = 1, wire: int | None = None) -> Seen:
    """The frame of one packet."""
    record: Record = (1.0, packet) if wire is None else (1.0, packet, wire)
    [seen] = dissect(pcap([record], link=link)).frames
    return seen


UDP_PORTS = (1000, 53)
INNER = ("192.168.0.1", "192.168.0.2")
INNER_ENDS = (bytes([192, 168, 0, 1]), 1000, bytes([192, 168, 0, 2]), 53)
PAYLOAD = b"payload"


def udp_header(data: bytes, ports: tuple[int, int] = UDP_PORTS, *, length: int | None = None) -> bytes:
    return struct.pack(">HHHH", *ports, 8 + len(data) if length is None else length, 0) + data


def inner_ip() -> bytes:
    """An IPv4 packet with UDP and `PAYLOAD`: 35 bytes."""
    return ip(*INNER, 17, udp_header(PAYLOAD))


def inner_ipv6() -> bytes:
    """The same in IPv6."""
    return ip("fd00::1", "fd00::2", 17, udp_header(PAYLOAD))


def outer(proto: int, data: bytes) -> bytes:
    """An Ethernet frame with an IPv4 packet of a protocol: 34 bytes before the data."""
    return ethernet(ip("10.0.0.1", "10.0.0.2", proto, data))


def outer_udp(port: int, data: bytes) -> bytes:
    """The same with UDP to a port: 42 bytes before the data."""
    return outer(17, udp_header(data, (50000, port)))
