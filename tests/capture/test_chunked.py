"""Chunked bodies: where they end, what they hold, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.capture.chunked import MAX_LINE_BYTES, MAX_TRAILER_BYTES, ChunkedDecoder


def decode(*inputs: bytes) -> tuple[bytes, ChunkedDecoder, int]:
    """Body, decoder, and how many bytes of the last input were used."""
    decoder = ChunkedDecoder()
    pieces: list[bytes] = []
    used = 0
    for each in inputs:
        used = decoder.feed(each, 0, pieces)
    return b"".join(pieces), decoder, used


@pytest.mark.parametrize(
    ("coded", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"0000a\r\n0123456789\r\n000\r\n\r\n", b"0123456789"),
        (b'5;name=value;q="x"\r\nhello\r\n0;last\r\n\r\n', b"hello"),
        (b"5  \r\nhello\r\n0 \r\n\r\n", b"hello"),
        (b"5\nhello\n0\n\n", b"hello"),
        (b"2\r\nab\r\n3\r\ncde\r\n0\r\nTrailer: 1\r\nOther: 2\r\n\r\n", b"abcde"),
    ],
)
def test_body_and_end_are_exact(coded: bytes, body: bytes) -> None:
    found, decoder, used = decode(coded + b"HTTP/1.1 ")
    assert (found, decoder.done, used) == (body, True, len(coded))


@pytest.mark.parametrize(
    "coded",
    [
        b"xyz\r\n",
        b"\r\n",
        b"-5\r\nhello",
        b"0x5\r\nhello",
        b"5_0\r\n",
        b"5\r\nhelloworld",
        b"5\r\nhello\rX",
        b"f" * 16 + b"\r\n",
        b"1;" + b"x" * MAX_LINE_BYTES,
        b"0\r\n" + (b"T: " + b"v" * 1000 + b"\r\n") * (MAX_TRAILER_BYTES // 1000 + 1),
    ],
)
def test_what_is_not_chunked_coding_is_broken(coded: bytes) -> None:
    _, decoder, _ = decode(coded)
    assert decoder.broken
    assert not decoder.done
    assert not decoder.has_all_data


def test_a_broken_decoder_uses_no_more_input() -> None:
    _, decoder, _ = decode(b"zz\r\n")
    assert decoder.feed(b"5\r\nhello", 0, []) == 0


def test_data_is_whole_before_the_trailers_are() -> None:
    body, decoder, _ = decode(b"2\r\nab\r\n0\r\n")
    assert (body, decoder.has_all_data, decoder.done) == (b"ab", True, False)


def test_a_hole_inside_a_chunk_is_skipped() -> None:
    decoder = ChunkedDecoder()
    pieces: list[bytes] = []
    decoder.feed(b"a\r\n01", 0, pieces)
    assert decoder.skip(5)
    decoder.feed(b"789\r\n0\r\n\r\n", 0, pieces)
    assert (b"".join(pieces), decoder.done) == (b"01789", True)


def test_a_hole_up_to_the_end_of_a_chunk_is_skipped_and_one_beyond_is_not() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(b"a\r\n01", 0, [])
    assert not decoder.skip(9)
    assert decoder.skip(8)
    assert not decoder.skip(1)
    decoder.feed(b"\r\n0\r\n\r\n", 0, [])
    assert decoder.done


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.data())
def test_any_cut_gives_the_same(chunks: list[bytes], data: st.DataObject) -> None:
    coded = b"".join(b"%X;e\r\n%b\r\n" % (len(each), each) for each in chunks) + b"0\r\nT: v\r\n\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(coded)), max_size=8)))
    parts = [coded[a:b] for a, b in zip([0, *cuts], [*cuts, len(coded)], strict=True)]
    body, decoder, _ = decode(*parts)
    assert (body, decoder.done) == (b"".join(chunks), True)


@given(st.lists(st.binary(max_size=60)))
def test_random_bytes_never_raise_and_are_accounted_for(inputs: list[bytes]) -> None:
    decoder = ChunkedDecoder()
    for each in inputs:
        pieces: list[bytes] = []
        used = decoder.feed(each, 0, pieces)
        assert 0 <= used <= len(each)
        assert used == len(each) or decoder.done or decoder.broken
        assert sum(map(len, pieces)) <= used
