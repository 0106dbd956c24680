"""The form of all inputs: pieces, each with its length before it. What a piece is, each target says."""

from __future__ import annotations

from collections.abc import Iterable

MOST_BYTES = 16_384
"""Of one input."""

MOST_PIECES = 64


def pack(pieces: Iterable[bytes]) -> bytes:
    """Pieces as one input, as many as fit."""
    out, size = [], 0
    for number, piece in enumerate(pieces):
        size += 2 + len(piece)
        if number == MOST_PIECES or size > MOST_BYTES:
            break
        out.append(len(piece).to_bytes(2) + piece)
    return b"".join(out)


def unpack(data: bytes) -> list[bytes]:
    """The pieces of an input. Any bytes are one: the last piece may be shorter than it says."""
    pieces, at = [], 0
    while at + 2 <= len(data) and len(pieces) < MOST_PIECES:
        end = at + 2 + int.from_bytes(data[at : at + 2])
        pieces.append(data[at + 2 : end])
        at = end
    return pieces
