"""HTTP/1.x message heads: where one starts, what it says, and how the body behind it is framed (RFC 9112)."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from enum import Enum

import httptools

START_BYTES = 8_192
"""A start line longer than this is not looked for when synchronisation is lost."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_METHODS = (
    rb"GET|POST|HEAD|PUT|DELETE|OPTIONS|PATCH|CONNECT|TRACE|PROPFIND|PROPPATCH|REPORT|SEARCH|LOCK|UNLOCK"
    rb"|MKCOL|COPY|MOVE|SUBSCRIBE|UNSUBSCRIBE|NOTIFY|M-SEARCH"
)
_NEXT_LINE = rb"(?:\r?\n|" + _TOKEN + rb"[ \t]*:)"
_STATUS_LINE = rb"HTTP/1\.[0-9] +([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n"

# A message that begins right here. The prefix patterns say whether more bytes could still make it one.
# One blank only in front of the URI: two repeats side by side would let a line of blanks take quadratic time.
_REQUEST_LINE = re.compile(rb"([A-Z][A-Z_-]{1,31}) ([^\x00-\x1f\x7f]+) HTTP/1\.[0-9][ \t]*\r?\n")
_REQUEST_PREFIX = re.compile(rb"[A-Z][A-Z_-]{0,31}(?: [^\x00-\x1f\x7f]*+(?:\t[ \t]*+)?\r?)?\Z")
_RESPONSE_LINE = re.compile(_STATUS_LINE)
_RESPONSE_PREFIX = re.compile(rb"HTTP/1\.[0-9][^\r\n]*\r?\Z")

# A message that begins anywhere: stricter, the line behind the start line must fit as well.
_LOST_REQUEST = re.compile(rb"(?:" + _METHODS + rb") [^\x00-\x20\x7f]+ \Z")
_LOST_REQUEST_REST = re.compile(rb"HTTP/1\.[0-9]\r?\n" + _NEXT_LINE)
_LOST_RESPONSE = re.compile(_STATUS_LINE + _NEXT_LINE)
_ANCHOR = b"HTTP/1."

_LINE_ENDS = re.compile(rb"[\r\n]+")
_DIGITS = re.compile(rb"[0-9]{1,18}\Z")


class Start(Enum):
    """What the first bytes of a message look like."""

    REQUEST = 0
    RESPONSE = 1
    OPEN = 2
    """Too few bytes to say."""
    NEITHER = 3


