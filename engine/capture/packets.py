"""Building blocks of captures: pcap files, Ethernet frames, and the segments of a TCP conversation.

Everything here makes bytes; nothing reads them, and nothing draws on a clock or on shared randomness.
"""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

ETHERNET = 1  # LINKTYPE_ETHERNET
SNAPLEN = 262_144  # bytes
TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

_ETHERTYPE_IPV4 = b"\x08\x00"
_ETHERTYPE_IPV6 = b"\x86\xdd"
_ETHERNET_MIN = 60  # bytes without the frame check sequence
_SHUFFLE_WINDOW = 10  # segments; a receiver buffers more than that

Payload = bytes | memoryview


class PcapWriter:
    """Writes classic pcap to a binary stream that the caller opens and closes."""

    def __init__(
        self,
        stream: BinaryIO,
        *,
        big_endian: bool = False,
        nanoseconds: bool = False,
        snaplen: int = SNAPLEN,
        link_type: int = ETHERNET,
    ) -> None:
        order = ">" if big_endian else "<"
        self.packets = 0
        self._write = stream.write
        self._snaplen = snaplen
        self._record = struct.Struct(f"{order}IIII")
        self._ns_per_tick = 1 if nanoseconds else 1_000
        magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
        self._write(struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, snaplen, link_type))

    def write(self, time_ns: int, frame: Payload) -> None:
        """Append one record; `time_ns` is since the epoch and is cut down to the file's resolution."""
        seconds, rest = divmod(time_ns, 1_000_000_000)
        captured = min(len(frame), self._snaplen)
        self._write(self._record.pack(seconds, rest // self._ns_per_tick, captured, len(frame)))
        self._write(frame[:captured])
        self.packets += 1


def ones_complement_sum(data: Payload) -> int:
    """The folded 16-bit sum of RFC 1071, data padded with a zero byte to even length.

    2**16 is 1 modulo 65535, so the sum is the whole data as one number modulo 65535: one C call
    instead of 730 additions for a full segment, about three times faster than summing an array.
    """
    number = int.from_bytes(data, "big")
    if len(data) & 1:
        number <<= 8
    return number and (number % 0xFFFF or 0xFFFF)


def checksum(data: Payload) -> int:
    """The Internet checksum (RFC 1071) over `data`; 0 over data that carries its own right checksum."""
    return 0xFFFF - ones_complement_sum(data)


def packed_ip(text: str) -> bytes:
    """An address as it stands in a packet: 4 bytes, or 16 for IPv6."""
    return ipaddress.ip_address(text).packed


def ethernet_frame(packet: bytes, *, source: bytes, target: bytes, pad: bool = False) -> bytes:
    """Frame an IP packet. `pad` fills to the 60 bytes that a frame off the wire has at least."""
    ethertype = _ETHERTYPE_IPV6 if packet[0] >> 4 == 6 else _ETHERTYPE_IPV4
    frame = b"".join((target, source, ethertype, packet))
    return frame.ljust(_ETHERNET_MIN, b"\0") if pad else frame


def ip_packet(
    payload: bytes, *, protocol: int, source: bytes, target: bytes, identification: int = 0, ttl: int = 64
) -> bytes:
    """An IPv4 (RFC 791) or IPv6 (RFC 8200) packet, whichever the packed addresses belong to.

    `identification` is of IPv4 only; IPv4 packets forbid fragmentation.
    """
    if len(source) == 16:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, ttl) + source + target + payload
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(payload), identification, 0x4000, ttl, protocol)
    return b"".join((head, checksum(head + source + target).to_bytes(2, "big"), source, target, payload))


def pseudo_header(protocol: int, source: bytes, target: bytes, length: int) -> bytes:
    """What TCP and UDP checksums cover beside the segment: RFC 9293 section 3.1, RFC 8200 section 8.1."""
    if len(source) == 16:
        return source + target + struct.pack("!II", length, protocol)
    return source + target + struct.pack("!HH", protocol, length)


