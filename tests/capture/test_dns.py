"""DNS: datagrams and streams to messages; broken input; the shared captures against what others found in them."""

from __future__ import annotations

import json
import struct
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.capture.applications.dns import DNS_PORTS, DnsAnswer, DnsMessage, DnsQuestion, DnsReader, DnsStream
from engine.capture.applications.dns_text import document, resource
from engine.capture.batches import EventKind
from engine.values.config import CaptureLimits
from engine.values.stats import DnsStats
from tests.capture.datagrams import datagrams
from tests.capture.packets import run

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
CAPTURES = sorted((SHARED / "pcap").glob("*"))
WWW = b"\3www\7example\3com\0"
POINTER = b"\xc0\x0c"


def head(questions: int = 1, answers: int = 0, flags: int = 0x8180, number: int = 7) -> bytes:
    return struct.pack(">HHHHHH", number, flags, questions, answers, 0, 1)


def ask(name: bytes = WWW, rdtype: int = 1) -> bytes:
    return name + struct.pack(">HH", rdtype, 1)


def record(rdtype: int, data: bytes, name: bytes = POINTER, rdclass: int = 1) -> bytes:
    return name + struct.pack(">HHIH", rdtype, rdclass, 300, len(data)) + data


def read(data: bytes, **limits: int) -> tuple[DnsMessage | None, DnsStats]:
    reader = DnsReader(CaptureLimits(**limits))  # type: ignore[arg-type]
    return reader.datagram(data), reader.stats()


def data_of(rdtype: int, data: bytes) -> str:
    message, _ = read(head(1, 1) + ask() + record(rdtype, data))
    assert message is not None
    return message.answers[0].data


def test_a_query_and_its_response() -> None:
    query, _ = read(head(flags=0x0100) + ask())
    assert query == DnsMessage(
        id=7,
        is_response=False,
        flags=0x0100,
        rcode=0,
        truncated=False,
        questions=(DnsQuestion("www.example.com", "A"),),
        answers=(),
        whole=True,
        answer_count=0,
        authority_count=0,
        additional_count=1,
    )
    response, stats = read(head(1, 2) + ask() + record(5, b"\3web" + b"\xc0\x10") + record(1, b"\1\2\3\4"))
    assert response is not None
    assert response.is_response
    assert response.whole
    assert response.answers == (
        DnsAnswer("www.example.com", "CNAME", "web.example.com", 300),
        DnsAnswer("www.example.com", "A", "1.2.3.4", 300),
    )
    assert stats == DnsStats(responses=1)


@pytest.mark.parametrize(
    ("rdtype", "data", "text"),
    [
        (1, b"\xc0\0\2\1", "192.0.2.1"),
        (28, b"\x20\1" + bytes(13) + b"\1", "2001::1"),
        (2, POINTER, "www.example.com"),
        (12, b"\0", "."),
        (15, b"\0\5" + POINTER, "5 www.example.com"),
        (15, b"\0\0\0", "0 ."),
        (33, b"\0\1\0\2\0\3" + POINTER, "1 2 3 www.example.com"),
        (16, b'\3a b\1"', '"a b" "\\""'),
        (6, POINTER + b"\1x\0" + struct.pack(">IIIII", 1, 2, 3, 4, 5), "www.example.com. x. 1 2 3 4 5"),
        (43, b"\0\1\5\1" + b"\xab" * 20, "1 5 1 " + "ab" * 20),
        (43, b"\0\1\5\1\xab", "\\# 5 00010501ab"),
        (5, b"\xc0\xff", "\\# 2 c0ff"),
        (10, b"\1\2", "\\# 2 0102"),
        (10, b"", "\\# 0"),
        (4711, b"\xff", "\\# 1 ff"),
        (55, b"\0" * 40, "\\# 40 " + "00" * 40),
        (16, b"\xff" + bytes(255) + b"\xff" + bytes(255) + b"\xff" + bytes(255), "\\# 768 " + ("ff" + "00" * 255) * 3),
    ],
)
def test_record_data_as_text(rdtype: int, data: bytes, text: str) -> None:
    assert data_of(rdtype, data) == text


def test_types_have_names() -> None:
    numbers = {1: "A", 28: "AAAA", 65: "HTTPS", 255: "ANY", 23: "NSAP-PTR", 4711: "TYPE4711", 65535: "TYPE65535"}
    for number, name in numbers.items():
        message, _ = read(head() + ask(rdtype=number))
        assert message is not None
        assert message.questions[0].type == name


def test_odd_bytes_in_names_are_escaped() -> None:
    message, _ = read(head() + ask(b"\4a.b \2\xff\0\0"))
    assert message is not None
    assert message.questions[0].name == "a\\.b\\032.\\255\\000"


def test_the_root_has_an_empty_name() -> None:
    message, _ = read(head() + ask(b"\0"))
    assert message is not None
    assert message.questions[0].name == ""


