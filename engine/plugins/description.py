"""What a script says of itself: the table TrisulPlugin, read out of a state, checked, with hints for near misses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engine.plugins.blocks import (
    BLOCK_HOOKS,
    BLOCKS,
    DECLARATIVE,
    NO_BLOCK,
    PLUGIN_FIELDS,
    BlockType,
    hint,
)
from engine.values.config import MAX_WORKERS
from engine.values.errors import ScriptLoadError


@dataclass(frozen=True, slots=True)
class Identity:
    """The `id` table with its defaults (spec 1.3)."""

    name: str
    description: str = ""
    author: str = "Unleash"
    version_major: int = 1
    version_minor: int = 0
    class_id: str = ""
    """`clsid` in upper case: what `T.host:broadcast` names its listeners by (spec 2.19)."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a script wants its workers; None leaves it to the engine's settings."""

    isolation: Literal["thread", "process"] | None = None
    strict_timeout: bool = False
    """Workers run without the compiler, so that a Lua loop past its timeout is really ended."""
    max_tasks: int | None = None
    """A worker's state is built anew after so many tasks."""
    memory_mb: int | None = None
    """Limit of a worker's state, in MiB."""
    queue_limit: int | None = None
    """Unfinished tasks of a block, where the engine allows as many."""
    prepares: bool = False
    """The script has async_onload or async_onunload."""


@dataclass(frozen=True, slots=True)
class Description:
    """A script that was found fit to be loaded."""

    script: str
    identity: Identity
    blocks: tuple[BlockType, ...]
    declared: tuple[str, ...]
    """Its blocks that declare a group."""
    hooks: Mapping[str, frozenset[str]]
    """Per block, the hooks that the script defines and that are called."""
    topics: tuple[str, ...]
    """Of event_monitor; empty for all."""
    workers: int | None
    """`request_async_workers`, or None when the script names no number."""
    worker_options: WorkerOptions
    subscriptions: frozenset[str] | None
    """`message_subscriptions` in upper case, as ids compare in any (spec 1.8); None delivers everything."""
    receives_messages: bool
    warnings: tuple[str, ...]


def describe(script: str, raw: bytes) -> Description:
    """Judge what plugin.lua's `describe` gave. Raises `ScriptLoadError` naming the field that is wrong."""
    told = json.loads(raw.decode("utf-8", "replace"))
    fields, blocks = dict(told["fields"] or {}), dict(told["blocks"] or {})
    found = tuple(BLOCKS[name] for name in BLOCKS if name in blocks)
    return Description(
        script=script,
        identity=_identity(script, told.get("id")),
        blocks=found or (NO_BLOCK,),
        declared=tuple(sorted(DECLARATIVE & blocks.keys())),
        hooks={block.name: _hooks(block, blocks[block.name]) for block in found},
        topics=_topics(script, blocks),
        workers=_workers(script, fields.get("request_async_workers")),
        worker_options=_worker_options(script, fields),
        subscriptions=_subscriptions(script, fields.get("message_subscriptions")),
        receives_messages=fields.get("onmessage", {}).get("kind") == "function",
        warnings=tuple(_warnings(fields, blocks)),
    )


def _identity(script: str, told: Any) -> Identity:
    values = {name: shape["value"] for name, shape in (told or {}).items() if "value" in shape}
    major, minor = values.get("version_major", 1), values.get("version_minor", 0)
    return Identity(
        name=str(values.get("name", script)),
        description=str(values.get("description", "")),
        author=str(values.get("author", "Unleash")),
        version_major=major if isinstance(major, int) else 1,
        version_minor=minor if isinstance(minor, int) else 0,
        class_id=str(values.get("clsid", "")).upper(),
    )


def _hooks(block: BlockType, shapes: Any) -> frozenset[str]:
    return frozenset(name for name, shape in dict(shapes or {}).items() if shape["kind"] == "function") & block.hooks


def _workers(script: str, shape: Mapping[str, Any] | None) -> int | None:
    if shape is None:
        return None
    value = shape.get("value")
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_WORKERS:
        return value
    raise ScriptLoadError(
        script, "load", f"request_async_workers must be a whole number from 1 to {MAX_WORKERS}, not {_shown(shape)}"
    )


def _worker_options(script: str, fields: Mapping[str, Any]) -> WorkerOptions:
    isolation = fields.get("async_isolation", {}).get("value")
    if "async_isolation" in fields and isolation not in ("thread", "process"):
        raise ScriptLoadError(script, "load", f'async_isolation must be "thread" or "process", not {isolation!r}')
    return WorkerOptions(
        isolation=isolation,
        strict_timeout=fields.get("async_strict_timeout", {}).get("value") is True,
        max_tasks=_at_least_one(script, "async_max_tasks", fields),
        memory_mb=_at_least_one(script, "async_memory_mb", fields),
        queue_limit=_at_least_one(script, "async_queue_limit", fields),
        prepares=any(fields.get(name, {}).get("kind") == "function" for name in ("async_onload", "async_onunload")),
    )


def _at_least_one(script: str, field: str, fields: Mapping[str, Any]) -> int | None:
    if field not in fields:
        return None
    value = fields[field].get("value")
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ScriptLoadError(script, "load", f"{field} must be a whole number from 1, not {_shown(fields[field])}")


def _shown(shape: Mapping[str, Any]) -> str:
    """A value that is wrong, for a message."""
    value = shape.get("value")
    return f"a {shape['kind']}" if value is None or isinstance(value, list | dict) else repr(value)


def _strings(script: str, field: str, shape: Mapping[str, Any]) -> tuple[str, ...]:
    items = shape.get("value")
    if shape["kind"] == "string":
        return (str(items),)
    if shape["kind"] == "table" and isinstance(items, list) and all(isinstance(item, str) for item in items):
        return tuple(items)
    if shape["kind"] == "table" and items == {}:
        return ()
    raise ScriptLoadError(script, "load", f"{field} must be an array of strings, not a {shape['kind']}")


def _subscriptions(script: str, shape: Mapping[str, Any] | None) -> frozenset[str] | None:
    if shape is None:
        return None
    return frozenset(each.upper() for each in _strings(script, "message_subscriptions", shape))


def _topics(script: str, blocks: Mapping[str, Any]) -> tuple[str, ...]:
    shapes = dict(blocks.get("event_monitor") or {})
    if "topics" not in shapes:
        return ()
    return _strings(script, "event_monitor.topics", shapes["topics"])


def _warnings(fields: Mapping[str, Any], blocks: Mapping[str, Any]) -> list[str]:
    warnings = []
    if "id" not in fields:
        warnings.append("TrisulPlugin.id is missing: give id = { name = ... }")
    known = frozenset(BLOCKS) | DECLARATIVE | PLUGIN_FIELDS
    near_misses = [(name, near) for name in sorted(fields) if (near := hint(name, known))]
    warnings += [f"TrisulPlugin.{name} is no name known here: did you mean {near!r}?" for name, near in near_misses]
    for name in sorted(set(blocks) & set(BLOCKS)):
        warnings.extend(_block_warnings(BLOCKS[name], dict(blocks[name] or {})))
    return warnings


def _block_warnings(block: BlockType, shapes: Mapping[str, Any]) -> list[str]:
    warnings = []
    known = block.hooks | block.fields | BLOCK_HOOKS
    for name, shape in sorted(shapes.items()):
        if shape["kind"] == "function" and (near := hint(name, known)):
            warnings.append(f"{block.name}.{name} is no hook: did you mean {near!r}?")
    return warnings
