"""The client hello of a QUIC connection (RFC 9000, RFC 9001, RFC 9369): Initial packets have keys that anyone can make.

AES is of the extra `tls`; without it nothing is read. Raises nothing for what the bytes hold.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from engine.capture.applications.tls_hello import HELLO_BYTES, ClientHello, read_client_hello
from engine.values.stats import QuicStats

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    HAVE_AES = True
    """Whether packets can be decrypted."""
except ImportError:  # pragma: no cover
    HAVE_AES = False

MOST_DATAGRAMS: Final = 8
"""Datagrams of a client after which no hello is expected any more; one of 2 KiB takes two."""

MOST_PACKETS: Final = 16
"""Read of one datagram; clients put one or two into it."""

MOST_PIECES: Final = 64
"""Of one hello; some clients cut it up and shuffle the pieces."""


class _Version(NamedTuple):
    salt: bytes
    label: bytes
    initial: int  # the type bits of an Initial packet


_VERSIONS: Final = {
    1: _Version(bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), b"quic ", 0),
    0x6B3343CF: _Version(bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), b"quicv2 ", 1),
}


class Keys(NamedTuple):
    """What protects Initial packets of a client (RFC 9001 5.2)."""

    key: bytes
    iv: bytes
    header: bytes


@dataclass(slots=True)
class _Initial:
    """Where the parts of an Initial packet are."""

    version: int
    connection_id: bytes
    number_at: int
    end: int


class QuicReader:
    """Opens connections and counts what is in them; one for a run, on one thread."""

    def __init__(self) -> None:
        self.connections = self.client_hellos = self.malformed = 0

    def open(self) -> QuicClient:
        """For a UDP flow that has just begun."""
        return QuicClient(self)

    def stats(self) -> QuicStats:
        """The counts up to now."""
        return QuicStats(self.connections, self.client_hellos, self.malformed)


class QuicClient:
    """What one client sends, until its hello has come. `wanted` turns False for good when no more is to be read."""

    __slots__ = ("_datagrams", "_keys", "_pieces", "_reader", "wanted")

    def __init__(self, reader: QuicReader) -> None:
        self._reader = reader
        self._keys: Keys | None = None
        self._pieces: dict[int, bytes] = {}  # of the CRYPTO stream, by their position in it
        self._datagrams = 0
        self.wanted = HAVE_AES

    def datagram(self, data: bytes) -> ClientHello | None:
        """The client's next datagram; its hello when this one completes it."""
        if not self.wanted:
            return None
        self._datagrams += 1
        try:
            is_initial = self._read_packets(data)
        except _MalformedError:
            self._reader.malformed += 1
            self.wanted = False
            return None
        if not (is_initial or self._keys) or self._datagrams == MOST_DATAGRAMS:
            self.wanted = False
        return self._hello()

    def _read_packets(self, data: bytes) -> bool:
        """Take the pieces of the Initial packets a datagram begins with; False when there is none."""
        at = 0
        for _ in range(MOST_PACKETS):
            packet = _read_header(data, at)
            if packet is None:
                break
            frames = self._decrypt(data[at : packet.end], packet, at)
            if frames is not None:
                self._take(frames)
            at = packet.end
        return at > 0

    def _decrypt(self, packet: bytes, where: _Initial, start: int) -> bytes | None:
        """Its frames; None when it is not of this client. After a Retry keys come from another connection id."""
        fresh = derive_keys(where.version, where.connection_id)
        for keys in (self._keys, fresh):
            if keys is not None and (frames := decrypt(packet, where.number_at - start, keys)) is not None:
                self._reader.connections += self._keys is None
                self._keys = keys
                return frames
        return None

    def _take(self, frames: bytes) -> None:
        for position, piece in _crypto_frames(frames):
            if position + len(piece) > HELLO_BYTES or len(self._pieces) == MOST_PIECES:
                raise _MalformedError
            if len(piece) > len(self._pieces.get(position, b"")):
                self._pieces[position] = piece

    def _hello(self) -> ClientHello | None:
        message = _joined(self._pieces)
        if len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4]):
            return None
        self.wanted = False
        self._pieces.clear()
        hello = read_client_hello(message[4 : 4 + int.from_bytes(message[1:4])]) if message[0] == 1 else None
        if hello is None:
            self._reader.malformed += 1
        else:
            self._reader.client_hellos += 1
        return hello


