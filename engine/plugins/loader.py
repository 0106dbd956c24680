"""From a script file to plugins: read, inspect in a throw-away state, then one state per block (spec 1.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.plugins.attachment import attached_groups, attaches_by_title, titles_for
from engine.plugins.blocks import BlockType, Side
from engine.plugins.declared import read_group
from engine.plugins.description import Description, describe
from engine.plugins.plugin import Plugin
from engine.plugins.script import ScriptFile, ScriptState
from engine.stream.groups import Groups
from engine.values.errors import ScriptLoadError
from engine.values.windows import CounterGroup, NamedGroup
from engine.vm.state import LuaError

Settings = Callable[[Side], Mapping[str, Any]]
Log = Callable[[int, bytes], None]
Functions = Callable[[], Mapping[str, Any]]
Register = Callable[[CounterGroup | NamedGroup], None]

_ERROR, _WARN = 4, 5  # of T.K.loglevel


def read_script(path: str | Path) -> ScriptFile:
    """Read a script. Raises `ScriptLoadError` when it can't be."""
    place = Path(path)
    try:
        return ScriptFile(str(place.absolute()), place.name, place.read_bytes())
    except OSError as exc:
        raise ScriptLoadError(str(path), "load", exc.strerror or str(exc)) from None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A script whose plugins were made and are not started yet."""

    plugins: tuple[Plugin, ...]
    """In the order of the block table."""
    by_title: bool
    """Groups that are registered later may get instances of their own."""


def load_script(
    script: ScriptFile,
    settings: Settings,
    log: Log,
    groups: Groups,
    register: Register = lambda _group: None,
    wanted: Callable[[BlockType, str], bool] = lambda _block, _group: True,
    functions: Functions = dict,
) -> Loaded:
    """Make the plugins of a script, of those blocks and groups that are wanted.

    `register` hears of the groups that it declares, before there are plugins. They stay, whatever becomes of these.
    `functions` gives each state what it has of the host beyond what all have.
    Raises `ScriptLoadError` and leaves nothing behind.
    """
    inspected = ScriptState(script, settings("backend"), log, functions())
    try:
        description = _describe(script.name, inspected)
        for warning in description.warnings:
            log(_WARN, warning.encode())
        for declared in [read_group(script.name, name, inspected.declared(name)) for name in description.declared]:
            register(declared)
        attachments = [
            (block, group)
            for block in description.blocks
            for group in _groups(inspected, block, groups, log)
            if wanted(block, group)
        ]
        by_title = any(attaches_by_title(inspected, block) for block in description.blocks)
    finally:
        inspected.close()
    plugins: list[Plugin] = []
    try:
        for block, group in attachments:
            plugins.append(_make(script, description, block, group, groups, settings, log, functions))
    except BaseException:
        for plugin in plugins:
            plugin.close()
        raise
    return Loaded(tuple(plugins), by_title)


def _describe(script: str, inspected: ScriptState) -> Description:
    try:
        return describe(script, inspected.describe())
    except (LuaError, ValueError) as exc:
        raise ScriptLoadError(script, "load", f"TrisulPlugin can't be read: {exc}") from exc


def _groups(inspected: ScriptState, block: BlockType, known: Groups, log: Log) -> list[str]:
    groups = attached_groups(inspected, block, known, lambda error: log(_ERROR, error.encode()))
    if not groups:
        log(_WARN, f"{block.name}.{block.group_field} names no group; the block is not loaded".encode())
    return groups


def _make(
    script: ScriptFile,
    description: Description,
    block: BlockType,
    group: str,
    groups: Groups,
    settings: Settings,
    log: Log,
    functions: Functions,
) -> Plugin:
    host = ScriptState(script, settings(block.side), log, functions())
    hooks = description.hooks.get(block.name, frozenset())
    try:
        return Plugin(description, block, host, group, titles_for(block, groups).get(group, ""), hooks)
    except BaseException:
        host.close()
        raise


__all__ = ["Loaded", "ScriptFile", "load_script", "read_script"]
