"""Log lines of scripts: as records, and through Python's logging as `offpath.script`. Loop thread only."""

from __future__ import annotations

import logging
from collections.abc import Callable

from engine.values.errors import ScriptError
from engine.values.records import Log

LEVELS = ("EMERG", "FATAL", "ALERT", "CRIT", "ERROR", "WARN", "NOTICE", "INFO", "DEBUG")
"""Names of `T.K.loglevel`, by number."""

_PYTHON_LEVELS = {
    "EMERG": logging.CRITICAL,
    "FATAL": logging.CRITICAL,
    "ALERT": logging.CRITICAL,
    "CRIT": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "NOTICE": logging.INFO,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
}

_logger = logging.getLogger("offpath.script")


class ScriptLog:
    """Takes lines and errors, with the script they are about."""

    def __init__(self, publish: Callable[[Log], None], now: Callable[[], float]) -> None:
        self._publish = publish
        self._now = now
        self.errors = 0
        """Errors of scripts so far."""

    def write(self, script: str, level: str, line: str) -> None:
        """A line from a script, or about one."""
        self._publish(Log(level, script, line, self._now()))
        _logger.log(_PYTHON_LEVELS[level], "[%s] %s", script, line)

    def writer(self, script: str) -> Callable[[int, bytes], None]:
        """What a Lua state of a script logs through."""

        def write(level: int, line: bytes) -> None:
            number = int(level) if 0 <= level < len(LEVELS) else len(LEVELS) - 1
            self.write(script, LEVELS[number], line.decode("utf-8", "backslashreplace"))

        return write

    def error(self, error: ScriptError) -> None:
        """An error of a script, with its traceback."""
        self.errors += 1
        traceback = f"\n{error.traceback}" if error.traceback else ""
        self.write(error.script, "ERROR", f"{error.hook}: {error.message}{traceback}")
