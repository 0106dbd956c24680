"""DNS messages (RFC 1035), mDNS (RFC 6762) and LLMNR (RFC 4795): from datagrams, or a TCP stream, to plain values.

Names and record data are dnspython's to read; header, counts and bounds are ours. Raises nothing for what bytes hold.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Final

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.wire

from engine.values.config import CaptureLimits
from engine.values.records import DnsAnswer, DnsQuestion
from engine.values.stats import DnsStats

DNS_PORTS: Final = {53: "dns", 5353: "mdns", 5355: "llmnr"}
"""Ports that speak DNS, and what it is called there."""

TEXT_CHARS: Final = 4_096
"""Characters of names and record data made of one message, repeated names counted once; behind it the answers are cut.

This bounds the time that a message takes to about 10 ms. A name or a record's data counts as `LEAST_CHARS` at least, as
it may be a chain of pointers, and data as two for each byte, as it may be a thousand empty strings.
"""

LEAST_CHARS: Final = 32
DATA_BYTES: Final = 640
"""Record data longer than this is given as hex (RFC 3597), not in the text form of its type."""

_HEADER: Final = struct.Struct(">HHHHHH")
_RECORD: Final = struct.Struct(">HHIH")
_IN: Final = dns.rdataclass.IN
_NAME_TYPES: Final = frozenset(map(dns.rdatatype.from_text, ("NS", "CNAME", "PTR", "DNAME", "MX", "SRV")))
# A closed set: dnspython looks for a module for each type and class it has not met, and remembers it for good. A HIP
# record may hold a thousand pointers to one long name, and the bit maps of one NSEC record take 100 ms.
_TEXT_TYPES: Final = _NAME_TYPES | frozenset(
    map(
        dns.rdatatype.from_text,
        (
            *("SOA", "TXT", "SPF", "HINFO", "NAPTR", "CAA", "SVCB", "HTTPS", "TLSA", "SSHFP"),
            *("DS", "DNSKEY", "RRSIG", "CDS", "CDNSKEY"),
        ),
    )
)


@dataclass(frozen=True, slots=True)
class DnsMessage:
    """One message; of its authority and additional sections only the counts, as the header has them."""

    id: int
    is_response: bool
    flags: int
    """The 16 bits behind the id."""
    rcode: int
    """The four bits of the header, without those of EDNS."""
    truncated: bool
    """The sender said so (TC)."""
    questions: tuple[DnsQuestion, ...]
    answers: tuple[DnsAnswer, ...]
    whole: bool
    """All questions and answers announced are here; else the bytes were malformed, truncated or over a limit."""
    answer_count: int
    authority_count: int
    additional_count: int


class DnsReader:
    """Reads messages and counts them; one for a run, on one thread."""

    def __init__(self, limits: CaptureLimits) -> None:
        self._limits = limits
        self._queries = self._responses = self._malformed = self._cut = self._gaps = 0
        for rdtype in _TEXT_TYPES:
            # Else loaded while the first message with one is read.
            dns.rdata.get_rdata_class(_IN, rdtype)  # type: ignore[no-untyped-call]

    def datagram(self, data: bytes) -> DnsMessage | None:
        """The message of one UDP datagram, or of a length-prefixed one without the prefix.

        None when header or questions can't be read. Where an answer can't, those before it are there; where only its
        data can't, that is given as hex. Both count as malformed. Bytes behind the message are ignored.
        """
        message, malformed = _read_message(data, self._limits.dns_questions, self._limits.dns_answers)
        self._malformed += malformed
        if message is not None:
            self._queries += not message.is_response
            self._responses += message.is_response
            self._cut += not (message.whole or malformed)
        return message

    def lost(self) -> None:
        """Counts a message of a stream that is not to be had: bytes of it are missing."""
        self._gaps += 1

    def stats(self) -> DnsStats:
        """The counts up to now."""
        return DnsStats(
            queries=self._queries,
            responses=self._responses,
            malformed=self._malformed,
            cut=self._cut,
            gaps=self._gaps,
        )


class DnsStream:
    """One direction of a TCP connection: messages with a length before each (RFC 1035 4.2.2), in any pieces.

    Holds one message at most, which is less than 64 KiB. `wanted` turns False for good where it can't go on.
    """

    __slots__ = ("_buffer", "_reader", "_skip", "wanted")

    def __init__(self, reader: DnsReader) -> None:
        self._reader = reader
        self._buffer = bytearray()
        self._skip = 0  # bytes of a message with a hole that are still to come
        self.wanted = True

    def data(self, data: bytes) -> list[DnsMessage]:
        """The next bytes. Gives up behind a message whose header or questions can't be read: it was no DNS."""
        messages: list[DnsMessage] = []
        if not self.wanted:
            return messages
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._buffer += data[skipped:]
        position = 0
        while (end := self._end_of_message(position)) <= len(self._buffer):
            message = self._reader.datagram(bytes(self._buffer[position + 2 : end]))
            position = end
            if message is None:
                self._give_up()
                return messages
            messages.append(message)
        del self._buffer[:position]
        return messages

    def gap(self, length: int) -> None:
        """The next `length` bytes were not captured. Goes on behind them where they are of one message only."""
        if not self.wanted or length <= 0:
            return
        if self._skip:
            missing = self._skip
        else:
            self._reader.lost()
            missing = self._end_of_message(0) - len(self._buffer) if len(self._buffer) >= 2 else 0
        self._buffer.clear()
        self._skip = missing - length
        if self._skip < 0:
            self._give_up()

    def _end_of_message(self, position: int) -> int:
        """Where the message at `position` ends, or, while its length is not known, must be read to."""
        if len(self._buffer) - position < 2:
            return position + 2 + _HEADER.size
        return position + 2 + int.from_bytes(self._buffer[position : position + 2])

    def _give_up(self) -> None:
        self.wanted = False
        self._skip = 0
        self._buffer.clear()


