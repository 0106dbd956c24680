"""Settings of an engine: frozen, with defaults, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from engine.values.errors import ConfigError

MAX_WORKERS = 64


@dataclass(frozen=True, slots=True)
class CaptureLimits:
    """Bounds on what a hostile capture can make the engine hold; each overflow is counted."""

    flows: int = 1_000_000
    """Flows at once; past it packets of new flows are counted to none until others are over."""
    streams: int = 100_000
    """TCP connections in reassembly at once."""
    out_of_order_bytes: int = 1 << 20
    """Bytes held behind a hole, per direction; past it the hole becomes a gap."""
    out_of_order_bytes_total: int = 64 << 20
    """The same over all connections."""
    gap_wait_seconds: float = 3.0
    """Stream time after which a hole that data waits behind becomes a gap."""
    fragmented_datagrams: int = 1_024
    """IP datagrams whose fragments wait for one another; past it the oldest is given up."""
    fragment_bytes: int = 16 << 20
    """Bytes of fragments that wait; past it likewise."""
    fragment_seconds: float = 30.0
    """Stream time after which a datagram that is not complete is given up."""
    tunnels: int = 8
    """Tunnels inside of one another that a packet is followed into; 16 at most."""
    idle_seconds: float = 300.0
    """Stream time without a packet after which a TCP connection or an SCTP association is over: that of Zeek for TCP.

    Flows go in the first whole second of stream time after that, and after the times for other flows, below.
    """
    attempt_seconds: float = 60.0
    """The same while the handshake of a TCP connection is not complete: that of Suricata, longer than SYNs pause."""
    closed_seconds: float = 5.0
    """The same for a TCP connection that was closed both ways, or reset: that of Zeek."""
    datagram_seconds: float = 60.0
    """The same for UDP: that of Zeek."""
    header_bytes: int = 65_536
    """One HTTP header block."""
    header_fields: int = 256
    """Fields of one HTTP header block, by its lines."""
    decoded_bytes: int = 256 << 20
    """One body after content decoding; past it the rest is not decoded."""
    decoded_ratio: int = 1_000
    """Decoded bytes per encoded byte, beyond the first mebibyte: the mark of a decompression bomb."""
    dns_questions: int = 16
    """Questions read of one DNS message."""
    dns_answers: int = 256
    """Answers read of one DNS message."""
    tls_handshake_bytes: int = 65_535
    """One TLS handshake message, and with one record of 18 KiB all that is held per direction; 65,535 at most."""
    tls_certificates: int = 16
    """Certificates read of one chain."""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an engine can be told. Unknown keys are refused by `from_mapping`."""

    workers: int | None = None
    """Worker threads per plugin that asks for no number of its own; 1 to 64."""
    ramfs: Path | None = None
    """Where extracted files are put; default a fresh private directory on /dev/shm, or the temp folder."""
    ramfs_bytes: int = 1 << 30
    """Extracted files that async work still needs; past it a capture is read no further until some are done with."""
    chunk_bytes: int = 5 << 20
    """Bodies longer than this reach `onfile_http` in parts."""
    queue_limit: int = 100_000
    """Unfinished async tasks per plugin; past it `schedule` returns nil, "queue full". Scripts may ask for less."""
    async_isolation: Literal["thread", "process"] = "thread"
    """What workers are, for scripts that don't say (`TrisulPlugin.async_isolation`)."""
    worker_tasks: int | None = None
    """Tasks after which a worker's state is built anew, for scripts that don't say; None for never."""
    worker_memory_mb: int | None = None
    """Limit of a worker's state in MiB, for scripts that don't say; None for none."""
    stuck_threads: int = 16
    """Threads per plugin that may be stuck in a task past its timeout; past it no worker takes their place."""
    drain_seconds: float = 30.0
    """How long a stop waits for unfinished async tasks before it abandons them."""
    event_limit: int = 100_000
    """Events that `emit_nowait` and `emit_threadsafe` may leave waiting."""
    message_limit: int = 100_000
    """Messages that may wait for one plugin."""
    subscription_limit: int = 10_000
    """Records that may wait in one subscription."""
    slow_hook_seconds: float = 0.010
    """A hook that holds the loop longer is named in a warning."""
    slice_seconds: float = 0.002
    """How long the pipeline works before it lets the loop run."""
    window_seconds: float = 60.0
    """Stream time that counters are summed for, until a flush; windows begin at multiples of it."""
    homenets: tuple[str, ...] = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    """Home networks, as CIDR text."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What `T.env.get_config` answers, by path, as in ``{"App>DBRoot": "/var/lib/x"}``."""
    args: str = ""
    """`T.args`."""
    store: Path | None = None
    """Folder for the packets of sources, as scripts choose them; None stores nothing."""
    store_mb: int = 100
    """Size of a file in it, in MB, after which the next one begins."""
    window_keys: int = 1_000_000
    """Keys that a counter group may have in a window; what is counted for others is in the totals of the group."""
    windows_waiting: int = 4
    """Windows that may wait for the flush of another; past it their scripts are not asked, which is counted."""
    limits: CaptureLimits = field(default_factory=CaptureLimits)

    def __post_init__(self) -> None:
        if self.workers is not None:
            _check_whole("workers", self.workers)
            if not 1 <= self.workers <= MAX_WORKERS:
                raise ConfigError(f"workers must be 1 to {MAX_WORKERS}, not {self.workers!r}")
        if self.async_isolation not in ("thread", "process"):
            raise ConfigError(f'async_isolation must be "thread" or "process", not {self.async_isolation!r}')
        for name in ("worker_tasks", "worker_memory_mb"):
            if getattr(self, name) is not None:
                _check_at_least_one(name, getattr(self, name))
        for name in (
            "stuck_threads",
            "ramfs_bytes",
            "chunk_bytes",
            "queue_limit",
            "event_limit",
            "message_limit",
            "subscription_limit",
            "store_mb",
            "window_keys",
            "windows_waiting",
        ):
            _check_at_least_one(name, getattr(self, name))
        for name in ("drain_seconds", "slow_hook_seconds", "slice_seconds"):
            _check_seconds(name, getattr(self, name))
        _check_seconds("window_seconds", self.window_seconds)
        if not 1 <= self.window_seconds <= 86_400:
            raise ConfigError(f"window_seconds must be 1 to 86400, not {self.window_seconds!r}")
        if not isinstance(self.limits, CaptureLimits):
            raise ConfigError(f"limits must be a CaptureLimits, not {self.limits!r}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Config:
        """Make settings from a mapping; raises `ConfigError` naming the first unknown key."""
        known = {each.name for each in fields(cls)}
        for name in values:
            if name not in known:
                raise ConfigError(f"unknown setting {name!r}, known are {', '.join(sorted(known))}")
        return cls(**values)  # type: ignore[arg-type]


def _check_whole(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{name} must be a whole number, not {value!r}")


def _check_at_least_one(name: str, value: object) -> None:
    _check_whole(name, value)
    if value < 1:  # type: ignore[operator]
        raise ConfigError(f"{name} must be at least 1, not {value!r}")


def _check_seconds(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        raise ConfigError(f"{name} must be a number of seconds, not {value!r}")
    if value < 0:
        raise ConfigError(f"{name} must not be negative, not {value!r}")
