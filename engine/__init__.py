"""Offpath: an asyncio event engine scripted in Lua."""

from engine.pipeline.crossing import Packed
from engine.pipeline.engine import Engine
from engine.pipeline.records import Sink, Subscription
from engine.values.config import CaptureLimits, Config
from engine.values.errors import CaptureError, ConfigError, EngineError, RequestError, ScriptError, ScriptLoadError
from engine.values.sources import Capture, Script
from engine.values.stats import EngineStats

__all__ = [
    "Capture",
    "CaptureError",
    "CaptureLimits",
    "Config",
    "ConfigError",
    "Engine",
    "EngineError",
    "EngineStats",
    "Packed",
    "RequestError",
    "Script",
    "ScriptError",
    "ScriptLoadError",
    "Sink",
    "Subscription",
]
