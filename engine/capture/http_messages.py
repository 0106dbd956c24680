"""HTTP/1.1 messages as bytes: header blocks, and bodies in their framing (RFC 9112)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from engine.capture.codings import chunked

Headers = Sequence[tuple[str, str]]

FRAMINGS = ("length", "chunked", "close")


def head(first_line: str, headers: Headers, *, gap: str = " ", lower: bool = False) -> bytes:
    """A header block. `gap` stands before each value; names may be in lower case: RFC 9110 section 5."""
    lines = [f"{name.lower() if lower else name}:{gap}{value}\r\n" for name, value in headers]
    return f"{first_line}\r\n{''.join(lines)}\r\n".encode()


def framed(data: bytes, framing: str, rng: random.Random) -> tuple[Headers, bytes]:
    """What the header block says of a body, and the body as sent; `rng` cuts chunks."""
    if framing == "length":
        return [("Content-Length", str(len(data)))], data
    if framing == "chunked":
        return [("Transfer-Encoding", "chunked")], chunked(data, rng)
    return [("Connection", "close")], data
