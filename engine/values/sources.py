"""What an engine can read, as frozen descriptions: `Engine.run` takes any of them. Nothing is opened here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.values.errors import ConfigError

STANDARD_INPUT = 0
_RING_MB = 1 << 12  # MiB that a ring may have


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


Source = Capture | Captures | Replay | Pipe | Live | Script
"""Everything that `Engine.run` reads."""


def name_of(source: Source) -> str:
    """What a source is called in messages."""
    if isinstance(source, Capture | Script):
        return str(source.path)
    if isinstance(source, Live):
        return source.interface
    if isinstance(source, Pipe):
        return "standard input" if source.descriptor == STANDARD_INPUT else f"descriptor {source.descriptor}"
    return ", ".join(map(str, source.paths))


def _paths(paths: str | Path | Iterable[str | Path]) -> tuple[str | Path, ...]:
    found = (paths,) if isinstance(paths, str | Path) else tuple(paths)
    if not found:
        raise ConfigError("paths must name at least one capture")
    return found


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}")
