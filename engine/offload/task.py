"""A task is one unit of offloaded work; an outcome is how it ended. Plain data, made and settled on the loop thread."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple

WANTS_RESULT = 1
WANTS_ERROR = 2


class Status(IntEnum):
    """How a task ended; the first three are what async.lua knows."""

    DONE = 0
    RESULT = 1
    FAILED = 2
    ABANDONED = 3


class Phase(Enum):
    """Where a task is. It only moves down this list, and it leaves RUNNING once."""

    WAITING = "waiting"
    RUNNING = "running"
    SETTLED = "settled"


@dataclass(slots=True, eq=False)
class Task:
    """One call of a `T.async` method."""

    id: int
    lease: int
    """The extracted file that must stay until the task is settled, or 0."""
    method: str
    wants: int = 0
    """Which callbacks the script gave: WANTS_RESULT, WANTS_ERROR."""
    code: int = 0
    upvalues: bytes = b""
    data: bytes = b""
    timeout: float = 0.0
    """Seconds that onexecute may run; 0 for no limit."""
    source: str = ""
    target: str = ""
    position: int = -1
    """Where `copybuffer` writes; -1 appends."""
    paths: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    """What a file operation reads and writes, once that was worked out."""
    phase: Phase = Phase.WAITING
    started: float = 0.0
    """Monotonic seconds."""

    @property
    def is_lua(self) -> bool:
        """Whether the task runs Lua code on a worker, as against a file operation."""
        return self.method == "schedule"


class Outcome(NamedTuple):
    """How one task ended."""

    task: Task
    status: Status
    value: bytes | None = None
    """The string that onexecute returned, or the error message."""
    traceback: bytes = b""
    timed_out: bool = False
