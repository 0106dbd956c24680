"""What `Engine.run` reads: capture files and folders, at their own pace or not, pipes, network interfaces, scripts."""

from engine.values.sources import Capture, Captures, Live, Pipe, Replay, Script

__all__ = ["Capture", "Captures", "Live", "Pipe", "Replay", "Script"]
