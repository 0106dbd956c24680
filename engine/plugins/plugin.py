"""A plugin: one block of a script in a Lua state of its own. Loop thread only."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.offload import Outcome, Queue, Status
from engine.offload.task import WANTS_ERROR, WANTS_RESULT
from engine.plugins.blocks import BLOCK_HOOKS, BlockType
from engine.plugins.description import Description
from engine.plugins.script import ScriptState, read_outbox
from engine.values.errors import ScriptLoadError
from engine.values.stats import HookStats, PluginStats
from engine.vm.state import LuaError, text

_INPUT = ("step", "step_alert", "input_packets")

_EVENT_WAYS = ("event", "event_written", "events_written", "events_strings", "events_packed")

FAILED = object()
"""What `Plugin.call` gives when the hook raised."""


@dataclass(slots=True)
class _HookCounts:
    calls: int = 0
    errors: int = 0
    seconds: float = 0.0
    slowest: float = 0.0


@dataclass(slots=True, eq=False)
class Plugin:
    """A loaded block. Made by `engine.plugins.loader`; the pipeline calls its hooks and takes its outbox."""

    description: Description
    block: BlockType
    host: ScriptState
    group: str = ""
    """GUID of the group that a monitor is attached to."""
    group_title: str = ""
    hooks: frozenset[str] = frozenset()
    queue: Queue | None = None
    on_slow: Callable[[Plugin, str, float], None] = lambda _plugin, _hook, _seconds: None
    on_error: Callable[[Plugin, str, str, str], None] = lambda _plugin, _hook, _message, _traceback: None
    slow_seconds: float = 0.010
    closed: bool = False
    failed: bool = False
    """onload raised."""
    _counts: dict[str, _HookCounts] = field(default_factory=dict)
    _functions: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (
            "call",
            "events",
            "ask",
            "ask_written",
            "answered",
            "message",
            "complete",
            "complete_pack",
            "settle",
            "note_quick",
            "use_lane",
            "complete_lane",
            "take",
            "onload",
            "onunload",
            "protocols",
            "protocol_numbers",
            "learn_protocol",
            "guest",
            "learn_guest",
            "new_capture",
            "packets",
            "new_flow",
            "payload",
            "begin_input",
            "begin_storage",
            "ask_storage",
            "show_storage",
            "flush_keys",
            "flush_items",
            "flow_metrics",
            "leave_counters",
            "cross_counters",
            "learn_group",
        ):
            self._functions[name] = self.host.lua[name.encode()]
        group, title = self.group.encode() or None, self.group_title.encode() or None
        self.host.lua[b"bind"](self.block.name.encode(), group, title)
        if "onevent" in self.block.hooks:
            self._functions.update(zip(_EVENT_WAYS, self.host.lua[b"event_ways"](), strict=True))
        if self.description.worker_options.queue_limit is not None:
            self.host.lua[b"lower_limit"](self.description.worker_options.queue_limit)

    @property
    def script(self) -> str:
        """File name of the script."""
        return self.description.script

    @property
    def path(self) -> str:
        """Absolute path of the script."""
        return self.host.script.path

    @property
    def name(self) -> str:
        """`id.name` of the script."""
        return self.description.identity.name

    @property
    def label(self) -> str:
        """Script and block, for messages."""
        return f"{self.script} {self.block.name}".rstrip()

    # ---- calls into the script

    def onload(self, now: float) -> bool | None:
        """Run onload. False when the script vetoed, None when it raised."""
        result: bool | None = self._timed("onload", self._functions["onload"], now)
        return result

    def worker_hooks(self) -> tuple[tuple[int, bytes] | None, tuple[int, bytes] | None]:
        """async_onload and async_onunload as workers get them: code id and upvalues. The code is in the outbox."""
        if not self.description.worker_options.prepares:
            return None, None
        load_code, load_upvalues, unload_code, unload_upvalues = self.host.lua[b"worker_hooks"]()
        return (
            (load_code, load_upvalues) if load_code else None,
            (unload_code, unload_upvalues) if unload_code else None,
        )

    def onunload(self, now: float) -> None:
        """Run onunload."""
        self._timed("onunload", self._functions["onunload"], now)

    def call(self, hook: str, now: float, lease: int, *args: Any) -> Any:
        """Call one hook of the block; what it returned (True, False, None, or text for all else), or FAILED."""
        result = self._timed(hook, self._functions["call"], hook.encode(), now, lease, *args)
        return FAILED if result is False else result[1]

    def events(self, way: str, now: float, topic: bytes, count: int, *args: Any) -> tuple[bool, Sequence[int]] | None:
        """Give events to onevent in one crossing, in one of the ways of events.lua.

        Whether something may be in the outbox, and the places of events that raised, from 0. None when the batch can't
        cross this way; then none was handled.
        """
        began = time.perf_counter()
        try:
            answer = self._functions[way](now, topic, *args)
        except LuaError as exc:  # past the script's own error boundary: out of memory, or out of stack in the handler
            self.on_error(self, "onevent", str(exc), "")
            answer = tuple(range(1, count + 1))
        if isinstance(answer, bytes):
            return None
        self._note("onevent", time.perf_counter() - began, count)
        if answer is True:
            return False, ()
        if answer == 0:
            return True, ()
        return True, [each - 1 for each in (answer if isinstance(answer, tuple) else (answer,))]

    def event(self, way: str, now: float, topic: bytes, event: bytes) -> int | None:
        """Give one event to onevent; `way` is "event" for bytes and "event_written" for what `marshal` wrote.

        True when nothing is in the outbox; otherwise how many raised, 0 or 1. None when it can't cross this way.
        """
        began = time.perf_counter()
        try:
            answer = self._functions[way](now, topic, event)
        except LuaError as exc:
            self.on_error(self, "onevent", str(exc), "")
            answer = 1
        if answer.__class__ is bytes:
            return None
        taken = time.perf_counter() - began
        counts = self._counts.get("onevent")
        if counts is None or taken > counts.slowest or taken > self.slow_seconds:
            self._note("onevent", taken, 1)
        else:
            counts.calls += 1
            counts.seconds += taken
        return answer  # type: ignore[no-any-return]

    def ask(self, way: str, now: float, topic: bytes, *args: Any) -> tuple[Any, Any]:
        """Give an event to onevent and take its answer, in one of the ways "ask" and "ask_written" of plugin.lua."""
        began = time.perf_counter()
        try:
            told = self._functions[way](now, topic, *args)
        except LuaError as exc:
            self.on_error(self, "onevent", str(exc), "")
            told = (False, str(exc).encode())
        answer: tuple[Any, Any] = told if isinstance(told, tuple) else (told, None)
        if answer[0] is not None:
            self._note("onevent", time.perf_counter() - began, 1)
        return answer

    def answered(self, now: float, number: int, ok: bool, answer: bytes) -> None:
        """What became of a call of a coroutine function: its result as plain.lua reads it, or a message."""
        self._timed("onresult", self._functions["answered"], now, number, ok, answer)

    def named_protocols(self) -> list[tuple[bytes, bytes]]:
        """GUIDs and names of the protocols of the block that are not the dissector's own.

        Raises `ScriptLoadError` when a field of the block is wrong.
        """
        told = self._functions["protocols"]()
        ok, *named = told if isinstance(told, tuple) else (told,)
        if not ok:
            raise ScriptLoadError(self.script, "load", text(named[0]))
        return list(zip(named[::2], named[1::2], strict=True))

    @property
    def protocol_numbers(self) -> tuple[int, int]:
        """The first and the last number for protocols that scripts name."""
        first, last = self._functions["protocol_numbers"]()
        return int(first), int(last)

    def learn_protocol(self, number: int, guid: bytes, name: bytes) -> None:
        """Make a protocol known that some script names."""
        self._functions["learn_protocol"](number, guid, name)

    @property
    def guest(self) -> tuple[int, int] | None:
        """Host and protocol of a handler that lies above another handler's protocol, by their numbers."""
        told: tuple[int, int] | None = self._functions["guest"]()
        return told

    def learn_guest(self, host: int, number: int) -> None:
        """Make known what lies above a protocol that some script names."""
        self._functions["learn_guest"](host, number)

    def learn_group(self, member: str, name: str, guid: str, types: bytes | None) -> None:
        """Make known a group that was registered: `member` of T, and for counters the types of its meters."""
        self._functions["learn_group"](member.encode(), name.encode(), guid.encode(), types)

    def leave_counters(self) -> None:
        """A window ends: what is counted from now on is of the next one."""
        if not self.closed:
            self._functions["leave_counters"]()

    def cross_counters(self) -> bool:
        """Put some thousand keys of what left into the outbox. False when nothing is left."""
        return not self.closed and bool(self._functions["cross_counters"]())

    def flush_counters(self) -> None:
        """Put all that is counted into the outbox at once, as the plugin ends."""
        self.leave_counters()
        while self.cross_counters():
            pass

    def new_capture(self) -> None:
        """Another capture begins, with flow rows of its own."""
        self._functions["new_capture"]()

    def packets(self, address: int, count: int, first: int = 0, *, named_only: bool = False) -> int:
        """Run the packet hook over frames (frame.lua), which must stay until it returns; `first` is their place.

        How many of them name another protocol as what comes next. With `named_only` a protocol handler gets only those
        frames whose last layer names it.
        """
        [hook] = self.block.hooks
        began = time.perf_counter()
        naming = calls = 0
        try:
            naming, calls = self._functions["packets"](address, count, first, named_only)
        except LuaError as exc:
            self.on_error(self, hook, str(exc), "")
        finally:
            self._note(hook, time.perf_counter() - began, calls)
        return naming

    def new_flow(self, flow: bytes) -> None:
        """A connection begins whose bytes `payload` will bring."""
        self._functions["new_flow"](flow)

    def payload(self, now: float, flow: bytes, direction: int, seekpos: int, data: bytes) -> bool:
        """Give bytes of a connection to onpayload. True when the script wants no more of it."""
        gave_up: bool = self._timed("onpayload", self._functions["payload"], now, flow, direction, seekpos, data)
        return gave_up

    def begin_input(self, memory: int, room: int, now: float) -> None:
        """Begin as a source. Packets go to the address `memory`, which has `room` bytes (inputfilter.lua)."""
        for name, function in zip(_INPUT, self._functions["begin_input"](memory, room, now), strict=True):
            self._functions[name] = function

    def step(self, limit: int, seconds: float) -> tuple[int, bool, bool]:
        """Call step: how often it was called, whether it wants to be again, whether there is a batch of packets."""
        result = self._batched(("step",), self._functions["step"], limit, seconds)
        return (limit, False, True) if result is False else result

    def step_alert(self, limit: int) -> tuple[int, bool]:
        """Call step_alert until there is nothing: how often it was called, and whether it may be again."""
        result = self._batched(("step_alert",), self._functions["step_alert"], limit)
        return (limit, False) if result is False else result

    def input_packets(self) -> tuple[float, ...]:
        """The time of the script, bytes of packets since the last call, link type and first byte of each stretch."""
        taken: tuple[float, ...] = self._functions["input_packets"]()
        return taken

    def begin_storage(self, ranks: int, rows: int) -> None:
        """Begin with the flows of another capture. `ranks` is the address of a byte for each row (storage.lua)."""
        self._functions["begin_storage"](ranks, rows)

    def ask_storage(self, address: int, count: int) -> None:
        """Show the new flows among frames (frame.lua), and the first datagrams, to the hooks of a packet_storage."""
        self._batched(("filter", "filter_payload"), self._functions["ask_storage"], address, count)

    def show_storage(self, row: int, now: float, flow: bytes, direction: int, seekpos: int, data: bytes) -> None:
        """Show bytes of a connection, whose flow has that row, to filter_payload."""
        self._timed("filter_payload", self._functions["show_storage"], row, now, flow, direction, seekpos, data)

    def control(self) -> Mapping[str, Any]:
        """The numbers and texts of the block's `control`, by name."""
        told = json.loads(self.host.lua[b"control"](self.block.name.encode()).decode("utf-8", "replace"))
        return {name: shape["value"] for name, shape in dict(told or {}).items() if "value" in shape}

    def flush(self, function: str, filtering: str | None, flushing: str | None, *args: Any) -> tuple[Any, ...] | None:
        """Run a filter and a hook over many keys or items (flushkeys.lua, flushitems.lua), and what that returned.

        None when it broke off past the script's own error boundary, and where it was is not known.
        """
        names = (filtering or "", flushing or "")
        call = self._functions[function]
        result = self._batched(names, call, *(name.encode() or None for name in names), *args)
        return None if result is False else result

    def flow_metrics(self, now: float, seconds: float, count: int, *fields: Any) -> tuple[float, ...] | None:
        """getmetric of so many flows, as far as it came in that time (flushitems.lua)."""
        result = self._batched(("getmetric",), self._functions["flow_metrics"], now, seconds, count, *fields)
        return None if result is False else result[2:]

    def message(self, now: float, message_id: bytes, message: bytes) -> bool:
        """Give a message to onmessage. False when it raised."""
        ok: bool = self._timed("onmessage", self._functions["message"], now, message_id, message)
        return ok

    def complete(self, now: float, outcomes: Sequence[Outcome]) -> None:
        """Give outcomes of async tasks back: callbacks run, the count of pending items goes down."""
        flat: list[Any] = []
        silent = 0
        for outcome in outcomes:
            if outcome.status is Status.PART:
                self._complete(now, flat)
                flat = []
                self._complete_pack(now, outcome)
            elif outcome.task.is_pack:
                flat += _each_of_pack(outcome)
            elif _has_callback(outcome):
                flat += (outcome.task.id, int(outcome.status), outcome.value or b"")
            elif outcome.task.wants:
                flat += (outcome.task.id, int(Status.DONE), b"")
            else:
                silent += 1
        self._complete(now, flat)
        if silent:
            self.settle(silent)

    def settle(self, count: int) -> None:
        """Count tasks as complete that have no callback for how they ended."""
        if not self.closed:
            self._functions["settle"](count)

    def _complete(self, now: float, flat: list[Any]) -> None:
        if flat:
            self._timed("onresult", self._functions["complete"], now, *flat, count=len(flat) // 3)

    def _complete_pack(self, now: float, part: Outcome) -> None:
        complete, count = self._functions["complete_pack"], part.tasks
        self._timed("onresult", complete, now, count, part.value or b"", count=count)

    def complete_lane(self, now: float) -> int:
        """Have the outcomes fetched that came by the lane, and callbacks run: of how many tasks they were."""
        began, count = time.perf_counter(), 0
        try:
            count = self._functions["complete_lane"](now)
        except LuaError as exc:  # out of memory, or out of stack in an error handler: what was fetched is lost
            self.on_error(self, "onresult", str(exc), "")
        finally:
            self._note("onresult", time.perf_counter() - began, count)
        return count

    def note_quick(self, code: int, is_quick: bool) -> None:
        """Hear from a worker whether runs of a code are over in no time."""
        if not self.closed:
            self._functions["note_quick"](code, is_quick)

    def use_lane(self, address: int) -> None:
        """Let quick tasks go by the lane whose memory lies at an address, as long as the state is there."""
        if not self.closed:
            self._functions["use_lane"](address)

    def take(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Empty the outbox: effect codes with their values, in the order in which they arose."""
        return read_outbox(self._functions["take"])

    def table(self, value: Any) -> Any:
        """A Python value as this plugin's Lua sees it. Raises `TypeError` naming a field that can't cross."""
        return value if isinstance(value, bytes) else self.host.state.table(value)

    # ---- the rest

    def count_error(self, hook: str) -> None:
        """Count an error that came through the outbox."""
        self._counts.setdefault(hook, _HookCounts()).errors += 1

    def stats(self) -> PluginStats:
        """Counts at this moment."""
        hooks = tuple(
            HookStats(name, each.calls, each.errors, each.seconds, each.slowest)
            for name, each in sorted(self._counts.items())
        )
        tasks = {"tasks": self.queue.stats()} if self.queue is not None else {}
        return PluginStats(self.name, self.script, self.block.name, hooks, **tasks)

    def close(self) -> None:
        """Drop the state. Nothing may be called afterwards."""
        self.closed = True
        self._functions.clear()
        self.host.close()

    def _timed(self, hook: str, function: Any, *args: Any, count: int = 1) -> Any:
        began = time.perf_counter()
        try:
            return function(*args)
        except LuaError as exc:  # past the script's own error boundary: out of memory, or out of stack in the handler
            self.on_error(self, hook, str(exc), "")
            return False
        finally:
            self._note(hook, time.perf_counter() - began, count)

    def _batched(self, hooks: Sequence[str], function: Any, *args: Any) -> Any:
        """Call what calls hooks and says how often, one number for each: the first of its results."""
        began = time.perf_counter()
        try:
            result = function(*args)
        except LuaError as exc:
            self.on_error(self, next(filter(None, hooks), ""), str(exc), "")
            return False
        taken, calls = time.perf_counter() - began, [int(each) for each in result[: len(hooks)]]
        for hook, count in zip(hooks, calls, strict=True):
            if count:
                self._note(hook, taken * count / sum(calls), count)
        return result

    def _note(self, hook: str, taken: float, calls: int) -> None:
        """Count calls of a hook that took so many seconds together."""
        counts = self._counts.get(hook)
        if counts is None:
            counts = self._counts[hook] = _HookCounts()
        counts.calls += calls
        counts.seconds += taken
        if calls and taken / calls > counts.slowest:
            counts.slowest = taken / calls
        if taken > self.slow_seconds and hook not in BLOCK_HOOKS:
            self.on_slow(self, hook, taken)


def _each_of_pack(outcome: Outcome) -> list[Any]:
    """The tasks of a pack that were left when it failed as a whole, one by one."""
    task = outcome.task
    start = task.first + task.skip + task.size - outcome.tasks
    flat: list[Any] = []
    for task_id in range(start, start + outcome.tasks):
        flat += (task_id, int(outcome.status), outcome.value or b"")
    return flat


def _has_callback(outcome: Outcome) -> bool:
    if outcome.status is Status.RESULT:
        return bool(outcome.task.wants & WANTS_RESULT)
    if outcome.status is Status.FAILED:
        return bool(outcome.task.wants & WANTS_ERROR)
    return False