class Framing(Enum):
    """How the end of a message's body is found (RFC 9112 6.3)."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3
    TUNNEL = 4
    """No more HTTP on this connection: 101, or 2xx to CONNECT."""


_LENGTH, _NO_BODY = Framing.LENGTH, (Framing.NONE, 0)


class Head:
    """One header block. Its fields are read when they are asked for: most are not, and to read all takes longer."""

    __slots__ = (
        "_fields",
        "_lower",
        "_odd",
        "_text",
        "is_cut",
        "is_request",
        "method",
        "raw",
        "status",
        "transfer_codings",
        "uri",
    )

    def __init__(
        self, raw: bytes, is_request: bool, method: bytes, uri: bytes, status: int, most_fields: int = sys.maxsize
    ) -> None:
        """Of lines past `most_fields` nothing is known but that they are in `raw`."""
        self.raw = raw
        self.is_request = is_request
        self.method = method
        self.uri = uri
        self.status = status
        self.is_cut = raw.count(b"\n") > most_fields + 2
        """Whether there are more."""
        self._text = b"\n".join(raw.split(b"\n", most_fields + 1)[:-1]) + b"\n\r\n" if self.is_cut else raw
        self._lower = self._text.lower()
        self._odd: bool | None = None
        self._fields: dict[bytes, bytes] | None = None
        value = self.field(b"transfer-encoding")
        self.transfer_codings = _transfer_codings(value) if value else []

    @property
    def fields(self) -> dict[bytes, bytes]:
        """All fields, with lower-case names; repeated ones are joined by ``", "``."""
        if self._fields is None:
            self._fields = _read_fields(self._text, is_request=self.is_request)
        return self._fields

    def field(self, name: bytes) -> bytes:
        """The value of one field by its lower-case name, b"" without it."""
        if self._fields is not None:
            return self._fields.get(name, b"")
        lower = self._lower
        at = lower.find(name)
        if at < 0:
            return b""
        if self._odd is None:
            self._odd = _is_odd(self._text)
        if self._odd:
            return self.fields.get(name, b"")
        start = b"\n" + name + b":"
        at = lower.find(start, at - 1)
        if at < 0:
            return b""
        if lower.find(start, at + 1) >= 0:
            return self.fields.get(name, b"")
        at += len(start)
        value = self._text[at : lower.find(b"\n", at)].removesuffix(b"\r").lstrip(b" \t")
        return value if value == value.strip() else self.fields.get(name, b"")

    @property
    def is_interim(self) -> bool:
        """A 1xx response after which the final one is still to come."""
        return 100 <= self.status < 200 and self.status != 101

    def codings(self) -> list[str]:
        """Content codings and then transfer codings, lower case, in the order in which they were applied."""
        value = self.field(b"content-encoding")
        if not (value or self.transfer_codings):
            return []
        listed = _members(value) + self.transfer_codings
        return [each.decode("latin-1") for each in listed if each not in (b"chunked", b"identity")]


def classify(data: bytes, position: int = 0) -> Start:
    """What starts at `position`, judged by the first line only. HTTP/0.9 has no version and is not HTTP for us."""
    first = data[position : position + 1]
    if not first:
        return Start.OPEN
    if first == b"H" and data.startswith(_ANCHOR[: len(data) - position], position):
        if _RESPONSE_LINE.match(data, position):
            return Start.RESPONSE
        if len(data) - position <= len(_ANCHOR) or _RESPONSE_PREFIX.match(data, position):
            return Start.OPEN
        return Start.NEITHER
    if _REQUEST_LINE.match(data, position):
        return Start.REQUEST
    return Start.OPEN if _REQUEST_PREFIX.match(data, position) else Start.NEITHER


def skip_empty_lines(data: bytes, position: int) -> int:
    """The position behind the line ends at `position`; they may stand between messages (RFC 9112 2.2)."""
    found = _LINE_ENDS.match(data, position)
    return found.end() if found else position


def find_start(data: bytes, position: int, *, requests: bool, responses: bool) -> tuple[int, Start]:
    """The first plausible message start anywhere in `data` from `position` on.

    Returns its position and kind; or, with `Start.OPEN`, the position from which the data must be kept until more
    has come.
    """
    size = len(data)
    done = position
    anchor = data.find(_ANCHOR, done)
    while anchor >= 0:
        begin = anchor
        if responses and _LOST_RESPONSE.match(data, anchor):
            return anchor, Start.RESPONSE
        if requests and data[anchor - 1 : anchor] == b" ":
            line = _LOST_REQUEST.search(data, max(done, anchor - START_BYTES), anchor)
            begin = line.start() if line else anchor
            if line and _LOST_REQUEST_REST.match(data, anchor):
                return begin, Start.REQUEST
        if size - anchor < START_BYTES and data.count(b"\n", anchor) < 2:
            return begin, Start.OPEN  # the two lines that decide are not both here
        done = anchor + len(_ANCHOR)
        anchor = data.find(_ANCHOR, done)
    if not requests:
        return max(done, size - len(_ANCHOR) + 1), Start.OPEN
    return max(done, data.rfind(b"\n", done) + 1, size - START_BYTES), Start.OPEN


class _Fields:
    """Callbacks of one httptools parser."""

    __slots__ = ("complete", "fields")

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        _add_field(self.fields, name, value)

    def on_headers_complete(self) -> None:
        self.complete = True


def read_head(
    data: bytes, position: int, limit: int, scanned: int = 0, *, is_request: bool, most_fields: int = sys.maxsize
) -> Head | None:
    """The header block that begins at `position` and is no longer than `limit`; None when it is not, or not all, here.

    In the first `scanned` bytes its end was looked for before. Fields past `most_fields` are left out.

    Blanks in a URI, unknown methods: endpoints took them, so a witness must.
    """
    line = (_REQUEST_LINE if is_request else _RESPONSE_LINE).match(data, position)
    if line is None:
        return None
    end = _end_of_block(data, max(line.end() - 1, position + scanned - 2), position + limit)
    if end < 0:
        return None
    raw = data[position:end]
    if is_request:
        return Head(raw, True, line[1], line[2].strip(), 0, most_fields)
    return Head(raw, False, b"", b"", int(line[1]), most_fields)


def _end_of_block(data: bytes, begin: int, last: int) -> int:
    """Behind the first empty line, bare LF allowed; -1 without one. To find both takes half the time of a pattern."""
    end = data.find(b"\n\r\n", begin, last)
    bare = data.find(b"\n\n", begin, last if end < 0 else end + 1)
    if bare >= 0:
        return bare + 2
    return end + 3 if end >= 0 else -1


def _is_odd(block: bytes) -> bool:
    """Whether lines are folded, blanks stand before a colon, or a CR alone might end a line. A bare LF may."""
    return (
        block.count(b"\r") != block.count(b"\r\n")
        or block.find(b"\n ") >= 0  # `in` takes twice as long
        or block.find(b" :") >= 0
        or (block.find(b"\t") >= 0 and (block.find(b"\n\t") >= 0 or block.find(b"\t:") >= 0))
    )


def _read_fields(block: bytes, *, is_request: bool) -> dict[bytes, bytes]:
    fields = _Fields()
    make = httptools.HttpRequestParser if is_request else httptools.HttpResponseParser
    if _feed(make(fields), fields, block):
        return fields.fields
    # Blanks before a colon, odd lengths: likewise.
    return _read_tolerantly(block)


def _feed(parser: httptools.HttpRequestParser | httptools.HttpResponseParser, fields: _Fields, block: bytes) -> bool:
    """Run a fresh parser over a block; True when it read all of it."""
    parser.set_dangerous_leniencies(
        lenient_headers=True,
        lenient_chunked_length=True,
        lenient_keep_alive=True,
        lenient_transfer_encoding=True,
        lenient_version=True,
        lenient_optional_lf_after_cr=True,
        lenient_optional_cr_before_lf=True,
    )
    # HttpParserUpgrade and complaints about what follows come after the block was read.
    with suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
        parser.feed_data(block)
    return fields.complete


def _read_tolerantly(block: bytes) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for line in block.split(b"\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon and not line.startswith((b" ", b"\t")):
            _add_field(fields, name.strip(), value.strip())
    return fields


def frame_request(head: Head) -> tuple[Framing, int]:
    """Framing of a request's body, and its length in bytes for `Framing.LENGTH`. Chunked wins over a length."""
    if head.transfer_codings and b"chunked" in head.transfer_codings:
        return Framing.CHUNKED, 0
    length = _content_length(head)
    return (_LENGTH, length) if length else _NO_BODY