class _MalformedError(Exception):
    """A packet that could be decrypted is not QUIC, or passes a limit; raised and caught in here."""


@lru_cache(maxsize=64)
def derive_keys(version: int, connection_id: bytes) -> Keys:
    """The keys of a client's Initial packets, from the first connection id that it sent to. Versions 1 and 2 only."""
    known = _VERSIONS[version]
    secret = _expand(hmac.digest(known.salt, connection_id, "sha256"), b"client in", 32)
    return Keys(*(_expand(secret, known.label + name, size) for name, size in ((b"key", 16), (b"iv", 12), (b"hp", 16))))


def decrypt(packet: bytes, number_at: int, keys: Keys) -> bytes | None:
    """The frames of one Initial packet whose packet number is at `number_at`; None when these are not its keys."""
    sample = packet[number_at + 4 : number_at + 20]
    if len(sample) < 16:
        return None
    mask = Cipher(algorithms.AES(keys.header), modes.ECB()).encryptor().update(sample)
    first = packet[0] ^ mask[0] & 0x0F
    size = (first & 3) + 1
    number = bytes(a ^ b for a, b in zip(packet[number_at : number_at + size], mask[1:], strict=False))
    nonce = int.from_bytes(keys.iv) ^ int.from_bytes(number)
    header = bytes((first,)) + packet[1:number_at] + number
    try:
        return AESGCM(keys.key).decrypt(nonce.to_bytes(12), packet[number_at + size :], header)
    except InvalidTag:
        return None


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 7.1) of up to 32 bytes."""
    label = b"tls13 " + label
    info = size.to_bytes(2) + bytes((len(label),)) + label + b"\0"
    return hmac.digest(secret, info + b"\1", hashlib.sha256)[:size]


def _read_header(data: bytes, at: int) -> _Initial | None:
    """The Initial packet at a position of a datagram; None for anything else (RFC 9000 17.2.2)."""
    if len(data) - at < 7 or data[at] & 0xC0 != 0xC0:
        return None
    number = int.from_bytes(data[at + 1 : at + 5])
    version = _VERSIONS.get(number)
    if version is None or data[at] >> 4 & 3 != version.initial:
        return None
    id_end = at + 6 + data[at + 5]
    source_size = data[id_end : id_end + 1]
    if not source_size:
        return None
    token_size, position = _number(data, id_end + 1 + source_size[0])
    length, number_at = _number(data, position + token_size)
    if not 20 <= length <= len(data) - number_at:
        return None
    return _Initial(number, data[at + 6 : id_end], number_at, number_at + length)


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer (RFC 9000 16) and the position behind it; 0 where bytes are missing."""
    size = 1 << (data[at] >> 6) if at < len(data) else 1
    value = int.from_bytes(data[at : at + size]) & (1 << 8 * size - 2) - 1
    return value, at + size


def _crypto_frames(frames: bytes) -> list[tuple[int, bytes]]:
    """The pieces of the CRYPTO stream in a packet, with their positions (RFC 9000 12.4, 19)."""
    pieces: list[tuple[int, bytes]] = []
    at = 0
    while at < len(frames):
        kind = frames[at]
        at += 1
        if kind == 0x06:
            position, at = _number(frames, at)
            length, at = _number(frames, at)
            if at + length > len(frames):
                raise _MalformedError
            pieces.append((position, frames[at : at + length]))
            at += length
        elif kind in (0x02, 0x03):
            at = _skip_ack(frames, at, counted=kind == 0x03)
        elif kind == 0x1C:
            break
        elif kind > 0x01:
            raise _MalformedError
    return pieces


def _skip_ack(frames: bytes, at: int, *, counted: bool) -> int:
    """The position behind an ACK frame (RFC 9000 19.3)."""
    _, at = _number(frames, at)
    _, at = _number(frames, at)
    ranges, at = _number(frames, at)
    numbers = 1 + 2 * min(ranges, len(frames)) + (3 if counted else 0)
    for _ in range(numbers):
        _, at = _number(frames, at)
    return at


def _joined(pieces: dict[int, bytes]) -> bytes:
    """The stream from its beginning as far as there is no hole."""
    joined = b""
    for position in sorted(pieces):
        if position > len(joined):
            break
        joined += pieces[position][len(joined) - position :]
    return joined
