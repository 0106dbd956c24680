"""The terminal behind `require "debugger"`. Nothing here raises into Lua."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def console_attached() -> bool:
    """Whether a person can answer: standard input and output are both a terminal."""
    try:
        return sys.stdin.isatty() and sys.stdout.isatty()
    except (AttributeError, ValueError):  # absent or closed, as in a service
        return False


def console_read(prompt: bytes) -> bytes | None:
    """One line from the terminal, or None at its end. Blocks, the event loop with it: that is what a break is."""
    try:
        line = input(prompt.decode("utf-8", "replace"))
    except (EOFError, KeyboardInterrupt, OSError, ValueError):
        return None
    return line.encode("utf-8", "surrogateescape")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "console_attached": console_attached,
    "console_read": console_read,
}
"""What the module `offpath.host` offers for `debugger`."""
