"""From a script file to plugins: read, inspect in a throw-away state, then one state per block (spec 1.6)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.plugins.blocks import BlockType, Side
from engine.plugins.declared import read_group
from engine.plugins.description import Description, describe
from engine.plugins.plugin import Plugin, ScriptFile, ScriptState
from engine.values.errors import ScriptLoadError
from engine.values.windows import CounterGroup, NamedGroup
from engine.vm.state import LuaError

Settings = Callable[[Side], Mapping[str, Any]]
Log = Callable[[int, bytes], None]
Register = Callable[[CounterGroup | NamedGroup], None]

_ERROR, _WARN = 4, 5  # of T.K.loglevel


def read_script(path: str | Path) -> ScriptFile:
    """Read a script. Raises `ScriptLoadError` when it can't be."""
    place = Path(path)
    try:
        return ScriptFile(str(place.absolute()), place.name, place.read_bytes())
    except OSError as exc:
        raise ScriptLoadError(str(path), "load", exc.strerror or str(exc)) from None


def _ignore(_group: CounterGroup | NamedGroup) -> None:
    """Nobody keeps groups."""


def load_plugins(script: ScriptFile, settings: Settings, log: Log, register: Register = _ignore) -> list[Plugin]:
    """The plugins of a script, in the order of the block table. Raises `ScriptLoadError` and leaves nothing behind.

    `register` hears of the groups that it declares, before there are plugins. They stay, whatever becomes of these.
    """
    inspected = ScriptState(script, settings("backend"), log)
    try:
        description = _describe(script.name, inspected)
        for warning in description.warnings:
            log(_WARN, warning.encode())
        for declared in [read_group(script.name, name, inspected.declared(name)) for name in description.declared]:
            register(declared)
        attachments = [(block, group) for block in description.blocks for group in _groups(inspected, block, log)]
    finally:
        inspected.close()
    plugins: list[Plugin] = []
    try:
        for block, group in attachments:
            plugins.append(_make(script, description, block, group, settings, log))
    except BaseException:
        for plugin in plugins:
            plugin.close()
        raise
    return plugins


def _describe(script: str, inspected: ScriptState) -> Description:
    try:
        return describe(script, inspected.describe())
    except (LuaError, ValueError) as exc:
        raise ScriptLoadError(script, "load", f"TrisulPlugin can't be read: {exc}") from exc


def _groups(inspected: ScriptState, block: BlockType, log: Log) -> list[str]:
    """The groups that instances of a block are attached to, each once; one empty name for blocks without groups."""
    if not block.group_field:
        return [""]
    named = json.loads(inspected.groups(block.name, block.group_field).decode("utf-8", "replace"))
    for error in inspected.errors():
        log(_ERROR, error.encode())
    groups = list(dict.fromkeys(group.upper() for group in named or ()))
    if not groups:
        log(_WARN, f"{block.name}.{block.group_field} names no group; the block is not loaded".encode())
    return groups


def _make(
    script: ScriptFile, description: Description, block: BlockType, group: str, settings: Settings, log: Log
) -> Plugin:
    host = ScriptState(script, settings(block.side), log)
    try:
        return Plugin(description, block, host, group, description.hooks.get(block.name, frozenset()))
    except BaseException:
        host.close()
        raise


__all__ = ["ScriptFile", "load_plugins", "read_script"]
