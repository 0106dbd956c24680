"""Everything behind `T.async`: worker threads with Lua states, file operations, ordering, limits."""

from engine.offload.door import Queue
from engine.offload.gate import Gate
from engine.offload.lane import LaneUser
from engine.offload.queue import TaskQueue
from engine.offload.task import Outcome, Status, Task

__all__ = ["Gate", "LaneUser", "Outcome", "Queue", "Status", "Task", "TaskQueue"]
