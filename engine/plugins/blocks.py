"""The one table of script types: which blocks there are, which side each is on, which hooks it has (spec 1.4, 2).

A new type is a row here and an adapter per hook in lua_api/hooks.lua.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from engine.values.groups import IP_FLOWS

Side = Literal["frontend", "backend"]


@dataclass(frozen=True, slots=True)
class BlockType:
    """A script type."""

    name: str
    side: Side
    hooks: frozenset[str] = frozenset()
    """Hooks that are called."""
    fields: frozenset[str] = frozenset()
    packets: bool = False
    """The hook runs over the frames of a batch."""
    group_field: str = ""
    """The field that names the group of a monitor."""
    name_fields: tuple[str, str] = ("", "")
    """Fields that name groups by a part of their title and by a regular expression (spec 1.7)."""
    default_group: str = ""
    """The group of a monitor that names none; without one such a monitor is not loaded."""


_CYCLE = frozenset({"onbeginflush", "onendflush", "onmetronome"})
_FLUSH = _CYCLE | {"flushfilter", "onflush"}

BLOCKS: dict[str, BlockType] = {
    block.name: block
    for block in (
        BlockType(
            "filex_monitor",
            "frontend",
            hooks=frozenset(
                {"filter_flow", "filter", "onpayload_raw", "onpayload_http", "onfile_http", "onterminateflow"}
            ),
        ),
        BlockType(
            "reassembly_handler",
            "frontend",
            hooks=frozenset({"filter", "onnewflow", "onpayload", "onattribute", "onterminateflow"}),
        ),
        BlockType("flowmonitor", "frontend", hooks=frozenset({"onflowattribute"})),
        BlockType(
            "resource_monitor",
            "backend",
            hooks=_FLUSH | {"onnewresource"},
            fields=frozenset({"resource_guid"}),
            group_field="resource_guid",
        ),
        BlockType(
            "alert_monitor",
            "backend",
            hooks=_FLUSH | {"onnewalert"},
            fields=frozenset({"alert_guid", "alert_name_match", "alert_name_regex"}),
            group_field="alert_guid",
            name_fields=("alert_name_match", "alert_name_regex"),
        ),
        BlockType(
            "fts_monitor",
            "backend",
            hooks=_FLUSH | {"onnewfts"},
            fields=frozenset({"fts_guid"}),
            group_field="fts_guid",
        ),
        BlockType(
            "cg_monitor",
            "backend",
            hooks=_CYCLE
            | {
                "onflushfilter",
                "onflush",
                "onbegintopperflush",
                "ontopperflushfilter",
                "ontopperflush",
                "onendtopperflush",
                "onupdate",
                "onnewkey",
            },
            fields=frozenset({"counter_guid", "counter_name_match", "counter_name_regex"}),
            group_field="counter_guid",
            name_fields=("counter_name_match", "counter_name_regex"),
        ),
        BlockType(
            "sg_monitor",
            "backend",
            hooks=_FLUSH | {"onnewflow", "onupdate", "onterminate"},
            fields=frozenset({"session_guid"}),
            group_field="session_guid",
            default_group=IP_FLOWS,
        ),
        BlockType("flowtracker", "backend", hooks=_CYCLE | {"getmetric"}, fields=frozenset({"control"})),
        BlockType("engine_monitor", "backend", hooks=_CYCLE),
        BlockType(
            "protocol_handler", "frontend", hooks=frozenset({"parselayer"}), fields=frozenset({"control"}), packets=True
        ),
        BlockType(
            "simplecounter",
            "frontend",
            hooks=frozenset({"onpacket"}),
            fields=frozenset({"protocol_guid", "flow_counter"}),
            packets=True,
        ),
        BlockType("packet_storage", "frontend", hooks=frozenset({"filter", "filter_payload"})),
        BlockType("inputfilter", "frontend", hooks=frozenset({"step", "step_alert"})),
        BlockType("messagemonitor", "frontend", hooks=frozenset({"onnewflowrecord", "onflowmetric"})),
        BlockType("simulation", "frontend", hooks=frozenset({"onbegin", "onend"})),
        BlockType("channellistener", "frontend", hooks=frozenset({"onchannelmessage"})),
        BlockType("event_monitor", "frontend", hooks=frozenset({"onevent"}), fields=frozenset({"topics"})),
    )
}

NO_BLOCK = BlockType("", "frontend")
"""What a script without a block is: it has onload, onunload and onmessage only."""

DECLARATIVE = frozenset({"countergroup", "alertgroup", "resourcegroup"})
"""Blocks that declare a group (declared.py). They have no hooks, and no instance of their own."""

PLUGIN_FIELDS = frozenset(
    {
        "id",
        "onload",
        "onunload",
        "onmessage",
        "message_subscriptions",
        "request_async_workers",
        "async_onload",
        "async_onunload",
        "async_isolation",
        "async_strict_timeout",
        "async_max_tasks",
        "async_memory_mb",
        "async_queue_limit",
    }
)
BLOCK_HOOKS = frozenset({"onload", "onunload"})


def hint(name: str, known: frozenset[str]) -> str | None:
    """The known name that an unknown one nearly is, if there is one."""
    if name in known:
        return None
    folded = {each.replace("_", ""): each for each in known}
    if name.lower().replace("_", "") in folded:
        return folded[name.lower().replace("_", "")]
    close = get_close_matches(name.lower(), known, n=1, cutoff=0.85)
    return close[0] if close else None
