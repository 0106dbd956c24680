"""Python functions that scripts may call, each because a service said so. Loop thread only."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.plugins.plugin import Plugin
from engine.values.errors import EngineError
from engine.values.stats import CallStats
from engine.vm.state import text
from lua_api import plain_from_lua, plain_to_lua

_SCALARS = (type(None), bool, int, float, str, bytes)


@dataclass(frozen=True, slots=True)
class _Function:
    call: Callable[..., Any]
    signature: inspect.Signature
    wanted: Mapping[str, Any]
    """Types by parameter, as far as they are known."""
    is_later: bool


class Exposed:
    """The functions by name, and the coroutines that calls of them started."""

    def __init__(self, now: Callable[[], float], take: Callable[[Iterable[Plugin]], None]) -> None:
        """`take` empties outboxes."""
        self._now = now
        self._take = take
        self._functions: dict[str, _Function] = {}
        self._start: Callable[..., object] | None = None
        self._called = self._answered = self._failed = self._abandoned = 0

    def begin(self, start_soon: Callable[..., object]) -> None:
        """From now on coroutine functions are started by this."""
        self._start = start_soon

    def expose(self, name: str, function: Callable[..., Any]) -> None:
        """As `Engine.expose`."""
        if not name.isidentifier():
            raise EngineError(f"cannot expose {name!r}: a name of letters, digits and underscores is needed")
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError) as exc:
            raise EngineError(f"cannot expose {name!r}: its arguments are not known: {exc}") from None
        try:
            wanted = typing.get_type_hints(function)
        except (NameError, TypeError, AttributeError):  # types that are there for the type checker only
            wanted = {}
        self._functions[name] = _Function(function, signature, wanted, inspect.iscoroutinefunction(function))

    def call(self, name: bytes, arguments: bytes) -> tuple[bytes, bytes]:
        """What is behind T.host.call, as `lua_api.install.Call`: the only Python that a script can reach on purpose."""
        function = self._functions.get(text(name))
        if function is None:
            there = ", ".join(sorted(self._functions)) or "none"
            return b"error", f"the host has exposed no such function, there are: {there}".encode()
        self._called += 1
        try:
            bound = _bind(function, plain_from_lua(arguments))
            if function.is_later:
                return b"later", arguments
            answer = _written(function.call(*bound.args, **bound.kwargs))
        except Exception as exc:
            self._failed += 1
            return b"error", _words(exc)
        self._answered += 1
        return b"value", answer

    def start(self, plugin: Plugin, number: int, name: str, arguments: bytes) -> None:
        """Start a coroutine function; the plugin hears how it ended as promise of that number."""
        if self._start is None or plugin.closed:
            self._abandoned += 1
            return
        self._start(self._run, plugin, number, self._functions[name], plain_from_lua(arguments))

    async def _run(self, plugin: Plugin, number: int, function: _Function, arguments: list[Any]) -> None:
        settled = False
        try:
            bound = _bind(function, arguments)
            ok, answer = True, _written(await function.call(*bound.args, **bound.kwargs))
            settled = True
        except Exception as exc:
            settled, ok, answer = True, False, _words(exc)
        finally:
            if not settled:
                self._abandoned += 1
        if plugin.closed:
            self._abandoned += 1
            return
        self._answered += ok
        self._failed += not ok
        plugin.answered(self._now(), number, ok, answer)
        self._take((plugin,))

    @property
    def pending(self) -> int:
        """Calls of coroutine functions that have not ended."""
        return self._called - self._answered - self._failed - self._abandoned

    def stats(self) -> CallStats:
        """Counts at this moment."""
        return CallStats(self._called, self._answered, self._failed, self._abandoned, self.pending)


def _bind(function: _Function, arguments: list[Any]) -> inspect.BoundArguments:
    """Arguments as the function takes them. Raises `TypeError` naming the one that is wrong."""
    bound = function.signature.bind(*arguments)
    for name, value in bound.arguments.items():
        if name in function.wanted and function.signature.parameters[name].kind is not inspect.Parameter.VAR_POSITIONAL:
            bound.arguments[name] = _fit(value, function.wanted[name], name)
    return bound


def _fit(value: Any, wanted: Any, name: str) -> Any:
    """A value of Lua as the type that a parameter says: numbers are whole or not, strings are text or bytes."""
    choices = typing.get_args(wanted) if typing.get_origin(wanted) in (typing.Union, types.UnionType) else (wanted,)
    kinds = [typing.get_origin(each) or each for each in choices]
    kinds = [types.NoneType if kind is None else kind for kind in kinds]
    if not all(isinstance(kind, type) for kind in kinds):
        return value
    if type(value) in kinds:
        return value
    if type(value) is int and float in kinds:
        return float(value)
    if type(value) is float and value.is_integer() and int in kinds:
        return int(value)
    if isinstance(value, str) and bytes in kinds:
        return value.encode()
    if value == [] and any(issubclass(dict, kind) for kind in kinds):
        return {}  # an empty table may be either
    if type(value) is not bool and any(isinstance(value, kind) for kind in kinds):
        return value
    if any(kind is object for kind in kinds):
        return value
    names = " or ".join("None" if kind is types.NoneType else kind.__name__ for kind in kinds)
    raise TypeError(f"{name!r} must be {names}, not {type(value).__name__}")


def _written(value: Any) -> bytes:
    """A result as Lua reads it. Raises `TypeError` naming what is no plain value."""
    wrong = _refused(value, "the result", 0)
    if wrong:
        raise TypeError(wrong)
    return plain_to_lua(value)


def _refused(value: Any, where: str, depth: int) -> str:
    kind = type(value)
    if kind in _SCALARS:
        return ""
    if depth > 100:
        return f"{where} is nested too deep"
    if kind is dict:
        for key, item in value.items():
            if type(key) not in (str, int, float, bytes) or key != key:
                return f"{where} has the key {key!r}, which no Lua table can have here"
            if wrong := _refused(item, f"{where}[{key!r}]", depth + 1):
                return wrong
        return ""
    if kind in (list, tuple):
        return next(filter(None, (_refused(item, f"{where}[{at}]", depth + 1) for at, item in enumerate(value))), "")
    return f"{where} is a {kind.__name__}, which Lua cannot hold: give a number, text, bytes, list or dict"


def _words(exc: Exception) -> bytes:
    return f"{type(exc).__name__}: {exc}".encode("utf-8", "backslashreplace")
