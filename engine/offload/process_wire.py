"""What a worker process and its parent say to each other: frames over one socket, and progress in shared memory.

A frame is its length, its kind, and a flat run of values. Nothing in one is ever executed or unpickled, and a broken
one raises: scripts can write into the memory of their process.
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
from collections.abc import Sequence
from enum import IntEnum

from engine.offload.worker import Progress as Progress

Value = bytes | int | float | bool | None
"""What a frame may hold: what crosses between Python and Lua."""

TASK_WIDTH = 5
"""Values per task: id, code, upvalues, data, timeout (`Task.crossing`)."""

RESULT_WIDTH = 4
"""Values per result: task id, status, value, traceback (worker.lua)."""


class Kind(IntEnum):
    """What a frame says. SETUP, RUN and END apart, the parent speaks when it is asked: so neither blocks the other."""

    SETUP = 1
    """To the child, once: the setup, as `marshal` has it."""
    RUN = 2
    """To the child: a drain run begins, with the first tasks, or with none to have the child ask when it is ready."""
    TASKS = 3
    """To the child: what it asked for. None ends the drain run."""
    CODE = 4
    """To the child: the bytecode that it asked for, or nothing when there is none."""
    END = 5
    """To the child: drop the state and exit."""
    ASK = 6
    """From the child: results; give me the next tasks."""
    RESULTS = 7
    """From the child: results that need not wait."""
    LOG = 8
    """From the child: level and text."""
    CODE_WANTED = 9
    """From the child: the id of a code."""
    ENDED = 10
    """From the child: the drain run is over."""
    FAULT = 11
    """From the child: why it can't go on, as text. It exits."""


class BrokenFrameError(Exception):
    """Raised for bytes that are no frame."""


class GoneError(Exception):
    """Raised when the other end of a channel is closed, or was silent for too long."""


_HEAD = struct.Struct("<QB")  # bytes that follow, kind
_COUNT = struct.Struct("<I")
_MAX_BYTES = 1 << 32  # past what a Lua string holds

_NONE, _FALSE, _TRUE, _INT, _FLOAT, _BYTES = range(6)


def encode(kind: Kind, values: Sequence[Value] = ()) -> bytes:
    """A frame. Its body: value count, a tag per value, 8 bytes per value, then all byte strings."""
    tags, slots, strings = bytearray(), [], []
    for value in values:
        if isinstance(value, bytes):
            tags.append(_BYTES)
            slots.append(len(value))
            strings.append(value)
        elif value is None:
            tags.append(_NONE)
            slots.append(0)
        elif isinstance(value, bool):
            tags.append(_TRUE if value else _FALSE)
            slots.append(0)
        elif isinstance(value, int):
            tags.append(_INT)
            slots.append(value)
        else:
            tags.append(_FLOAT)
            slots.append(struct.unpack("<q", struct.pack("<d", value))[0])
    count = len(tags)
    size = _COUNT.size + 9 * count + sum(map(len, strings))
    return b"".join((_HEAD.pack(size, kind), _COUNT.pack(count), tags, struct.pack(f"<{count}q", *slots), *strings))


def decode(body: bytes) -> tuple[Value, ...]:
    """The values of a frame's body. Raises `BrokenFrameError`."""
    try:
        (count,) = _COUNT.unpack_from(body)
        at = _COUNT.size + count
        tags, slots = body[_COUNT.size : at], struct.unpack_from(f"<{count}q", body, at)
    except struct.error:
        raise BrokenFrameError("a frame is too short") from None
    at += count * 8
    values: list[Value] = []
    for tag, slot in zip(tags, slots, strict=True):
        if tag == _BYTES:
            if not 0 <= slot <= len(body) - at:
                raise BrokenFrameError("a string is longer than its frame")
            values.append(body[at : at + slot])
            at += slot
        elif tag == _INT:
            values.append(slot)
        elif tag == _FLOAT:
            values.append(struct.unpack("<d", struct.pack("<q", slot))[0])
        elif tag <= _TRUE:
            values.append((None, False, True)[tag])
        else:
            raise BrokenFrameError(f"a value has the tag {tag}")
    if at != len(body):
        raise BrokenFrameError("a frame is too long")
    return tuple(values)


class Channel:
    """One end of the socket. For one thread at a time."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._patience: float | None = None
        self._reader = end.makefile("rb", 1 << 16)

    def send(self, kind: Kind, values: Sequence[Value] = ()) -> None:
        """Write a frame. Raises `GoneError`; there is no SIGPIPE, whatever the host made of that."""
        try:
            self._socket.sendall(encode(kind, values), socket.MSG_NOSIGNAL)
        except OSError as exc:
            raise GoneError(str(exc)) from exc

    def receive(self, seconds: float | None = None) -> tuple[Kind, tuple[Value, ...]]:
        """The next frame. Raises `GoneError`, after so many seconds of silence as well, and `BrokenFrameError`."""
        if seconds != self._patience:  # a system call
            self._socket.settimeout(seconds)
            self._patience = seconds
        size, kind = _HEAD.unpack(self._read(_HEAD.size))
        if size > _MAX_BYTES or not Kind.SETUP <= kind <= Kind.FAULT:
            raise BrokenFrameError(f"no frame begins with kind {kind} and {size} bytes")
        return Kind(kind), decode(self._read(size))

    def _read(self, count: int) -> bytes:
        try:
            data: bytes = self._reader.read(count)
        except OSError as exc:
            raise GoneError(str(exc)) from exc
        if len(data) < count:
            raise GoneError("the socket is closed")
        return data

    def close(self) -> None:
        """Close the socket."""
        self._reader.close()
        self._socket.close()


class Shared(ctypes.Structure):
    """What both processes see at any time. It outlives a crash, so that the parent knows where that struck."""

    _fields_ = [
        ("stop", ctypes.c_int32),  # as `install_worker` has it
        ("begun", ctypes.c_int32),  # tasks and packs of the last RUN or TASKS frame that Lua was given
        ("report", ctypes.c_double),  # as `install_worker` has it
        ("states_built", ctypes.c_int32),
        ("progress", Progress),
    ]


def share(descriptor: int) -> Shared:
    """Map a memory file, which may be closed then. It is unmapped when the last reference to what is in it goes."""
    return Shared.from_buffer(mmap.mmap(descriptor, ctypes.sizeof(Shared)))
