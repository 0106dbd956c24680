"""TLS connections: records, hellos and chains in any pieces; when reading stops; the shared captures."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.capture.applications.tls import (
    MOST_MESSAGES,
    MOST_RECORDS,
    OPAQUE_BYTES,
    TlsConnection,
    TlsReader,
    TlsRecord,
)
from engine.capture.applications.tls_hello import Chain, ClientHello, ServerHello
from engine.capture.applications.tls_text import attributes, document, resource
from engine.capture.batches import EventKind
from engine.values.config import CaptureLimits
from engine.values.stats import TlsStats
from tests.capture.packets import run
from tests.capture.tls_talk import (
    CHANGE,
    CLIENT,
    DATA,
    RETRY,
    SERVER,
    Talk,
    chain_body,
    client_body,
    message,
    record,
    server_body,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
CAPTURES = sorted((SHARED / "pcap").glob("*"))
CHAIN = message(11, chain_body(b"first", b"second"))
DONE = message(14)


def test_a_whole_handshake() -> None:
    talk = Talk(records=True)
    talk.say(0, record(CLIENT, version=0x0301)).say(1, record(SERVER), record(CHAIN), record(DONE))
    assert talk.connection.is_recognised
    talk.say(0, record(message(16, b"key")), CHANGE, record(b"encrypted" * 4))
    assert talk.connection.wanted
    talk.say(1, CHANGE, record(b"encrypted" * 4))
    assert not talk.connection.wanted
    talk.say(0, DATA).say(1, DATA)
    told = [(direction, type(each)) for direction, each in talk.events]
    assert told == [
        *((0, kind) for kind in (TlsRecord, ClientHello)),
        *((1, kind) for kind in (TlsRecord, ServerHello, TlsRecord, Chain, TlsRecord)),
        *((0, kind) for kind in (TlsRecord, TlsRecord)),
        (1, TlsRecord),
    ]
    assert talk.records[0] == record(CLIENT, version=0x0301)
    assert talk.stats() == TlsStats(connections=1, client_hellos=1, server_hellos=1, chains=1)


def test_one_record_is_told_for_each_handshake_message() -> None:
    talk = Talk(records=True).say(1, record(SERVER + CHAIN + DONE))
    assert talk.records == [record(SERVER), record(CHAIN), record(DONE)]
    for each in talk.records:
        assert int.from_bytes(each[6:9]) == len(each) - 9  # what scripts check
    spread = Talk(records=True).say(1, *(record(CHAIN[at : at + 3]) for at in range(0, len(CHAIN), 3)))
    assert spread.records == [record(CHAIN)]
    assert spread.kinds == ["TlsRecord", "Chain"]


def test_alerts_are_told_and_application_data_is_not() -> None:
    talk = Talk(records=True).say(0, record(CLIENT), record(b"\2\x28", 21), DATA)
    assert talk.records == [record(CLIENT), record(b"\2\x28", 21)]


def test_without_records_only_what_they_hold_is_told() -> None:
    assert Talk().say(0, record(CLIENT), CHANGE).kinds == ["ClientHello"]


def test_a_tls_1_3_handshake_ends_at_its_encrypted_part() -> None:
    talk = Talk().say(0, record(CLIENT)).say(1, record(SERVER), CHANGE, DATA)
    assert talk.connection.wanted
    talk.say(0, CHANGE)
    assert not talk.connection.wanted


def test_a_retried_hello_is_read() -> None:
    talk = Talk().say(0, record(CLIENT)).say(1, record(RETRY), CHANGE).say(0, CHANGE, record(CLIENT), DATA)
    talk.say(1, record(SERVER), DATA)
    assert talk.kinds == ["ClientHello", "ServerHello", "ClientHello", "ServerHello"]
    assert [each.is_retry for _, each in talk.events if isinstance(each, ServerHello)] == [True, False]
    assert not talk.connection.wanted


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1", b"220 ready", b"\x16\2\0\0\5\1", b"\x16\3\1\0\5\x63", b"\x17\3\3\xff\xff\0", b"\0"]
)
def test_what_does_not_begin_like_tls_is_left_at_once(data: bytes) -> None:
    talk = Talk().say(0, data)
    assert not talk.connection.wanted
    assert not talk.connection.is_recognised
    assert talk.say(0, record(CLIENT)).events == []
    assert talk.stats() == TlsStats()


def test_a_connection_joined_in_its_encrypted_part_is_left() -> None:
    talk = Talk().say(0, DATA)
    assert talk.connection.wanted
    talk.say(1, DATA)
    assert not talk.connection.wanted
    assert talk.connection.is_recognised


def test_one_encrypted_direction_is_not_waited_with_for_ever() -> None:
    talk = Talk().say(0, record(CLIENT), CHANGE)
    talk.say(0, bytes(OPAQUE_BYTES))
    assert talk.connection.wanted
    talk.say(0, b"x")
    assert not talk.connection.wanted


@pytest.mark.parametrize("bad", [b"\x16\2\0\0\5xxxxx", b"\x16\3\1\xff\xff", b"HTTP/1.1 200"])
def test_a_direction_that_turns_out_not_to_be_tls_is_counted(bad: bytes) -> None:
    talk = Talk().say(0, record(CLIENT), bad).say(1, record(SERVER))
    assert talk.kinds == ["ClientHello", "ServerHello"]
    assert talk.stats().malformed == 1
    assert talk.say(0, record(CLIENT)).kinds == ["ClientHello", "ServerHello"]


@pytest.mark.parametrize(
    "broken",
    [
        message(1, b""),
        message(1, client_body()[:-3]),
        message(2, server_body()[:20]),
        message(11, b"\0\0\5\0\0\4"),
        message(11, b""),
    ],
)
def test_a_broken_message_does_not_end_the_handshake(broken: bytes) -> None:
    talk = Talk().say(0, record(broken + CLIENT))
    assert talk.kinds == ["ClientHello"]
    assert talk.stats().malformed == 1


def test_a_hole_in_a_handshake_ends_its_direction() -> None:
    talk = Talk().say(1, record(SERVER)[:20]).gap(1, 10).say(1, record(CHAIN)).say(0, record(CLIENT))
    assert talk.kinds == ["ClientHello"]
    assert talk.stats().gaps == 1
    assert talk.connection.wanted
    talk.gap(0, 1)
    assert not talk.connection.wanted
    assert talk.gap(0, 1).stats().gaps == 2


def test_a_message_over_the_limit_is_stepped_over() -> None:
    big = message(11, chain_body(bytes(30_000)))
    pieces = [record(big[at : at + 16_000]) for at in range(0, len(big), 16_000)]
    talk = Talk(records=True, tls_handshake_bytes=1_000).say(1, record(SERVER), *pieces, record(DONE))
    assert talk.records == [record(SERVER), record(DONE)]
    assert talk.stats() == TlsStats(connections=1, server_hellos=1, oversized=1)


def test_what_is_held_is_bounded() -> None:
    talk = Talk()
    talk.say(1, record(message(11, bytes(60_000))[:16_000]))
    for _ in range(100):
        talk.say(1, record(bytes(16_000))[:-1])
        side = talk.connection._sides[1]
        assert len(side.buffer) <= 18_437
        assert len(side.message) <= 65_535


def test_certificates_over_the_limit_are_left_out() -> None:
    talk = Talk(tls_certificates=2).say(1, record(message(11, chain_body(b"1", b"2", b"3"))))
    assert [each for _, each in talk.events] == [Chain((b"1", b"2"), whole=False)]
    assert talk.stats().cut == 1


def test_records_and_messages_of_a_direction_are_limited() -> None:
    talk = Talk().say(0, record(b"\1\0", 21) * MOST_RECORDS, record(CLIENT))
    assert talk.events == []
    assert talk.stats().malformed == 1
    talk = Talk().say(0, record(DONE * MOST_MESSAGES + CLIENT))
    assert talk.events == []
    assert talk.stats().malformed == 1
    talk = Talk().say(0, record(DONE * (MOST_MESSAGES - 1) + CLIENT))
    assert talk.kinds == ["ClientHello"]


# Any bytes, any pieces.

_MESSAGES = st.sampled_from([CLIENT, SERVER, RETRY, CHAIN, DONE, message(1), message(2, bytes(9)), CLIENT[:-5]])
_RECORDS = st.one_of(
    st.lists(_MESSAGES, min_size=1, max_size=3).map(lambda each: record(b"".join(each))),
    st.lists(_MESSAGES, min_size=1, max_size=3).map(
        lambda each: b"".join(record(b"".join(each)[at : at + 7]) for at in range(0, len(b"".join(each)), 7))
    ),
    st.sampled_from([CHANGE, DATA, record(b"\1\0", 21), record(b"x" * 40), b"\x16\3", b"plain", record(b"", 22)]),
)
_SIDE = st.lists(_RECORDS, max_size=6).map(b"".join)


def _outcome(talk: Talk) -> tuple[object, ...]:
    return talk.events, talk.stats(), talk.connection.wanted, talk.connection.is_recognised


@given(_SIDE, _SIDE, st.lists(st.integers(1, 50), max_size=20), st.sampled_from([65_535, 60]))
def test_any_split_gives_the_same(client: bytes, server: bytes, sizes: list[int], limit: int) -> None:
    whole, split = (Talk(records=True, tls_handshake_bytes=limit) for _ in range(2))
    for direction, data in ((0, client), (1, server)):
        whole.say(direction, data)
        split.say(direction, data, sizes=sizes)
    assert _outcome(whole) == _outcome(split)


@given(st.lists(st.tuples(st.integers(0, 1), st.binary(max_size=200))))
def test_any_bytes_raise_nothing(pieces: list[tuple[int, bytes]]) -> None:
    talk = Talk()
    for direction, data in pieces:
        talk.say(direction, data)


def _streams(path: Path) -> list[list[tuple[int, bytes]]]:
    streams: dict[int, list[tuple[int, bytes]]] = {}
    for event in run(path).events:
        if event.kind == EventKind.DATA:
            streams.setdefault(event.stream, []).append((event.direction, event.data))
    return list(streams.values())


REAL = [
    stream
    for path in CAPTURES
    if path.name in ("trisul-tutorial1.pcap", "raw-ip-tls.pcap")
    for stream in _streams(path)
    if stream[0][1][:2] == b"\x16\3"
] or [[(0, record(CLIENT)), (1, record(SERVER + CHAIN))]]


@given(
    st.sampled_from(REAL),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4000), st.integers(0, 255)), max_size=8),
)
def test_mutated_handshakes_raise_nothing(stream: list[tuple[int, bytes]], changes: list[tuple[int, int, int]]) -> None:
    pieces = [(direction, bytearray(data)) for direction, data in stream]
    for index, at, value in changes:
        if index < len(pieces) and at < len(pieces[index][1]):
            pieces[index][1][at] = value
    talk = Talk(records=True)
    for direction, data in pieces:
        talk.say(direction, bytes(data))
    for _, event in talk.events:
        attributes(event)
        if isinstance(event, Chain):
            resource(event)
            document(event)


# Real captures.


@pytest.mark.skipif(not CAPTURES, reason="shared captures are not here")
@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_shared_captures(path: Path) -> None:
    expected = json.loads((SHARED / "expected" / f"{path.name.split('.')[0]}.json").read_text())
    reader = TlsReader(CaptureLimits())
    connections: dict[int, TlsConnection] = {}
    names: Counter[str] = Counter()
    for event in run(path).events:
        if event.kind == EventKind.OPEN:
            connections[event.stream] = reader.open()
        elif event.kind == EventKind.GAP:
            connections[event.stream].gap(event.direction, event.length)
        elif event.kind == EventKind.DATA:
            for found in connections[event.stream].data(event.direction, event.data):
                if isinstance(found, ClientHello) and found.server_name:
                    names[found.server_name] += 1
    assert names == {row["name"]: row["n"] for row in expected.get("sni", [])}
    assert reader.stats().malformed == 0
    assert not any(each.wanted for each in connections.values() if each.is_recognised)
