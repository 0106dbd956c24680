"""The table of script types: consistent in itself, and with the adapters of the Lua side."""

from __future__ import annotations

from collections import defaultdict

import pytest

from engine.plugins.blocks import (
    BLOCK_HOOKS,
    BLOCKS,
    DECLARATIVE,
    NO_BLOCK,
    PLUGIN_FIELDS,
    BlockType,
    hint,
)
from engine.vm.state import LuaState
from lua_api import install_plugin

BATCHED = defaultdict[str, set[str]](
    set,
    alert_monitor={"flushfilter", "onflush"},
    resource_monitor={"flushfilter", "onflush"},
    fts_monitor={"flushfilter", "onflush"},
    sg_monitor={"flushfilter", "onflush"},
    flowtracker={"getmetric"},
    cg_monitor={"onflushfilter", "onflush", "ontopperflushfilter", "ontopperflush", "onupdate", "onnewkey"},
)
"""Hooks without an adapter of their own."""

BLOCK_LIST = list(BLOCKS.values())


def adapters() -> dict[str, set[str]]:
    """The hooks that lua_api/hooks.lua has an adapter for, by block."""
    state = LuaState()
    install_plugin(state, {"side": "frontend", "homenets": [], "config": {}, "queue_limit": 1}, lambda *_: None)
    hooks = state.require("offpath.hooks")
    return {block.decode(): {hook.decode() for hook in hooks[block]} for block in hooks}


def test_every_hook_has_an_adapter_and_every_adapter_a_hook() -> None:
    """Those of packets are fed as they are (feed.lua), those of a flush in batches (flushkeys.lua, flushitems.lua)."""
    plain = {block.name: set(block.hooks) - BATCHED[block.name] for block in BLOCK_LIST if not block.packets}
    assert adapters() == plain


@pytest.mark.parametrize("block", BLOCK_LIST, ids=lambda block: block.name)
def test_a_row_is_consistent(block: BlockType) -> None:
    assert BLOCKS[block.name] is block
    assert block.side in ("frontend", "backend")
    assert block.hooks
    assert not block.hooks & (block.fields | BLOCK_HOOKS)
    assert not block.group_field or block.group_field in block.fields
    assert block.side == "backend" or not block.group_field
    assert not block.name_fields[0] or set(block.name_fields) <= block.fields


def test_types_and_fields_have_different_names() -> None:
    assert not BLOCKS.keys() & DECLARATIVE
    assert not (BLOCKS.keys() | DECLARATIVE) & PLUGIN_FIELDS


def test_all_types_of_the_spec_are_known() -> None:
    assert len(BLOCKS.keys() | DECLARATIVE) == 19 + 2  # and those of our own: event_monitor, simulation


def test_a_script_without_a_block_has_no_hooks() -> None:
    assert (NO_BLOCK.name, NO_BLOCK.hooks, NO_BLOCK.group_field) == ("", frozenset(), "")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("filex_monitor", None),
        ("filexmonitor", "filex_monitor"),
        ("FileX_Monitor", "filex_monitor"),
        ("alert_monitors", "alert_monitor"),
        ("resourcemonitor", "resource_monitor"),
        ("onLoad", "onload"),
        ("on_load", "onload"),
        ("schedule_polls", None),
        ("x", None),
        ("", None),
    ],
)
def test_a_hint_is_given_for_near_misses_only(name: str, meant: str | None) -> None:
    assert hint(name, frozenset(BLOCKS) | PLUGIN_FIELDS) == meant
