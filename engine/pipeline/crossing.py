"""How a batch of events goes into a Lua state in one crossing. Any thread."""

from __future__ import annotations

import marshal
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Event = Mapping[str, Any] | bytes | str
"""What can be emitted: a mapping becomes a Lua table, bytes and text a string."""

FORMAT = 4
"""Of marshal, which later versions of Python write, too."""

_LENGTH = 1 << 32  # bytes of a batch, and of an event in it, are fewer

_PLAIN = frozenset((type(None), bool, int, float, str, bytes, bytearray, memoryview))


@dataclass(frozen=True, slots=True)
class Packed:
    """Several events as one run of bytes, for `Engine.emit_batch`: event after event, and how long each is, in bytes.

    Raises `ValueError` unless the lengths are numbers from 0 on whose sum is the length of the data.
    """

    data: bytes
    lengths: Sequence[int]

    def __post_init__(self) -> None:
        if min(self.lengths, default=0) < 0 or sum(self.lengths) != len(self.data):
            raise ValueError(
                f"packed events: {len(self.lengths)} lengths come to {sum(self.lengths)} bytes, not {len(self.data)}"
            )


@dataclass(frozen=True, slots=True)
class Crossing:
    """A batch as one call takes it: `data` from the byte `first` on are byte strings end to end, or plain values."""

    count: int
    data: bytes
    lengths: bytes | None = None
    """32-bit numbers, one for each byte string; None for values as `marshal` writes them."""
    first: int = 0


def cross_packed(packed: Packed, at: int, count: int, first: int) -> Crossing:
    """So many of packed events, from the one at a place on, which begins at the byte `first`."""
    lengths = packed.lengths[at : at + count]
    return Crossing(len(lengths), packed.data, array("I", lengths).tobytes(), first)


def cross(events: Sequence[Event]) -> Crossing | None:
    """A batch in one piece; None when something is in it that only the slow way can cross, or refuse by its name."""
    kinds = set(map(type, events))
    if kinds == {bytes} or kinds == {str}:
        texts: Iterable[Any] = events if bytes in kinds else [str(event).encode() for event in events]
        texts = list(texts)
        data = b"".join(texts)
        if len(data) < _LENGTH:
            return Crossing(len(texts), data, array("I", map(len, texts)).tobytes())
        return None
    try:
        return Crossing(len(events), marshal.dumps(events if type(events) is list else list(events), FORMAT))
    except (ValueError, OverflowError, MemoryError):
        return None


def is_plain(value: object) -> bool:
    """Whether no object in a value shows its memory as bytes but bytes themselves: numbers of numpy do, and arrays."""
    kind = type(value)
    if kind in _PLAIN:
        return kind is not memoryview or value.itemsize == 1  # type: ignore[attr-defined]
    if kind is dict:
        return all(is_plain(key) and is_plain(item) for key, item in value.items())  # type: ignore[attr-defined]
    return kind in (list, tuple) and all(map(is_plain, value))  # type: ignore[call-overload]
