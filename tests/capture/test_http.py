"""One connection's bytes to exchanges: framing, matching, holes, recognition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.capture.http import BANNER_BYTES, PENDING_REQUESTS, SEARCH_BYTES
from engine.capture.http_head import Framing, Start, classify, find_start
from engine.values.config import CaptureLimits
from tests.capture.http_talk import CHUNKED, Event, answer, chunk, get, talk


def bodies(*events: Event, roles_known: bool = True) -> list[tuple[int, bytes, str | None]]:
    """Status, body and reason of each response."""
    notes, _ = talk(*events, roles_known=roles_known)
    return [(each.start, each.body, each.reason) for each in notes.responses]  # type: ignore[misc]


def test_a_request_and_its_response() -> None:
    notes, connection = talk((0, get("/a")), (1, answer(b"hello")), end=False)
    assert notes.pairs == [(b"/a", 200)]
    assert notes.responses[0].body == b"hello"
    assert notes.responses[0].reason == ""
    assert notes.recognitions == 1
    assert connection.wanted
    assert connection.client_direction() == 0


def test_keep_alive_and_pipelined_requests_match_in_order() -> None:
    notes, _ = talk(
        (0, get("/1") + get("/2") + get("/3")),
        (1, answer(b"a") + answer(b"bb", status=404)),
        (1, answer()),
        (0, get("/4")),
    )
    assert notes.pairs == [(b"/1", 200), (b"/2", 404), (b"/3", 200), (b"/4", 0)]
    assert [each.framing for each in notes.responses] == [Framing.LENGTH, Framing.LENGTH, Framing.NONE]
    assert notes.unanswered_count == 1


def test_responses_without_a_body() -> None:
    found = bodies(
        (0, get("/h", "HEAD") + get("/n") + get("/m") + get("/l")),
        (1, answer(length=500) + b"HTTP/1.1 204 X\r\n\r\n" + answer(status=304, length=99) + answer(b"x")),
    )
    assert [each[0] for each in found] == [200, 204, 304, 200]
    assert found[3] == (200, b"x", "")


def test_interim_responses_do_not_answer() -> None:
    post = b"POST /up HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    notes, _ = talk(
        (0, post), (1, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 H\r\nLink: x\r\n\r\n"), (0, b"data"), (1, answer())
    )
    assert notes.pairs == [(b"/up", 200)]
    assert notes.requests[0].body == b"data"


@pytest.mark.parametrize("request_", [get("/ws", extra="Upgrade: websocket\r\n"), get("host:443", "CONNECT")])
def test_upgrade_and_tunnel_leave_the_rest_alone(request_: bytes) -> None:
    status = 101 if b"Upgrade" in request_ else 200
    notes, connection = talk(
        (0, request_), (1, b"HTTP/1.1 %d X\r\nUpgrade: y\r\n\r\n\x16\x03\x01" % status), (0, get("/not"))
    )
    assert not connection.wanted
    assert [each.framing for each in notes.messages] == [Framing.NONE, Framing.TUNNEL]


def test_a_refused_connect_goes_on_as_http() -> None:
    found = bodies((0, get("host:443", "CONNECT")), (1, answer(b"no", status=407)), (0, get()), (1, answer(b"yes")))
    assert found == [(407, b"no", ""), (200, b"yes", "")]


def test_chunked_wins_over_a_length_and_ends_exactly() -> None:
    both = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    found = bodies((0, get() + get()), (1, both + chunk(b"hello") + b"0\r\nT: v\r\n\r\n" + answer(b"next")))
    assert found == [(200, b"hello", ""), (200, b"next", "")]


def test_close_delimited_bodies_end_with_the_connection() -> None:
    events = ((0, get()), (1, b"HTTP/1.0 200 OK\r\n\r\npart"), (1, b" two"))
    assert bodies(*events) == [(200, b"part two", "")]
    notes, connection = talk(*events, end=False)
    connection.end(9.0, over=0)
    assert notes.responses[0].reason == "cut"


def test_bare_line_feeds_and_empty_lines_between_messages() -> None:
    found = bodies(
        (0, b"\r\n\nGET / HTTP/1.0\nHost: x\n\n"), (1, b"HTTP/1.0 200 OK\nContent-Length: 2\n\nok\r\n" + answer(b"z"))
    )
    assert found == [(200, b"ok", ""), (200, b"z", "")]


@pytest.mark.parametrize(
    ("block", "method", "uri"),
    [
        (b"CCM_POST /x HTTP/1.1\r\nHost: a\r\n\r\n", b"CCM_POST", b"/x"),
        (b"GET /a b c HTTP/1.1\r\nHost: a\r\n\r\n", b"GET", b"/a b c"),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost : a\r\nno colon\r\n\r\n", b"GET", b"/\xc3\xa9"),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"GET", b"/"),
    ],
)
def test_heads_that_strict_parsers_refuse_are_read(block: bytes, method: bytes, uri: bytes) -> None:
    notes, _ = talk((0, block + get("/after")))
    assert [each.start for each in notes.requests] == [(method, uri), (b"GET", b"/after")]


def test_a_response_whose_request_was_not_captured() -> None:
    notes, _ = talk((1, answer(b"x")), (0, get("/2")), (1, answer(b"y")), roles_known=False)
    assert notes.pairs == [(b"", 200), (b"/2", 200)]


def test_roles_come_from_content_when_the_handshake_was_missed() -> None:
    notes, connection = talk((0, answer(b"x")), (1, get("/2")), (0, answer(b"y")), roles_known=False)
    assert connection.client_direction() == 1
    assert notes.pairs == [(b"", 200), (b"/2", 200)]


def test_joined_in_the_middle_of_a_body() -> None:
    notes, _ = talk(
        (0, b"tail of a body\r\n\r\n\xff\x00" + answer(b"x")[:20]), (0, answer(b"x")[20:]), roles_known=False
    )
    assert notes.responses[0].body == b"x"
    notes, _ = talk((0, b"a=1&b=2" + get("/next")), (1, answer(b"z")), roles_known=False)
    assert notes.pairs == [(b"/next", 200)]


@pytest.mark.parametrize(
    "first",
    [
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-x\r\n",
        b"USER me\r\n",
        b"GET /old\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"OPTIONS x SIP/2.0\r\n",
    ],
)
def test_other_protocols_are_given_up_at_their_first_line(first: bytes) -> None:
    notes, connection = talk((0, first), end=False)
    assert not connection.wanted
    assert notes.recognitions == 0


def test_other_protocols_joined_midstream_need_both_directions() -> None:
    _, connection = talk((0, b"\x17\x03\x03"), roles_known=False, end=False)
    assert connection.wanted
    connection.data(1, 1.0, b"\x17\x03\x03")
    assert not connection.wanted


def test_a_silent_client_does_not_keep_a_connection_for_long() -> None:
    for roles_known, bound in ((True, BANNER_BYTES), (False, SEARCH_BYTES)):
        _, connection = talk((1, b"\x01" * bound), roles_known=roles_known, end=False)
        assert connection.wanted
        connection.data(1, 1.0, bytes(8192 * 2))
        assert not connection.wanted


def test_a_request_to_a_server_that_speaks_something_else() -> None:
    notes, connection = talk((1, b"SSH-2.0-OpenSSH\r\n"), (0, get("/")), (1, b"Invalid\r\n"), end=False)
    assert connection.wanted
    connection.data(1, 5.0, b"\xaa" * (SEARCH_BYTES + 100))
    assert not connection.wanted
    connection.end(6.0)
    assert (notes.pairs, notes.malformed_count) == ([(b"/", 0)], 1)


def test_a_refused_connection_reports_nothing_more() -> None:
    notes, connection = talk((0, get()), (1, answer(b"x")), accept=False)
    assert not connection.wanted
    assert notes.messages == []


def test_header_blocks_are_bounded() -> None:
    limits = CaptureLimits(header_bytes=1_000)
    notes, _ = talk(
        (0, get("/1")),
        (1, b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300),
        (1, b"\r\n"),
        (0, get("/2")),
        (1, answer(b"z")),
        limits=limits,
    )
    assert notes.pairs == [(b"/1", 0), (b"/2", 200)]


def test_requests_that_nobody_answers_do_not_pile_up() -> None:
    notes, _ = talk((0, get() * (PENDING_REQUESTS + 5)), end=False)
    assert notes.unanswered_count == 5


def test_a_hole_in_a_body_of_known_length() -> None:
    found = bodies((0, get() + get()), (1, answer(b"0123", length=10)), (1, 3), (1, b"789" + answer(b"next")))
    assert found == [(200, b"0123789", "gap"), (200, b"next", "")]
    assert bodies((0, get() + get()), (1, answer(b"01", length=5)), (1, 3), (1, answer(b"n"))) == [
        (200, b"01", "gap"),
        (200, b"n", ""),
    ]


def test_a_hole_over_the_end_of_a_body_loses_the_messages_in_it() -> None:
    notes, _ = talk(
        (0, get("/1")),
        (1, answer(b"0123", length=10)),
        (1, 60),
        (0, get("/2")),
        (0, get("/3")),
        (1, b"junk" + answer(b"3")),
    )
    assert [each.body for each in notes.responses] == [b"0123", b"3"]
    assert notes.pairs[0] == (b"/1", 200)


def test_a_response_after_a_lost_one_belongs_to_a_request_after_the_hole() -> None:
    notes, _ = talk((0, get("/1")), (1, 500), (0, get("/2")), (1, answer(b"2")))
    assert notes.pairs == [(b"/1", 0), (b"/2", 200)]


def test_holes_in_chunked_bodies() -> None:
    start = CHUNKED + b"a\r\n01"
    found = bodies((0, get() + get()), (1, start), (1, 5), (1, b"789\r\n0\r\n\r\n" + answer(b"n")))
    assert found == [(200, b"01789", "gap"), (200, b"n", "")]
    found = bodies((0, get() + get()), (1, start), (1, 50), (1, b"tail\r\n0\r\n\r\n" + answer(b"n")))
    assert found == [(200, b"01", "gap"), (200, b"n", "")]


def test_a_hole_in_a_close_delimited_body() -> None:
    assert bodies((0, get()), (1, b"HTTP/1.0 200 OK\r\n\r\nab"), (1, 5), (1, b"cd")) == [(200, b"abcd", "gap")]


def test_a_hole_in_a_header_block() -> None:
    notes, _ = talk(
        (0, get("/1")), (1, b"HTTP/1.1 200 OK\r\nConte"), (1, 40), (1, b"body"), (0, get("/2")), (1, answer(b"x"))
    )
    assert notes.pairs == [(b"/1", 0), (b"/2", 200)]


def test_a_hole_before_the_first_byte() -> None:
    notes, _ = talk((0, 10), (0, b"x: y\r\n\r\n" + get("/2")), (1, 7), (1, b"zz" + answer(b"x")))
    assert notes.pairs == [(b"/2", 200)]


def test_bodies_cut_by_the_end() -> None:
    assert bodies((0, get()), (1, answer(b"01", length=5))) == [(200, b"01", "cut")]
    assert bodies((0, get()), (1, CHUNKED + b"5\r\nab")) == [(200, b"ab", "cut")]
    assert bodies((0, get()), (1, CHUNKED + chunk(b"ab") + b"0\r\n")) == [(200, b"ab", "")]


def test_broken_chunking_ends_the_body_and_later_messages_are_found() -> None:
    found = bodies((0, get() + get()), (1, CHUNKED + chunk(b"ab") + b"not a size\r\n" + answer(b"n")))
    assert found == [(200, b"ab", "decode"), (200, b"n", "")]


def test_classify_is_open_for_every_prefix_and_quick_to_refuse() -> None:
    for line, kind in ((b"GET /x?y=z HTTP/1.1\r\n", Start.REQUEST), (b"HTTP/1.1 200 OK\r\n", Start.RESPONSE)):
        assert [classify(line[:size]) for size in range(len(line))] == [Start.OPEN] * len(line)
        assert classify(line) is kind
    for other in (b"\x00", b"get", b"HTTP/2", b"HTTP/1.1 2000 \r\n", b"GET" + b" " * 60_000 + b"\n", b"A\n"):
        assert classify(other) is Start.NEITHER


@given(st.binary(max_size=30), st.integers(0, 80))
def test_a_start_is_found_wherever_it_lies(junk: bytes, cut: int) -> None:
    for message in (get("/q"), answer(b"x")):
        data = junk + message
        keep, kind = find_start(data[:cut], 0, requests=True, responses=True)
        rest, kind = find_start(data[keep:], 0, requests=True, responses=True)
        assert kind is not Start.OPEN
        assert keep + rest <= len(junk)


CONVERSATION: list[tuple[int, bytes]] = [
    (0, get("/1") + get("/2", "HEAD")),
    (1, answer(b"body one") + answer(length=77)),
    (
        0,
        b"POST /3 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunk(b"abc")
        + chunk(b"HTTP/1.1 200")
        + b"0\r\n\r\n",
    ),
    (1, b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED + chunk(b"x" * 20) + b"0\r\nTrailer: 1\r\n\r\n"),
    (0, b"PUT /4 HTTP/1.1\r\nContent-Length: 9\r\n\r\n123456789"),
    (1, b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    (0, get("/5")),
    (1, b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nuntil the end"),
]


@given(st.data(), st.booleans())
def test_any_cut_of_a_conversation_gives_the_same(data: st.DataObject, roles_known: bool) -> None:
    events: list[Event] = []
    for direction, said in CONVERSATION:
        cuts = sorted(data.draw(st.lists(st.integers(1, len(said) - 1), max_size=6, unique=True)))
        events += [(direction, said[a:b]) for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True)]
    whole, _ = talk(*CONVERSATION)
    parts, _ = talk(*events, roles_known=roles_known)
    assert parts.messages == whole.messages
    assert parts.pairs == whole.pairs == [(b"/1", 200), (b"/2", 200), (b"/3", 200), (b"/4", 304), (b"/5", 200)]


@given(st.integers(0, 1), st.integers(0, 400), st.integers(1, 300))
def test_a_hole_anywhere_never_raises_and_the_next_exchange_is_found(side: int, at: int, length: int) -> None:
    events: list[Event] = []
    position = 0
    for direction, said in CONVERSATION[:6]:
        if direction != side:
            events.append((direction, said))
            continue
        first, last = (min(len(said), max(0, edge - position)) for edge in (at, at + length))
        events += [each for each in ((side, said[:first]), (side, last - first), (side, said[last:])) if each[1]]
        position += len(said)
    notes, connection = talk(*events, (0, get("/last")), (1, answer(b"the last body")), end=False)
    if connection.wanted and notes.responses:
        connection.end(99.0)
        assert all(each.reason is not None for each in notes.messages if each.framing is not Framing.NONE)
    if side == 0:
        assert notes.responses[-1].body in (b"the last body", b"")


@given(st.lists(st.tuples(st.integers(0, 1), st.one_of(st.binary(max_size=80), st.integers(1, 50)))), st.booleans())
def test_random_events_never_raise(events: list[Event], roles_known: bool) -> None:
    talk(*events, roles_known=roles_known)
    talk((0, get()), (1, CHUNKED), *events, roles_known=roles_known)
    talk((0, get()), (1, answer(length=40)), *events, roles_known=roles_known)


@pytest.mark.parametrize("target", [b"/a\x08b", b"/a\0", b"/\x7f"])
def test_a_request_that_is_none_does_not_hold_the_search(target: bytes) -> None:
    broken = b"\xff" * 50 + b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n"
    notes, _ = talk((0, get("/a")), (1, answer(b"x")), (0, broken), (0, b"more " + get("/b")))
    assert [each.start[1] for each in notes.requests] == [b"/a", b"/b"]
