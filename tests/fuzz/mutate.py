"""Makes new inputs of old ones: whole pieces go, come twice or change places, and bytes within them change."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tests.fuzz.pieces import pack, unpack

_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 0x0F, 0x10, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFE, 0xFF)
_LONG_NUMBERS = (0, 1, 0x7F, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_LONGEST_SPAN = 64


class Mutator:
    """Draws all it decides from one generator, so that the same seed makes the same inputs."""

    def __init__(self, rng: random.Random, tokens: Sequence[bytes] = ()) -> None:
        """`tokens` are words of the protocol."""
        self._rng = rng
        self._tokens = tuple(tokens) or (b"\0",)
        self._piece_ways: tuple[Callable[[list[bytes], bytes], None], ...] = (
            self._drop, self._repeat, self._swap, self._borrow, self._cut,
        )  # fmt: skip
        self._byte_ways: tuple[Callable[[bytearray], None], ...] = (
            self._flip, self._number, self._long_number, self._delete, self._double, self._token, self._noise,
        )  # fmt: skip

    def mutate(self, data: bytes, other: bytes) -> bytes:
        """A new input of one, with pieces of another perhaps."""
        rng = self._rng
        pieces = unpack(data) or [b""]
        for _ in range(1 << rng.randrange(4)):
            if rng.random() < 0.3:
                rng.choice(self._piece_ways)(pieces, other)
            else:
                at = rng.randrange(len(pieces))
                piece = bytearray(pieces[at])
                rng.choice(self._byte_ways)(piece)
                pieces[at] = bytes(piece[:0xFFFF])
        return pack(pieces)

    def _place(self, piece: bytearray) -> int:
        """Often near the beginning, where headers are."""
        size = len(piece)
        if size > 40 and self._rng.random() < 0.5:
            size = 40
        return self._rng.randrange(size) if size else 0

    # Pieces.

    def _drop(self, pieces: list[bytes], other: bytes) -> None:
        if len(pieces) > 1:
            del pieces[self._rng.randrange(len(pieces))]

    def _repeat(self, pieces: list[bytes], other: bytes) -> None:
        at = self._rng.randrange(len(pieces))
        pieces.insert(self._rng.randrange(len(pieces) + 1), pieces[at])

    def _swap(self, pieces: list[bytes], other: bytes) -> None:
        one, two = self._rng.randrange(len(pieces)), self._rng.randrange(len(pieces))
        pieces[one], pieces[two] = pieces[two], pieces[one]

    def _borrow(self, pieces: list[bytes], other: bytes) -> None:
        theirs = unpack(other)
        if theirs:
            at = self._rng.randrange(len(theirs))
            number = self._rng.randrange(1, 4)
            place = self._rng.randrange(len(pieces) + 1)
            pieces[place:place] = theirs[at : at + number]

    def _cut(self, pieces: list[bytes], other: bytes) -> None:
        at = self._rng.randrange(len(pieces))
        pieces[at] = pieces[at][: self._rng.randrange(len(pieces[at]) + 1)]

    # Bytes of one piece.

    def _flip(self, piece: bytearray) -> None:
        if piece:
            piece[self._place(piece)] ^= 1 << self._rng.randrange(8)

    def _number(self, piece: bytearray) -> None:
        if piece:
            piece[self._place(piece)] = self._rng.choice(_NUMBERS)

    def _long_number(self, piece: bytearray) -> None:
        size = self._rng.choice((2, 4))
        at = self._place(piece)
        value = self._rng.choice(_LONG_NUMBERS) & (1 << 8 * size) - 1
        piece[at : at + size] = value.to_bytes(size)

    def _delete(self, piece: bytearray) -> None:
        at = self._place(piece)
        del piece[at : at + self._rng.randrange(1, _LONGEST_SPAN)]

    def _double(self, piece: bytearray) -> None:
        at = self._place(piece)
        span = piece[at : at + self._rng.randrange(1, _LONGEST_SPAN)]
        piece[at:at] = span * self._rng.choice((1, 1, 2, 8))

    def _token(self, piece: bytearray) -> None:
        at, token = self._place(piece), self._rng.choice(self._tokens)
        end = at + (len(token) if self._rng.random() < 0.5 else 0)
        piece[at:end] = token

    def _noise(self, piece: bytearray) -> None:
        at = self._place(piece)
        piece[at : at + 4] = self._rng.randbytes(self._rng.randrange(1, 5))
