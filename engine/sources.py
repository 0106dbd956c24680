"""What `Engine.run` reads: capture files and folders, at their own pace or not, pipes, and network interfaces."""

from engine.values.sources import Capture, Captures, Live, Pipe, Replay

__all__ = ["Capture", "Captures", "Live", "Pipe", "Replay"]
