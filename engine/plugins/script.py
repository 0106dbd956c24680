"""A script as it was read, and a state in which its chunk has run. Loop thread only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.values.errors import ScriptLoadError
from engine.vm.state import LuaState, line_of, text
from lua_api import WIDTH, Effect, install_plugin


@dataclass(frozen=True, slots=True)
class ScriptFile:
    """A script as read from disk, and where its `require` looks."""

    path: str
    name: str
    source: bytes
    roots: Sequence[str] = ()

    @property
    def directory(self) -> str:
        """The folder of the script."""
        return os.path.dirname(self.path) or "."  # noqa: PTH120


class ScriptState:
    """A state in which a script's chunk has run, before it is known which block it serves."""

    def __init__(
        self,
        script: ScriptFile,
        settings: Mapping[str, Any],
        log: Callable[[int, bytes], None],
        functions: Mapping[str, Any] | None = None,
    ) -> None:
        """`functions` are those of the host beyond what all states get.

        Raises `ScriptLoadError` when the chunk does not load; the state is closed then.
        """
        self.script = script
        self.functions = functions or {}
        self.state = LuaState()
        self.lua: Any = install_plugin(self.state, settings, log, functions)
        roots = self.state.table(list(script.roots))
        try:
            wrong = self.lua[b"load"](script.source, script.name.encode(), script.directory.encode(), roots)
            if wrong is not None:
                message = text(wrong[0])
                raise ScriptLoadError(script.name, "load", message, line=line_of(message), traceback=text(wrong[1]))
        except BaseException:
            self.close()
            raise

    def describe(self) -> bytes:
        """The table TrisulPlugin, as plugin.lua describes it."""
        described: bytes = self.lua[b"describe"]()
        return described

    def groups(self, block: str, field_name: str) -> bytes:
        """The GUIDs that a field of a block names, as JSON."""
        named: bytes = self.lua[b"groups"](block.encode(), field_name.encode())
        return named

    def declared(self, block: str) -> bytes:
        """What a block that declares a group says (declared.lua), as JSON."""
        told: bytes = self.lua[b"declared"](block.encode())
        return told

    def errors(self) -> list[str]:
        """What hooks and functions of the script raised since the last call."""
        return [
            f"{text(values[0])}: {text(values[1])}"
            for code, values in read_outbox(self.lua[b"take"])
            if code == Effect.ERROR
        ]

    def close(self) -> None:
        """Drop the state."""
        self.lua = None
        self.state.close()


def read_outbox(take: Callable[[bool], Any]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """What `take` of plugin.lua gives at the end of a batch, effect by effect."""
    values: list[Any] = []
    taken = take(True)
    while taken is not None:
        if isinstance(taken, tuple):
            values += taken
        else:
            values.append(taken)
        taken = take(False)
    at = 0
    while at < len(values):
        end = at + 1 + WIDTH[values[at]]
        yield values[at], tuple(values[at + 1 : end])
        at = end
