"""Every exception that leaves the engine, with who raises it and when.

Messages are written for the script author: the offender first, lower case, no full stop.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of every error that the engine raises on purpose."""


class LuaUnavailableError(EngineError):
    """Raised at start when the installed lupa carries no LuaJIT 2.1."""

    def __init__(self) -> None:
        super().__init__(
            "lupa has no LuaJIT 2.1 on this machine: install a binary wheel with 'pip install --only-binary=lupa lupa'"
        )


class ConfigError(EngineError):
    """Raised when a setting is unknown or out of range; names the setting."""


class EngineClosedError(EngineError):
    """Raised when an engine is used before it was entered or after it was left."""

    def __init__(self, action: str) -> None:
        super().__init__(f"cannot {action}: the engine is not running, use it inside 'async with Engine(...)'")


class StateClosedError(EngineError):
    """Raised when a Lua state is called after it was closed, or from a thread that does not own it."""


class LuaMemoryLimitError(EngineError):
    """Raised when a Lua state went past its memory limit; the state is spent and must be closed."""


class CaptureError(EngineError):
    """Raised when a capture can't be opened or is of no known format. Broken records inside one are counted instead."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class SinkError(EngineError):
    """Raised when a sink can't open what it writes to, or can't write on; the records from then on are lost."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class ScriptError(EngineError):
    """A Lua error in a script: which file, which hook, which line, and the Lua traceback.

    `hook` is ``"filex_monitor.onfile_http"`` or ``"load"``; `line` is 0 where Lua named none.
    """

    def __init__(self, script: str, hook: str, message: str, *, line: int = 0, traceback: str = "") -> None:
        super().__init__(f"{script}: {hook}: {message}")
        self.script = script
        self.hook = hook
        self.message = message
        self.line = line
        self.traceback = traceback


class ScriptLoadError(ScriptError):
    """A script that could not be loaded: syntax, an error in its chunk, no TrisulPlugin, a bad field."""


class RequestError(EngineError):
    """Raised when a request has no answer: a handler raised, rejected it or was unloaded; names the script."""

    def __init__(self, script: str, message: str) -> None:
        super().__init__(f"{script}: event_monitor.onevent: {message}")
        self.script = script
        self.message = message