def tcp_segment(
    payload: Payload,
    *,
    source: Endpoint,
    target: Endpoint,
    seq: int,
    ack: int,
    flags: int,
    options: bytes = b"",
    window: int = 65_535,
    offloaded: bool = False,
) -> bytes:
    """A TCP segment (RFC 9293); `options` in whole 32-bit words.

    `offloaded` leaves in the checksum field what a host leaves there for its network card to finish: the
    sum over the pseudo header alone. A capture taken on such a host is full of these.
    """
    length = 20 + len(options) + len(payload)
    pseudo = pseudo_header(TCP, source.packed, target.packed, length)
    offset_flags = (20 + len(options)) // 4 << 12 | flags
    start = struct.pack("!HHIIHH", source.port, target.port, seq, ack, offset_flags, window)
    field = ones_complement_sum(pseudo) if offloaded else checksum(b"".join((pseudo, start, options, payload)))
    return b"".join((start, field.to_bytes(2, "big"), b"\0\0", options, payload))


def udp_datagram(payload: bytes, *, source: Endpoint, target: Endpoint) -> bytes:
    """A UDP datagram (RFC 768); a checksum that comes out as 0 is sent as 0xffff, for 0 means none."""
    length = 8 + len(payload)
    start = struct.pack("!HHH", source.port, target.port, length)
    pseudo = pseudo_header(UDP, source.packed, target.packed, length)
    field = checksum(pseudo + start + payload) or 0xFFFF
    return start + field.to_bytes(2, "big") + payload


class Endpoint:
    """One end of a conversation: an address, a port and the hardware address that goes with them."""

    __slots__ = ("ip", "mac", "packed", "port")

    def __init__(self, ip: str, port: int, mac: bytes = b"\x02\0\0\0\0\x01") -> None:
        self.ip = ip
        self.port = port
        self.mac = mac
        self.packed = packed_ip(ip)


class Segment(NamedTuple):
    """One TCP segment before it becomes a frame. `seq` and `ack` are as on the wire, 32 bits."""

    from_client: bool
    seq: int
    ack: int
    flags: int
    payload: Payload = b""
    options: bytes = b""


class Send(NamedTuple):
    """A line of a conversation's script: who sends what."""

    from_client: bool
    data: Payload


@dataclass(slots=True)
class TcpConversation:
    """Turns sends into segments, keeping both sides' sequence numbers; then segments into frames.

    Each call gives segments in the order of a network that neither loses nor reorders. The initial sequence
    numbers are the caller's, so that wrapping past 2**32 can be had on purpose.
    """

    client: Endpoint
    server: Endpoint
    client_seq: int = 1_000
    server_seq: int = 5_000
    mss: int = 1_460
    """The most payload bytes in one segment."""
    seen_at_server: bool = False
    """Which host the capture is taken on; what that host receives is padded as frames off the wire are."""
    frames: int = 0
    """Frames made so far; numbers the IPv4 identification field."""

    def open(self) -> list[Segment]:
        """The three-way handshake, each side announcing its maximum segment size."""
        options = struct.pack("!BBH", 2, 4, min(self.mss, 0xFFFF))
        opening = [
            Segment(True, self.client_seq, 0, SYN, options=options),
            Segment(False, self.server_seq, self.client_seq + 1 & 0xFFFFFFFF, SYN | ACK, options=options),
        ]
        self.skip_open()
        return [*opening, self._bare(True, ACK)]

    def skip_open(self) -> None:
        """Go on as if the handshake had happened before the capture began."""
        self._advance(True, 1)
        self._advance(False, 1)

    def send(self, from_client: bool, data: Payload) -> list[Segment]:
        """`data` in segments that view it, without copying, acknowledged every second one and at the end."""
        view = memoryview(data)
        segments: list[Segment] = []
        for number, start in enumerate(range(0, len(view), self.mss), 1):
            payload = view[start : start + self.mss]
            last = start + self.mss >= len(view)
            segments.append(self._bare(from_client, ACK | PSH if last else ACK)._replace(payload=payload))
            self._advance(from_client, len(payload))
            if last or number % 2 == 0:
                segments.append(self._bare(not from_client, ACK))
        return segments

    def close(self, *, client_first: bool) -> list[Segment]:
        """Both sides' FINs, each acknowledged."""
        segments: list[Segment] = []
        for side in (client_first, not client_first):
            segments.append(self._bare(side, FIN | ACK))
            self._advance(side, 1)
            segments.append(self._bare(not side, ACK))
        return segments

    def play(self, script: Iterable[Send], *, client_closes: bool = True) -> Iterator[Segment]:
        """A whole conversation: handshake, every send of the script in turn, and the end."""
        yield from self.open()
        for each in script:
            yield from self.send(each.from_client, each.data)
        yield from self.close(client_first=client_closes)

    def frame(self, segment: Segment, *, offloaded: bool = False) -> bytes:
        """The Ethernet frame of a segment. `offloaded` (see `tcp_segment`) touches only what the host sends
        on which the capture is taken.
        """
        source, target = (self.client, self.server) if segment.from_client else (self.server, self.client)
        sent_here = segment.from_client != self.seen_at_server
        tcp = tcp_segment(
            segment.payload,
            source=source,
            target=target,
            seq=segment.seq,
            ack=segment.ack,
            flags=segment.flags,
            options=segment.options,
            offloaded=offloaded and sent_here,
        )
        self.frames += 1
        packet = ip_packet(
            tcp, protocol=TCP, source=source.packed, target=target.packed, identification=self.frames & 0xFFFF
        )
        return ethernet_frame(packet, source=source.mac, target=target.mac, pad=not sent_here)

    def _bare(self, from_client: bool, flags: int) -> Segment:
        if from_client:
            return Segment(True, self.client_seq, self.server_seq, flags)
        return Segment(False, self.server_seq, self.client_seq, flags)

    def _advance(self, client: bool, count: int) -> None:
        if client:
            self.client_seq = self.client_seq + count & 0xFFFFFFFF
        else:
            self.server_seq = self.server_seq + count & 0xFFFFFFFF


