"""Header blocks: what one field is, whatever the block looks like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.capture.http_head import Head, Start, classify, find_start, read_head

LIMIT = 65_536
NAMES = (b"host", b"content-length", b"transfer-encoding", b"content-type", b"content-encoding")

names = st.sampled_from([b"Host", b"HOST", b"Content-Length", b"content-length", b"Transfer-Encoding", b"X"])
colons = st.sampled_from([b":", b": ", b":\t", b" :", b""])
values = st.sampled_from(
    [b"h.org", b"5", b" 5 ", b"\t12\t", b"chunked", b"", b"a : b", b"\x80", b"a\x0b", b"a\rb", b"\0"]
)
ends = st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r\n ", b"\r\n\t", b"\r", b"\r\r\n"])
lines = st.tuples(names, colons, values, ends).map(b"".join)
blocks = st.tuples(
    st.sampled_from([b"GET /a HTTP/1.1\r\n", b"CCM_POST /a b HTTP/1.0 \n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 404\n"]),
    st.lists(lines, max_size=5).map(b"".join),
    st.sampled_from([b"Z: z\r\n\r\n", b"Z: z\n\n"]),
).map(b"".join)


def head_of(block: bytes) -> Head | None:
    return read_head(block, 0, LIMIT, is_request=not block.startswith(b"HTTP"))


@given(blocks)
def test_a_field_is_the_same_alone_and_among_all(block: bytes) -> None:
    head, other = head_of(block), head_of(block)
    assert head is not None and other is not None
    alone = [head.field(name) for name in NAMES]
    assert alone == [other.fields.get(name, b"") for name in NAMES]
    assert alone == [other.field(name) for name in NAMES]


@given(blocks, st.binary(max_size=9), st.binary(max_size=9), st.data())
def test_a_block_is_found_wherever_it_lies_and_however_it_comes(
    block: bytes, before: bytes, behind: bytes, data: st.DataObject
) -> None:
    known = head_of(block)
    assert known is not None
    is_request = known.is_request
    cut = data.draw(st.integers(0, len(known.raw) - 1))
    assert read_head(block[:cut], 0, LIMIT, is_request=is_request) is None
    found = read_head(before + block + behind, len(before), LIMIT, cut, is_request=is_request)
    assert found is not None
    assert (found.raw, found.method, found.uri, found.status) == (known.raw, known.method, known.uri, known.status)


def test_a_block_ends_within_the_limit() -> None:
    block = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert read_head(block, 0, len(block), is_request=True) is not None
    assert read_head(block, 0, len(block) - 1, is_request=True) is None
    assert read_head(block, 0, LIMIT, is_request=False) is None


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        (b"Host: a\r\nHOST:b\r\n", b"a, b"),
        (b"Host: a\nX: y\n", b"a"),
        (b"Host : a\r\n", b"a"),
        (b"Hosts: a\r\nX-Host: b\r\n", b""),
        (b"Host:\r\n", b""),
        (b"X: Host: a\r\n", b""),
    ],
)
def test_fields_by_their_names(lines: bytes, value: bytes) -> None:
    head = head_of(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")
    assert head is not None
    assert head.field(b"host") == value


@pytest.mark.parametrize(
    ("lines", "codings", "transfer"),
    [
        (b"", [], []),
        (b"Transfer-Encoding: chunked\r\n", [], [b"chunked"]),
        (b"Content-Encoding: br\r\nTransfer-Encoding: GZIP, chunked\r\n", ["br", "gzip"], [b"gzip", b"chunked"]),
        (b"Content-Encoding: identity,,\r\nTransfer-Encoding: identity\r\n", [], []),
    ],
)
def test_codings_in_their_order(lines: bytes, codings: list[str], transfer: list[bytes]) -> None:
    head = head_of(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n")
    assert head is not None
    assert head.codings() == codings
    assert head.transfer_codings == transfer


@pytest.mark.parametrize(
    "line",
    [
        b"GET /a HTTP/1.1",
        b"GET /a b HTTP/1.1 \t",
        b"GET /a\0b HTTP/1.1",
        b"GET /a\x08b HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /a\tb HTTP/1.1",
    ],
)
def test_a_start_line_is_judged_the_same_in_pieces(line: bytes) -> None:
    head = line + b"\r\nHost: h\r\n\r\n"
    refused = classify(head) is Start.NEITHER
    assert refused == (head_of(head) is None)
    assert refused == any(classify(head[:size]) is Start.NEITHER for size in range(len(head)))
    assert (find_start(head, 0, requests=True, responses=False)[1] is Start.REQUEST) <= (not refused)


@given(st.lists(st.sampled_from([b"A: 1", b"Content-Length: 7", b"Transfer-Encoding: chunked", b"b :2", b" folded"])))
def test_fields_past_the_limit_are_left_out(fields: list[bytes]) -> None:
    start, most = b"HTTP/1.1 200 OK\r\n", 3
    block = start + b"".join(field + b"\r\n" for field in fields) + b"\r\n"
    shorter = start + b"".join(field + b"\r\n" for field in fields[:most]) + b"\r\n"
    head = read_head(block + b"body", 0, LIMIT, is_request=False, most_fields=most)
    same = read_head(shorter, 0, LIMIT, is_request=False)
    assert head is not None and same is not None
    assert head.raw == block
    assert head.is_cut == (len(fields) > most)
    assert [head.field(name) for name in NAMES] == [same.field(name) for name in NAMES]
    assert head.fields == same.fields
    assert head.transfer_codings == same.transfer_codings
