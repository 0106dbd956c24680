"""A task is one unit of offloaded work; an outcome is how it ended. Plain data, made and settled on the loop thread."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, NamedTuple

PACK_CODE = 0
"""Stands for a code id where a worker is given a pack."""

LANE_CODE = -1
"""Stands for a code id where a worker is given its turn at the lane."""

_tail_ids = itertools.count(1)

WANTS_RESULT = 1
WANTS_ERROR = 2


class Status(IntEnum):
    """How a task ended; the first three are what async.lua knows."""

    DONE = 0
    RESULT = 1
    FAILED = 2
    ABANDONED = 3
    PART = 4
    """Some tasks of a pack have ended; how each did is in the value, for the script's side."""
    FAILED_IN_PACK = 5
    """From a worker: one of the next part has failed."""
    PACK_END = 6
    """From a worker: it has done with a pack, after so many tasks."""
    QUICK_CODE = 7
    """From a worker: whether runs of a code are over in no time."""


class Phase(Enum):
    """Where a task is. It only moves down this list, but when a run gives back what it has not begun."""

    WAITING = "waiting"
    RUNNING = "running"
    SETTLED = "settled"


@dataclass(slots=True, eq=False)
class Task:
    """One call of a `T.async` method; or a pack of `schedule` calls, which cross as one (async.lua)."""

    id: int
    lease: int
    """The extracted file that must stay until the task is settled, or 0."""
    method: str
    wants: int = 0
    """Which callbacks the script gave: WANTS_RESULT, WANTS_ERROR."""
    code: int = 0
    """Of the function; of a pack, the id of its first task."""
    upvalues: bytes = b""
    data: bytes = b""
    timeout: float = 0.0
    """Seconds that onexecute may run; 0 for no limit."""
    source: str = ""
    target: str = ""
    position: int = -1
    """Where `copybuffer` writes; -1 appends."""
    size: int = 1
    """How many tasks a pack has."""
    skip: int = 0
    """Tasks at the beginning of the pack's data that are another's."""
    settled: int = 0
    """Tasks of the pack that are settled, from its beginning."""
    paths: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    """What a file operation reads and writes, once that was worked out."""
    phase: Phase = Phase.WAITING
    submitted: float = 0.0
    """When it was called, in monotonic seconds; 0 for what was split from a pack."""
    started: float = 0.0
    """When a run took it, in monotonic seconds."""
    moved: int = 0
    """Bytes that a file operation wrote."""

    def crossing(self) -> tuple[int, int, Any, bytes, float]:
        """What a worker gets of a Lua task: id, code, upvalues, data, timeout in seconds or 0.

        Of a pack: id, code 0, how many to skip, data, size.
        """
        if self.is_pack:
            return self.id, PACK_CODE, self.skip, self.data, self.size
        return self.id, self.code, self.upvalues, self.data, self.timeout

    def split(self, at: int) -> Task:
        """Keep the first `at` tasks of a pack, and give the others as a pack of their own."""
        rest = Task(-next(_tail_ids), 0, "pack", data=self.data, size=self.size - at, skip=self.skip + at)
        rest.code = self.code
        self.size = at
        return rest

    @property
    def first(self) -> int:
        """Id of the first task of the data of a pack, whichever part of it this is."""
        return self.code

    @property
    def left(self) -> int:
        """Tasks that are not settled."""
        return self.size - self.settled

    @property
    def is_pack(self) -> bool:
        """Whether this stands for several tasks."""
        return self.method == "pack"

    @property
    def is_lua(self) -> bool:
        """Whether the task runs Lua code on a worker, as against a file operation."""
        return self.method in ("schedule", "pack")


class Outcome(NamedTuple):
    """How one task ended, or some of a pack."""

    task: Task
    status: Status
    value: bytes | None = None
    """The string that onexecute returned, or the error message."""
    traceback: bytes = b""
    timed_out: bool = False
    failures: tuple[tuple[bytes, bytes], ...] = ()
    """Of a part: message and traceback of each task that failed."""
    tasks: int = 1
    """How many tasks this is about."""
