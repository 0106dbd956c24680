"""Client hellos in QUIC: keys against RFC 9001 appendix A, and packets that are encrypted here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.capture.applications import quic
from engine.capture.applications.quic import MOST_DATAGRAMS, MOST_PIECES, QuicReader, derive_keys
from engine.capture.applications.tls_hello import HELLO_BYTES, ClientHello
from engine.values.stats import QuicStats
from tests.capture.tls_talk import alpn, client_body, extension, message, sni

ID = bytes.fromhex("8394c8f03e515708")
V2 = 0x6B3343CF
HELLO = message(1, client_body(sni(b"q.example"), alpn(b"h3")))


def number(value: int) -> bytes:
    return (value | 0x4000).to_bytes(2)


def crypto(position: int, data: bytes) -> bytes:
    return b"\6" + number(position) + number(len(data)) + data


def initial(
    frames: bytes, *, connection_id: bytes = ID, keys_of: bytes = ID, count: int = 2, version: int = 1
) -> bytes:
    """An encrypted Initial packet with a two-byte packet number."""
    keys = derive_keys(version, keys_of)
    frames = frames.ljust(20, b"\0")
    first = (0xC1 if version == 1 else 0xD1,)
    head = bytes(first) + version.to_bytes(4) + bytes((len(connection_id),)) + connection_id + b"\0" + b"\0"
    head += number(2 + len(frames) + 16)
    packet_number = count.to_bytes(2)
    nonce = (int.from_bytes(keys.iv) ^ count).to_bytes(12)
    body = AESGCM(keys.key).encrypt(nonce, frames, head + packet_number)
    mask = Cipher(algorithms.AES(keys.header), modes.ECB()).encryptor().update(body[2:18])
    hidden = bytes(a ^ b for a, b in zip(packet_number, mask[1:3], strict=True))
    return bytes((head[0] ^ mask[0] & 0x0F,)) + head[1:] + hidden + body


def read(*packets: bytes) -> tuple[list[ClientHello], QuicStats, bool]:
    reader = QuicReader()
    client = reader.open()
    hellos = [hello for each in packets if (hello := client.datagram(each)) is not None]
    return hellos, reader.stats(), client.wanted


def test_keys_of_rfc_9001() -> None:
    keys = derive_keys(1, ID)
    assert keys.key.hex() == "1f369613dd76d5467730efcbe3b1a22d"
    assert keys.iv.hex() == "fa044b2f42a3fd3b46fb255c"
    assert keys.header.hex() == "9f50449e04a0e810283a1e9933adedd2"


@pytest.mark.parametrize("version", [1, V2])
def test_a_hello_in_one_datagram(version: int) -> None:
    hellos, stats, wanted = read(initial(crypto(0, HELLO), version=version))
    assert [(each.server_name, each.alpn) for each in hellos] == [("q.example", (b"h3",))]
    assert stats == QuicStats(connections=1, client_hellos=1)
    assert not wanted


def test_a_hello_in_shuffled_pieces_over_packets_and_datagrams() -> None:
    one = crypto(60, HELLO[60:]) + b"\1\0\0" + crypto(10, HELLO[10:40])
    two = b"\2" + number(1) + number(0) + number(0) + number(0) + crypto(0, HELLO[:10])
    three = crypto(35, HELLO[35:65])
    first = initial(one, count=0) + initial(two, count=1)
    hellos, stats, wanted = read(first)
    assert (hellos, stats, wanted) == ([], QuicStats(connections=1), True)
    hellos, stats, wanted = read(first, initial(three))
    assert [each.server_name for each in hellos] == ["q.example"]
    assert not wanted


def test_the_keys_stay_when_the_connection_id_changes() -> None:
    first, second = initial(crypto(0, HELLO[:30])), crypto(30, HELLO[30:])
    for packet in (initial(second, connection_id=b"server-id"), initial(second, connection_id=b"new", keys_of=b"new")):
        assert len(read(first, packet)[0]) == 1


@pytest.mark.parametrize(
    "data", [b"", b"\xc0\0\0\0\1", b"\x40" * 50, b"\xc0\0\0\0\0" + bytes(30), b"\xe0\0\0\0\1" + bytes(60)]
)
def test_what_is_no_initial_packet_is_left(data: bytes) -> None:
    assert read(data) == ([], QuicStats(), False)


def test_packets_of_others_are_not_taken() -> None:
    packet = initial(crypto(0, HELLO), keys_of=b"another")
    hellos, stats, wanted = read(packet)
    assert (hellos, stats) == ([], QuicStats())
    assert wanted
    assert read(*[packet] * MOST_DATAGRAMS)[2] is False


@pytest.mark.parametrize(
    "frames",
    [
        b"\x08" + bytes(30),
        b"\6" + number(0) + number(900) + bytes(9),
        crypto(HELLO_BYTES, b"x"),
        b"".join(crypto(3 * each + 1, b"x") for each in range(MOST_PIECES + 1)),
        crypto(0, message(2, b"no hello")),
        crypto(0, message(1, b"no hello")),
    ],
)
def test_malformed_is_counted(frames: bytes) -> None:
    assert read(initial(frames)) == ([], QuicStats(connections=1, malformed=1), False)


def test_a_closed_connection_has_no_hello() -> None:
    assert read(initial(b"\x1c" + bytes(30)))[:2] == ([], QuicStats(connections=1))


def test_without_the_library_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quic, "HAVE_AES", False)
    assert read(initial(crypto(0, HELLO))) == ([], QuicStats(), False)


@given(st.lists(st.binary(max_size=100).map(lambda each: b"\xc0\0\0\0\1" + each), max_size=9))
def test_any_bytes_raise_nothing(packets: list[bytes]) -> None:
    read(*packets)


@given(st.lists(st.binary(max_size=200), max_size=9))
def test_any_frames_raise_nothing(frames: list[bytes]) -> None:
    read(*(initial(each, count=count) for count, each in enumerate(frames)))


@given(st.permutations(range(0, len(HELLO), 7)), st.integers(1, 9))
def test_any_order_of_pieces_gives_the_hello(order: list[int], per_packet: int) -> None:
    pieces = [crypto(at, HELLO[at : at + 9]) for at in order]
    packets = [b"".join(pieces[at : at + per_packet]) for at in range(0, len(pieces), per_packet)]
    hellos, _, _ = read(b"".join(initial(each, count=count) for count, each in enumerate(packets)))
    assert [each.server_name for each in hellos] == ["q.example"]


def test_a_long_hello() -> None:
    long = message(1, client_body(sni(b"q.example"), extension(51, bytes(1_800))))
    hellos, _, _ = read(initial(crypto(0, long[:1_150])), initial(crypto(1_150, long[1_150:])))
    assert [each.server_name for each in hellos] == ["q.example"]
