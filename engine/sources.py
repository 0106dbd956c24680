"""What `Engine.run` reads: capture files and folders, at their own pace or not, pipes, network interfaces, scripts, and
packets that the program itself brings."""

from engine.values.sources import Capture, Captures, Feed, Live, Pipe, Replay, Script

__all__ = ["Capture", "Captures", "Feed", "Live", "Pipe", "Replay", "Script"]