def reorder(segments: list[Segment], rng: random.Random) -> list[Segment]:
    """Shuffle within windows of ten segments, about every second window, the first always."""
    result: list[Segment] = []
    for start in range(0, len(segments), _SHUFFLE_WINDOW):
        window = segments[start : start + _SHUFFLE_WINDOW]
        if start == 0 or rng.random() < 0.5:
            data = [each for each in window if each.payload]
            rng.shuffle(window)
            if [each for each in window if each.payload] == data:
                window.reverse()
        result += window
    return result


def repeat(segments: list[Segment], rng: random.Random) -> list[Segment]:
    """Send about every fifth data segment, and the first always, once more within five segments."""
    placed = list(enumerate(segments))
    first = True
    for place, segment in enumerate(segments):
        if segment.payload and (first or rng.random() < 0.2):
            first = False
            placed.append((place + rng.randrange(5), segment))
    # The sort is stable, so a copy comes after the original of the same place.
    return [segment for _, segment in sorted(placed, key=lambda each: each[0])]


def overlap(segments: list[Segment], rng: random.Random) -> list[Segment]:
    """Add retransmissions cut elsewhere than the originals, with the same bytes.

    One starts inside a data segment and ends inside the next, and comes before or after that next one: in
    the first case it brings bytes not yet seen. About every third pair gets one, and the first always.
    """
    result: list[Segment] = []
    held: Segment | None = None
    first = True
    for segment in segments:
        bridge = None
        if segment.payload:
            if held is not None and (first or rng.random() < 0.3):
                first = False
                bridge = _bridge(held, segment, rng)
            held = segment
        pair = [segment] if bridge is None else [bridge, segment]
        result += reversed(pair) if rng.random() < 0.5 else pair
    return result


def _bridge(before: Segment, after: Segment, rng: random.Random) -> Segment:
    # Half of each at most, so that the bridge is no longer than the maximum segment size.
    start = len(before.payload) // 2 + rng.randrange((len(before.payload) + 1) // 2)
    stop = 1 + rng.randrange(max(1, len(after.payload) // 2))
    payload = bytes(before.payload[start:]) + bytes(after.payload[:stop])
    return after._replace(seq=before.seq + start & 0xFFFFFFFF, payload=payload)
