"""Everything behind `T.async`: worker threads with Lua states, file operations, ordering, limits."""

from engine.offload.gate import Gate
from engine.offload.queue import TaskQueue
from engine.offload.task import Outcome, Status, Task

__all__ = ["Gate", "Outcome", "Status", "Task", "TaskQueue"]
