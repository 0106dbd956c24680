"""Which groups a monitor is attached to: by GUID, by a part of their title, by a regular expression (spec 1.7)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import re2

from engine.plugins.blocks import BlockType
from engine.plugins.script import ScriptState
from engine.stream.groups import Groups
from engine.values.errors import ScriptLoadError

_KINDS = {"alert_monitor": "alert", "cg_monitor": "counter"}


def titles_for(block: BlockType, groups: Groups) -> Mapping[str, str]:
    """Titles, by GUID, of the groups that a block may be attached to by title."""
    kind = _KINDS.get(block.name)
    return groups.titles(kind) if kind else {}


def attached_groups(state: ScriptState, block: BlockType, known: Groups, report: Callable[[str], None]) -> list[str]:
    """The groups that instances of a block are attached to, each once; one empty name for blocks without groups.

    `report(text)` hears of errors of the script's functions. Raises `ScriptLoadError` for a bad regular expression.
    """
    if not block.group_field:
        return [""]
    groups = [guid.upper() for guid in _named(state, block, block.group_field, report)]
    titles = titles_for(block, known)
    parts, expressions = (_named(state, block, name, report) if name else [] for name in block.name_fields)
    for part in parts:
        groups += [guid for guid, title in titles.items() if part.lower() in title.lower()]
    for expression in expressions:
        search = _compile(state.script.name, block, expression)
        groups += [guid for guid, title in titles.items() if search(title)]
    if not groups and block.default_group:
        groups = [block.default_group]
    return list(dict.fromkeys(groups))


def attaches_by_title(state: ScriptState, block: BlockType) -> bool:
    """Whether groups that are registered later may be meant."""
    return any(name and _named(state, block, name, lambda _text: None) for name in block.name_fields)


def _named(state: ScriptState, block: BlockType, name: str, report: Callable[[str], None]) -> list[str]:
    named = json.loads(state.groups(block.name, name).decode("utf-8", "replace"))
    for error in state.errors():
        report(error)
    return list(named or ())


def _compile(script: str, block: BlockType, expression: str) -> Callable[[str], object]:
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(expression, options)
    except re2.error as exc:
        reason = exc.args[0].decode() if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        raise ScriptLoadError(
            script, "load", f"{block.name}.{block.name_fields[1]} is no regular expression: {reason}"
        ) from None
    search: Callable[[str], object] = compiled.search
    return search
