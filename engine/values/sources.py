"""What an engine can read, as frozen descriptions: `Engine.run` takes any of them. Nothing is opened here."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.values.errors import ConfigError

STANDARD_INPUT = 0
_RING_MB = 1 << 12  # MiB that a ring may have
_LINK_TYPES = 65_535
_LONGEST_PACKET = 262_144  # bytes


@dataclass(frozen=True, slots=True)
class Capture:
    """A capture file: pcap or pcapng, also compressed with gzip or zstd. Times of its packets are stream time."""

    path: str | Path


@dataclass(frozen=True, slots=True)
class Captures:
    """Several captures as one, in the order of their first packets: flows and streams go on from file to file.

    A folder stands for the captures in it; what is none is warned of and skipped. A file named here must be one.
    """

    paths: tuple[str | Path, ...]

    def __init__(self, paths: str | Path | Iterable[str | Path]) -> None:
        """One path or several. Raises `ConfigError` when there are none."""
        object.__setattr__(self, "paths", _paths(paths))


@dataclass(frozen=True, slots=True)
class Replay:
    """Captures at the pace of their packets, or so many times as fast; the records are those of `Captures`.

    It is the loop's clock that is waited by. With `loops`, each further pass follows the one before in stream time.
    """

    paths: tuple[str | Path, ...]
    speed: float = 1.0
    loops: int = 1

    def __init__(self, paths: str | Path | Iterable[str | Path], speed: float = 1.0, *, loops: int = 1) -> None:
        """Raises `ConfigError` when the speed is not above 0, or `loops` below 1."""
        if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0 < speed < math.inf:
            raise ConfigError(f"speed must be a number above 0, not {speed!r}")
        _check_count("loops", loops)
        object.__setattr__(self, "paths", _paths(paths))
        object.__setattr__(self, "speed", float(speed))
        object.__setattr__(self, "loops", loops)


@dataclass(frozen=True, slots=True)
class Pipe:
    """A capture that comes through a file descriptor, compressed or not, decoded as it comes. It is not closed.

    Where nothing comes for a moment, what is there is handled; so the cut into batches may differ from a file's.
    """

    descriptor: int = STANDARD_INPUT


@dataclass(frozen=True, slots=True)
class Live:
    """The packets of a network interface, on Linux, until one of the limits or `Engine.end_source`.

    Needs CAP_NET_RAW. Stream time is the wall clock's.
    """

    interface: str
    promiscuous: bool = False
    """Ask the interface for packets that are not for this machine, too."""
    seconds: float | None = None
    """How long to capture, by the loop's clock."""
    packets: int | None = None
    """How many packets to take."""
    ring_mb: int = 32
    """Memory in which the kernel puts packets until they are read; what finds no room is dropped and counted."""

    def __post_init__(self) -> None:
        if not self.interface or "\0" in self.interface:
            raise ConfigError(f"interface must be the name of one, not {self.interface!r}")
        if self.seconds is not None and not 0 <= self.seconds < math.inf:
            raise ConfigError(f"seconds must be a number of seconds, not {self.seconds!r}")
        if self.packets is not None:
            _check_count("packets", self.packets)
        _check_count("ring_mb", self.ring_mb)
        if self.ring_mb > _RING_MB:
            raise ConfigError(f"ring_mb must be at most {_RING_MB}, not {self.ring_mb}")


@dataclass(frozen=True, slots=True)
class Script:
    """A script with an inputfilter as a source: what it makes is decoded like a capture. Its times are stream time."""

    path: str | Path


class Feed:
    """Packets that the program itself brings, as they come: stream time is the wall clock's. On the loop's thread only.

    It can be read once, and holds what comes before and meanwhile, up to a limit. What finds no room is dropped and
    counted.
    """

    def __init__(self, *, link_type: int = 1, limit_bytes: int = 32 << 20, name: str = "feed") -> None:
        """`link_type` is that of capture files (1: Ethernet); `name` is for messages. Raises `ConfigError`."""
        _check_count("limit_bytes", limit_bytes)
        if not 0 <= link_type <= _LINK_TYPES:
            raise ConfigError(f"link_type must be from 0 to {_LINK_TYPES}, not {link_type!r}")
        self.name = name
        self.link_type = link_type
        self.received = 0
        """Packets that were put; of these,"""
        self.dropped = 0
        """so many found no room."""
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.in_hand = 0
        """Packets that are being handled; for who reads the feed."""
        self.ended = False
        self.is_read = False
        """Whether somebody reads it, or has."""
        self.on_change: Callable[[], object] = _nothing
        """For who reads the feed: called when something was put, or it ended."""
        self._limit = limit_bytes
        self._bytes = 0

    @property
    def pending(self) -> int:
        """Packets that were put and are not handled yet."""
        return len(self.waiting) + self.in_hand

    def put(self, time: float, packet: bytes) -> bool:
        """Add a packet with its time, in seconds since the epoch. False when there is no room, or the feed has ended.

        Raises `ValueError` for what is longer than any packet, 262,144 bytes.
        """
        if len(packet) > _LONGEST_PACKET:
            raise ValueError(f"{len(packet):,} bytes are no packet")
        self.received += 1
        if self.ended or self._bytes + len(packet) > self._limit:
            self.dropped += 1
            return False
        self._bytes += len(packet)
        self.waiting.append((time, packet))
        self.on_change()
        return True

    def take(self) -> tuple[float, bytes]:
        """The packet that waits for longest; for who reads the feed. Raises `IndexError` when there is none."""
        time, packet = self.waiting.popleft()
        self._bytes -= len(packet)
        return time, packet

    def end(self) -> None:
        """No more comes. `Engine.run` returns when what there is was handled."""
        self.ended = True
        self.on_change()


Source = Capture | Captures | Replay | Pipe | Live | Script | Feed
"""Everything that `Engine.run` reads."""


def has_wall_time(source: Source) -> bool:
    """Whether stream time is the wall clock's while it is read, and not that of its packets."""
    return isinstance(source, Live | Feed)


def name_of(source: Source) -> str:
    """What a source is called in messages."""
    if isinstance(source, Capture | Script):
        return str(source.path)
    if isinstance(source, Live):
        return source.interface
    if isinstance(source, Feed):
        return source.name
    if isinstance(source, Pipe):
        return "standard input" if source.descriptor == STANDARD_INPUT else f"descriptor {source.descriptor}"
    return ", ".join(map(str, source.paths))


def _paths(paths: str | Path | Iterable[str | Path]) -> tuple[str | Path, ...]:
    found = (paths,) if isinstance(paths, str | Path) else tuple(paths)
    if not found:
        raise ConfigError("paths must name at least one capture")
    return found


def _nothing() -> None:
    """What is called while nobody reads a feed."""


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}")
