"""How a batch of events goes into a Lua state in one crossing. Any thread."""

from __future__ import annotations

import marshal
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Event = Mapping[str, Any] | bytes | str
"""What can be emitted: a mapping becomes a Lua table, bytes and text a string."""

FORMAT = 4
"""Of marshal, which later versions of Python write, too."""

_WITHOUT_REFERENCES = 2
"""Likewise, where nothing is said twice by reference: half the time for many byte strings."""

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
    """A batch as one call takes it."""

    way: Literal["events_written", "events_strings", "events_packed"]
    """What `data` is: plain values or byte strings as `marshal` writes a list of them, or byte strings end to end."""
    count: int
    data: bytes
    lengths: bytes = b""
    """Of byte strings end to end: 32-bit numbers, one for each."""
    first: int = 0
    """Where the first of these begins."""


def cross_packed(packed: Packed, at: int, count: int, first: int) -> Crossing:
    """So many of packed events, from the one at a place on, which begins at the byte `first`."""
    lengths = packed.lengths[at : at + count]
    return Crossing("events_packed", len(lengths), packed.data, array("I", lengths).tobytes(), first)


def cross(events: Sequence[Event]) -> Crossing | None:
    """A batch in one piece; None when something is in it that only the slow way can cross, or refuse by its name."""
    listed: list[Any] = events if type(events) is list else list(events)
    kinds = list(map(type, listed))
    try:
        if kinds.count(bytes) == len(kinds):
            return Crossing("events_strings", len(listed), marshal.dumps(listed, _WITHOUT_REFERENCES))
        if kinds.count(str) == len(kinds):
            texts = [event.encode() for event in listed]
            return Crossing("events_strings", len(texts), marshal.dumps(texts, _WITHOUT_REFERENCES))
        return Crossing("events_written", len(listed), marshal.dumps(listed, FORMAT))
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