def frame_response(head: Head, method: bytes) -> tuple[Framing, int]:
    """Framing of a final response's body; `method` is that of its request, b"" when it was not seen."""
    status = head.status
    if status == 101 or (method == b"CONNECT" and 200 <= status < 300):
        return Framing.TUNNEL, 0
    if method == b"HEAD" or status in (204, 304):
        return _NO_BODY
    if head.transfer_codings and b"chunked" in head.transfer_codings:
        return Framing.CHUNKED, 0
    length = _content_length(head)
    if length is None or head.transfer_codings:
        return Framing.CLOSE, 0
    return (_LENGTH, length) if length else _NO_BODY


def _transfer_codings(value: bytes) -> list[bytes]:
    return [each for each in _members(value) if each != b"identity"]


def _content_length(head: Head) -> int | None:
    """The first of the lengths given; None without one, or when it is not a number."""
    value = head.field(b"content-length")
    if not value:
        return None
    if b"," in value:
        value = value.partition(b",")[0].strip()
    return int(value) if _DIGITS.match(value) else None


def _members(value: bytes) -> list[bytes]:
    """A comma-separated list, lower case, without empty members (RFC 9110 5.6.1)."""
    if not value:
        return []
    return [each for part in value.lower().split(b",") if (each := part.strip())]


def _add_field(fields: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    name = name.lower()
    fields[name] = fields[name] + b", " + value if name in fields else value