def test_multicast_class_bits_do_no_harm() -> None:
    message, _ = read(head(0, 1) + record(1, b"\1\2\3\4", name=WWW, rdclass=0x8001))
    assert message is not None
    assert message.answers == (DnsAnswer("www.example.com", "A", "1.2.3.4", 300),)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        head()[:11],
        head(),
        head() + WWW,
        head() + b"\xc0\x0c\0\1\0\1",
        head() + b"\xc0\x1e\0\1\0\1",
        head() + b"\x80\0\0\1\0\1",
        head() + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1",
    ],
)
def test_without_its_questions_it_is_no_message(data: bytes) -> None:
    assert read(data) == (None, DnsStats(malformed=1))


def test_an_answer_with_broken_data_does_not_end_the_message() -> None:
    message, stats = read(head(1, 3) + ask() + record(5, b"\xc0\xff") + record(1, b"123") + record(1, b"\1\2\3\4"))
    assert message is not None
    assert [each.data for each in message.answers] == ["\\# 2 c0ff", "\\# 3 313233", "1.2.3.4"]
    assert message.whole
    assert stats == DnsStats(responses=1, malformed=1)


@pytest.mark.parametrize("rest", [b"", b"\xc0", record(5, POINTER, b"\xc0\xff"), record(1, b"1234")[:-1]])
def test_what_stands_before_a_broken_answer_is_kept(rest: bytes) -> None:
    good = head(1, 2) + ask() + record(1, b"1234")
    message, stats = read(good + rest)
    assert message is not None
    assert [each.data for each in message.answers] == ["49.50.51.52"]
    assert not message.whole
    assert stats == DnsStats(responses=1, malformed=1)


def test_truncated_by_its_sender_is_not_malformed() -> None:
    message, stats = read(head(1, 2, flags=0x8380) + ask())
    assert message is not None
    assert message.truncated
    assert not message.whole
    assert stats == DnsStats(responses=1, cut=1)


def test_limits_cut_and_are_counted() -> None:
    message, stats = read(head(1, 9) + ask() + record(1, b"1234") * 9, dns_answers=4)
    assert message is not None
    assert (len(message.answers), message.answer_count, message.whole) == (4, 9, False)
    assert stats == DnsStats(responses=1, cut=1)
    message, stats = read(head(3, 1) + ask() * 3 + record(1, b"1234"), dns_questions=2)
    assert message is not None
    assert (len(message.questions), len(message.answers)) == (2, 0)
    assert stats == DnsStats(responses=1, cut=1)


def test_the_text_of_one_message_is_bounded() -> None:
    name = b"\1a" * 126 + b"\0"
    answers = b"".join(record(1, b"1234", struct.pack(">H", 0xC00C + 2 * each)) for each in range(120))
    message, stats = read(head(1, 120) + ask(name) + answers)
    assert message is not None
    assert 10 < len(message.answers) < 40
    assert stats.cut == 1
    strings = record(16, bytes(600))
    message, _ = read(head(1, 99) + ask() + strings * 99)
    assert message is not None
    assert len(message.answers) < 10


# Streams.


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack(">H", len(each)) + each for each in messages)


QUERY = head(flags=0x0100) + ask()
ANSWER = head(1, 1) + ask() + record(1, b"1234")


@pytest.mark.parametrize("size", [1, 2, 3, 29, 30, 1000])
def test_messages_of_a_stream_in_pieces(size: int) -> None:
    reader = DnsReader(CaptureLimits())
    stream = DnsStream(reader)
    data = framed(QUERY, ANSWER, QUERY)
    messages = [each for at in range(0, len(data), size) for each in stream.data(data[at : at + size])]
    assert [each.is_response for each in messages] == [False, True, False]
    assert stream.wanted
    assert reader.stats() == DnsStats(queries=2, responses=1)


def test_a_stream_that_is_no_dns_is_given_up() -> None:
    reader = DnsReader(CaptureLimits())
    stream = DnsStream(reader)
    assert stream.data(b"\0\5GET / HTTP") == []
    assert not stream.wanted
    assert stream.data(framed(QUERY)) == []
    assert reader.stats() == DnsStats(malformed=1)


def test_a_hole_inside_one_message_costs_that_one() -> None:
    reader = DnsReader(CaptureLimits())
    stream = DnsStream(reader)
    data = framed(QUERY, ANSWER)
    assert stream.data(data[:10]) == []
    stream.gap(5)
    assert stream.data(data[15:20]) == []
    stream.gap(3)
    assert [each.is_response for each in stream.data(data[23:])] == [True]
    assert stream.wanted
    assert reader.stats() == DnsStats(responses=1, gaps=1)


