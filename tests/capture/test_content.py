"""Content decoding: every coding, broken data, bombs."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.capture import content
from engine.capture.content import PIECE_BYTES, ContentDecoder
from engine.values.config import CaptureLimits

LIMITS = CaptureLimits()
TEXT = b"".join(b"line %d of a text that packs well\n" % number for number in range(9_000))


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: brotli.compress(data, quality=3),
}


def run(decoder: ContentDecoder, *inputs: bytes) -> bytes:
    return b"".join(piece for each in inputs for piece in decoder.feed(each))


def decode(codings: list[str], *inputs: bytes, limits: CaptureLimits = LIMITS) -> tuple[bytes, str]:
    decoder = ContentDecoder(codings, limits)
    body = run(decoder, *inputs)
    decoder.finish()
    return body, decoder.reason


@pytest.mark.parametrize("coding", PACKERS)
def test_each_coding(coding: str) -> None:
    assert decode([coding], PACKERS[coding](TEXT)) == (TEXT, "")


@pytest.mark.parametrize("coding", PACKERS)
def test_each_coding_byte_by_byte(coding: str) -> None:
    packed = PACKERS[coding](TEXT[:3_000])
    assert decode([coding], *(packed[at : at + 1] for at in range(len(packed)))) == (TEXT[:3_000], "")


def test_identity_passes_pieces_unchanged() -> None:
    assert decode([], TEXT) == (TEXT, "")
    assert max(len(piece) for piece in ContentDecoder([], LIMITS).feed(TEXT)) <= PIECE_BYTES


def test_deflate_without_a_zlib_header_and_with_a_gzip_one() -> None:
    assert decode(["deflate"], raw_deflate(TEXT)) == (TEXT, "")
    assert decode(["deflate"], gzip.compress(TEXT)) == (TEXT, "")


def test_codings_are_undone_from_the_last_to_the_first() -> None:
    assert decode(["deflate", "br", "gzip"], gzip.compress(brotli.compress(zlib.compress(TEXT)))) == (TEXT, "")


def test_gzip_members_padding_and_trailing_garbage() -> None:
    packed = gzip.compress(b"one ") + gzip.compress(b"two")
    assert decode(["gzip"], packed) == (b"one two", "")
    assert decode(["gzip"], packed + b"\0\0\0") == (b"one two", "")
    assert decode(["gzip"], packed + b"garbage" + packed) == (b"one two", "")
    assert decode(["gzip"], packed + b"\x1f") == (b"one two", "")


@pytest.mark.parametrize("coding", PACKERS)
def test_a_body_of_no_bytes_is_whole(coding: str) -> None:
    assert decode([coding]) == (b"", "")


@pytest.mark.parametrize("coding", PACKERS)
def test_data_cut_short_is_kept_and_marked(coding: str) -> None:
    body, reason = decode([coding], PACKERS[coding](TEXT)[:-8])
    assert TEXT.startswith(body)
    assert reason == "decode"


@pytest.mark.parametrize("coding", PACKERS)
def test_what_was_decoded_before_an_error_is_kept(coding: str) -> None:
    noise = random.Random(5).randbytes(200_000)
    packed = bytearray(PACKERS[coding](noise))
    packed[150_000:150_020] = b"\xff" * 20
    body, reason = decode([coding], bytes(packed))
    if coding == "br":  # has no checksum: damage in a stored block goes unnoticed
        assert body[:100_000] == noise[:100_000]
    else:
        assert reason == "decode"
        assert len(body) > 100_000
        assert body[:149_000] == noise[:149_000]


def test_data_that_is_not_in_the_coding_at_all() -> None:
    assert decode(["gzip"], b"<html>", b"more") == (b"", "decode")
    assert decode(["br"], b"\xff" * 300) == (b"", "decode")


def test_an_unknown_coding_passes_the_bytes_and_is_marked() -> None:
    assert decode(["zstd"], b"abc") == (b"abc", "decode")
    assert decode(["zstd", "gzip"], gzip.compress(b"abc")) == (b"abc", "decode")


def test_more_codings_than_anyone_uses_are_not_undone() -> None:
    data = TEXT
    for _ in range(6):
        data = gzip.compress(data)
    body, reason = decode(["gzip"] * 6, data)
    assert reason == "decode"
    assert gzip.decompress(gzip.decompress(body)) == TEXT


def test_coded_data_is_not_read_on_behind_a_hole_but_plain_data_is() -> None:
    packed = gzip.compress(TEXT)
    for codings, inputs, wanted in ((["gzip"], (packed[:500], packed[600:]), None), ([], (b"ab", b"cd"), b"abcd")):
        decoder = ContentDecoder(codings, LIMITS)
        before = run(decoder, inputs[0])
        decoder.skip()
        after = run(decoder, inputs[1])
        decoder.finish()
        assert decoder.reason == ""
        assert before + after == wanted if wanted else not after


@pytest.mark.parametrize("coding", PACKERS)
def test_a_bomb_stops_at_the_size_limit(coding: str) -> None:
    limits = CaptureLimits(decoded_bytes=300_000, decoded_ratio=10**9)
    assert decode([coding], PACKERS[coding](bytes(5_000_000)), limits=limits) == (bytes(300_000), "limit")


@pytest.mark.parametrize("coding", PACKERS)
def test_a_bomb_stops_at_the_ratio_limit_in_bounded_memory(coding: str) -> None:
    packed = PACKERS[coding](bytes(64 << 20))
    limits = CaptureLimits(decoded_ratio=20)
    tracemalloc.start()
    try:
        decoder = ContentDecoder([coding], limits)
        size = sum(len(piece) for piece in decoder.feed(packed))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert decoder.reason == "limit"
    allowed = max(1 << 20, 20 * len(packed))
    assert allowed <= size <= allowed + 2 * PIECE_BYTES
    assert peak < (1 << 20) + 2 * len(packed)


def test_a_bomb_inside_a_bomb_stops_too() -> None:
    packed = gzip.compress(gzip.compress(bytes(50_000_000)))
    body, reason = decode(["gzip", "gzip"], packed)
    assert reason == "limit"
    assert len(body) <= (1 << 20) + 1000 * len(packed) + PIECE_BYTES


def test_a_body_that_packs_well_is_no_bomb_in_its_first_mebibyte() -> None:
    assert decode(["gzip"], gzip.compress(bytes(1 << 20)), limits=CaptureLimits(decoded_ratio=1)) == (
        bytes(1 << 20),
        "",
    )


def test_an_older_brotli_without_bounded_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_BROTLI_BOUNDED", False)
    assert decode(["br"], brotli.compress(TEXT)) == (TEXT, "")


@given(st.sampled_from([*PACKERS, "raw"]), st.binary(max_size=3_000), st.data())
def test_any_cut_gives_the_same_even_when_broken(coding: str, payload: bytes, data: st.DataObject) -> None:
    packed = bytearray(raw_deflate(payload) if coding == "raw" else PACKERS[coding](payload))
    if coding != "br" and data.draw(st.booleans()):
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= 0x55
    codings = ["deflate" if coding == "raw" else coding]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(packed)), max_size=6)))
    parts = [bytes(packed[a:b]) for a, b in zip([0, *cuts], [*cuts, len(packed)], strict=True)]
    assert decode(codings, *parts) == decode(codings, bytes(packed))


@given(st.lists(st.sampled_from([*PACKERS, "zstd"]), max_size=3), st.lists(st.binary(max_size=200), max_size=5))
def test_random_bytes_never_raise(codings: list[str], inputs: list[bytes]) -> None:
    assert decode(codings, *inputs)[1] in ("", "decode")
