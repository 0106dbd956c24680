"""What an engine takes from the world around it: time, threads and numbers. A simulation gives it another world."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.offload import Queue, TaskQueue
from engine.plugins.plugin import Plugin

Functions = Mapping[str, Any]
"""Functions and numbers of the host for a Lua state, by name."""

_ids = itertools.count(1)  # unique in the process, as states of several engines may share files


@dataclass(frozen=True, slots=True)
class World:
    """Every door through which something that is not in the events could come into the records."""

    wall: Callable[[], float] = time.time
    """Seconds since the epoch."""
    monotonic: Callable[[], float] = time.monotonic
    """Seconds for measuring, wherever a record may depend on what is measured."""
    slice_seconds: float | None = None
    """How long events and messages may hold the loop, by `monotonic`; None for what the settings say."""
    make_queue: Callable[..., Queue] = TaskQueue
    """Makes the queue for the async work of a plugin; called like `TaskQueue`."""
    functions: Callable[[], Functions] = dict
    """What a plugin's state gets of the host, beyond what all get; asked for once per state."""
    admit: Callable[[Plugin], None] = lambda _plugin: None
    """Hears of each plugin before its onload."""
    ids: Iterator[int] = _ids
    """Numbers for `T.contextid`."""
    simulated: bool = False
    """Whether time is virtual: packets that a script makes come when the clock says so, and `simulation` blocks run."""
    ramfs_alias: str | None = None
    """What records call the folder of extracted files, where it is a fresh one; None for its name."""