@pytest.mark.parametrize("before", [0, 1, 10])
def test_a_hole_across_messages_ends_a_stream(before: int) -> None:
    stream = DnsStream(DnsReader(CaptureLimits()))
    stream.data(framed(QUERY)[:before])
    stream.gap(100)
    assert not stream.wanted


# Texts.


def test_texts_of_a_response() -> None:
    message, _ = read(head(1, 2) + ask() + record(5, b"\3web" + b"\xc0\x10") + record(1, b"\1\2\3\4"))
    assert message is not None
    assert resource(message) == (
        "www.example.com",
        "www.example.com CNAME  web.example.com\nwww.example.com A  1.2.3.4",
    )
    assert document(message) == (
        "RESPONSE\tID: 7\tFlags:0x8180\tQuestions: 1\tAnswers: 2\tAuthority: 0\tAdditional: 1\n"
        "Questions\n.www.example.com\t\tA\tIN\n"
        "Answers\n.www.example.com\t\tCNAME\tIN\t300\tweb.example.com\n.www.example.com\t\tA\tIN\t300\t1.2.3.4\n"
    )


def test_texts_of_a_query_and_of_an_announcement() -> None:
    query, _ = read(QUERY)
    assert query is not None
    assert resource(query) is None
    assert document(query).startswith("QUERY\tID: 7\tFlags:0x0100\t")
    announced, _ = read(head(0, 1) + record(1, b"1234", name=WWW.swapcase()))
    assert announced is not None
    assert resource(announced) == ("www.example.com", "WWW.EXAMPLE.COM A  49.50.51.52")
    empty, _ = read(head(0, 0))
    assert empty is not None
    assert resource(empty) is None


# Any bytes.


@given(st.binary(max_size=600))
def test_any_bytes_raise_nothing(data: bytes) -> None:
    message, stats = read(data)
    assert stats.malformed == 1 or message is not None
    if message is not None:
        document(message)
        resource(message)


REAL = [
    each.data for path in CAPTURES for each in datagrams(path) if DNS_PORTS.keys() & {each.source, each.target}
] or [QUERY, ANSWER]


@given(st.sampled_from(REAL), st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=8), st.data())
def test_mutated_messages_raise_nothing(message: bytes, changes: list[tuple[int, int]], draw: st.DataObject) -> None:
    data = bytearray(message)
    for at, value in changes:
        if at < len(data):
            data[at] = value
    del data[draw.draw(st.integers(0, len(data))) :]
    _, stats = read(bytes(data))
    assert stats.malformed <= 1


@given(
    st.lists(st.sampled_from([QUERY, ANSWER, head(), ANSWER[:-2], b"", b"x" * 30]), max_size=5),
    st.binary(max_size=20),
    st.lists(st.integers(1, 60), max_size=20),
)
def test_any_split_of_a_stream_gives_the_same(messages: list[bytes], rest: bytes, sizes: list[int]) -> None:
    data = framed(*messages) + rest
    results = []
    for split in ([], sizes):
        reader = DnsReader(CaptureLimits())
        stream, found, at = DnsStream(reader), [], 0
        for size in [*split, len(data)]:
            found += stream.data(data[at : at + size])
            at += size
        results.append((found, reader.stats(), stream.wanted))
    assert results[0] == results[1]


# Real captures.


def _messages(path: Path) -> list[tuple[str, DnsMessage]]:
    reader = DnsReader(CaptureLimits())
    found: list[tuple[str, DnsMessage]] = []
    for datagram in datagrams(path):
        via = DNS_PORTS.get(datagram.source) or DNS_PORTS.get(datagram.target)
        message = reader.datagram(datagram.data) if via else None
        if via and message is not None:
            found.append((via, message))
    streams: dict[tuple[int, int], DnsStream] = {}
    decoded = run(path)
    for event in decoded.events:
        if event.kind == EventKind.DATA and b":p-0035" in decoded.keys[event.stream]:
            stream = streams.setdefault((event.stream, event.direction), DnsStream(reader))
            found += [("dns", message) for message in stream.data(event.data)]
    assert reader.stats().malformed == 0
    return found


def _questions(messages: list[tuple[str, DnsMessage]], *, in_responses: bool) -> Counter[tuple[str, str, str]]:
    return Counter(
        (via, each.name.lower(), each.type)
        for via, message in messages
        if message.is_response is in_responses
        for each in message.questions
    )


@pytest.mark.skipif(not CAPTURES, reason="shared captures are not here")
@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_shared_captures(path: Path) -> None:
    expected = json.loads((SHARED / "expected" / f"{path.name.split('.')[0]}.json").read_text())
    messages = _messages(path)
    for key, in_responses in (("dns", False), ("dns_answered", True)):
        rows = Counter({(row.get("via", "dns"), row["name"], row["type"]): row["n"] for row in expected.get(key, [])})
        assert _questions(messages, in_responses=in_responses) == rows
    assert all(message.whole or message.truncated for _, message in messages)