class _Names:
    """The names of one message, each read once; and of all its text the characters, and whether data was malformed."""

    __slots__ = ("_parser", "_seen", "broken_data", "chars")

    def __init__(self, parser: dns.wire.Parser) -> None:
        self._parser = parser
        self._seen: dict[int, str] = {}  # by the position they start at
        self.chars = 0
        self.broken_data = False

    def next(self) -> str:
        """The name at the parser's position. Raises `DNSException` (malformed)."""
        parser = self._parser
        at = start = parser.current
        if parser.remaining() >= 2 and parser.wire[at] >= 0xC0:
            at = int.from_bytes(parser.wire[at : at + 2]) & 0x3FFF  # a pointer: to what was read before, mostly
            known = self._seen.get(at)
            if known is not None:
                parser.get_bytes(2)
                return known
        name: str = dns.name.from_wire_parser(parser).to_text(omit_final_dot=True)
        name = "" if name == "." else name
        self._seen[at] = self._seen[start] = name
        self.chars += max(len(name), LEAST_CHARS)
        return name


def _read_message(data: bytes, most_questions: int, most_answers: int) -> tuple[DnsMessage | None, bool]:
    """A message, or what there is of it, and whether the bytes are malformed."""
    if len(data) < _HEADER.size:
        return None, True
    number, flags, question_count, answer_count, authority_count, additional_count = _HEADER.unpack_from(data)
    parser = dns.wire.Parser(data, _HEADER.size)
    names = _Names(parser)
    questions: list[DnsQuestion] = []
    answers: list[DnsAnswer] = []
    malformed = False
    try:
        while len(questions) < min(question_count, most_questions) and names.chars < TEXT_CHARS:
            questions.append(_read_question(parser, names))
    except dns.exception.DNSException:
        return None, True
    try:
        if len(questions) == question_count:
            while len(answers) < min(answer_count, most_answers) and names.chars < TEXT_CHARS:
                answers.append(_read_answer(parser, names))
    except dns.exception.DNSException:
        malformed = not flags & 0x0200
    malformed |= names.broken_data
    message = DnsMessage(
        id=number,
        is_response=bool(flags & 0x8000),
        flags=flags,
        rcode=flags & 0xF,
        truncated=bool(flags & 0x0200),
        questions=tuple(questions),
        answers=tuple(answers),
        whole=len(questions) == question_count and len(answers) == answer_count,
        answer_count=answer_count,
        authority_count=authority_count,
        additional_count=additional_count,
    )
    return message, malformed


def _read_question(parser: dns.wire.Parser, names: _Names) -> DnsQuestion:
    name = names.next()
    return DnsQuestion(name, _type_text(int.from_bytes(parser.get_bytes(4)[:2])))


def _read_answer(parser: dns.wire.Parser, names: _Names) -> DnsAnswer:
    name = names.next()
    rdtype, _, ttl, length = _RECORD.unpack(parser.get_bytes(_RECORD.size))
    end = parser.current + length
    if end > parser.end:
        raise dns.exception.FormError
    try:
        text = _data_text(parser, rdtype, length)
    except dns.exception.DNSException:
        names.broken_data = True
        text = _hex(parser.wire[end - length : end])
    parser.seek(end)
    if rdtype in _TEXT_TYPES:
        names.chars += max(len(text), 2 * length, LEAST_CHARS)
    return DnsAnswer(name, _type_text(rdtype), text, ttl)


def _data_text(parser: dns.wire.Parser, rdtype: int, length: int) -> str:
    """Record data, whatever its class: that of mDNS has a bit of its own (RFC 6762 10.2)."""
    data = parser.wire[parser.current : parser.current + length]
    if rdtype == 1 and length == 4:
        return inet_ntop(AF_INET, data)
    if rdtype == 28 and length == 16:
        return inet_ntop(AF_INET6, data)
    if rdtype not in _TEXT_TYPES or length > DATA_BYTES:
        return _hex(data)
    with parser.restrict_to(length):
        text: str = dns.rdata.from_wire_parser(_IN, dns.rdatatype.RdataType(rdtype), parser).to_text()
    return text[:-1] if rdtype in _NAME_TYPES and text != "." and not text.endswith(" .") else text


def _hex(data: bytes) -> str:
    return f"\\# {len(data)} {data.hex()}".rstrip()


_type_texts: dict[int, str] = {each.value: each.name.replace("_", "-") for each in dns.rdatatype.RdataType}


def _type_text(rdtype: int) -> str:
    return _type_texts.get(rdtype) or f"TYPE{rdtype}"
