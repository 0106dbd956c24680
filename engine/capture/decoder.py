"""Decodes mapped captures in LuaJIT, a batch of packets per call: flows, and TCP streams put in order.

Packets never become Python objects. What a batch leaves behind are stream events, in two buffers that Lua fills.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import struct
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import lua_api
from engine.capture.batches import Batch, Datagram, EventKind, FlowBytes, StreamEvent
from engine.capture.flow_rows import read_flows
from engine.capture.measures import Measures
from engine.capture.source import CaptureFormat, MappedCapture
from engine.values.config import CaptureLimits
from engine.values.records import Flow
from engine.values.stats import DecodeStats
from engine.vm.state import LuaState

_EVENT: Final = struct.Struct("<dqqIIBBxxiii")  # offpath_event_t in layouts.lua
_COUNTERS: Final = struct.Struct("<28d")  # offpath_counters_t, in the order of DecodeStats

_EVENT_ROOM: Final = 4096  # events, and
_ARENA_ROOM: Final = 4 << 20  # payload bytes after which a batch ends early
_LONGEST_PACKET: Final = 262_144  # bytes; decoder.lua takes no longer record
_BYTES_PER_PIECE: Final = 256  # bounds the number of held segments by the limits on held bytes
_LEAST_PIECES: Final = 64
_MOST_PIECES: Final = 65_536

_LUA_FUNCTIONS: Final = (
    "configure",
    "begin",
    "want_frames",
    "run_on",
    "has",
    "extend",
    "position",
    "begin_block",
    "step",
    "resume",
    "pass_time",
    "finish",
    "ignore",
    "mute",
    "show_flows",
    "forget_over",
    "end_window",
    "flow_row",
    "flow_bytes",
    "forget",
    "measure",
    "fold",
    "next_sums",
    "sums_full",
)


# As plain numbers: comparing with an enum's member costs several times as much.
_OPEN, _DATA, _CLOSE = int(EventKind.OPEN), int(EventKind.DATA), int(EventKind.CLOSE)


class Decoder:
    """Decodes one capture after another into one flow table. It owns a Lua state: use it on the thread that made it."""

    def __init__(
        self,
        limits: CaptureLimits,
        *,
        streams: bool = True,
        frames: bool = False,
        udp_ports: Collection[int] = (),
        quic_ports: Collection[int] = (),
    ) -> None:
        """`streams=False` leaves out TCP reassembly: packets and flows are counted, no event is made.

        `frames` is for `want_frames`. `datagrams` gives those from or to `udp_ports`, and of those to `quic_ports` what
        may be of a QUIC handshake.
        """
        self._needs_frames = bool(udp_ports or quic_ports)
        self._limits = limits
        self._name = ""
        self._closed = _never
        self._unread = False
        self._opened: dict[int, tuple[int, bytes, bool]] = {}  # slot in Lua, flow key, whether roles are known
        self._over: list[int] = []
        self._ignored: set[int] = set()  # in the present batch
        self._last_stats = DecodeStats()
        held_total = max(1, limits.out_of_order_bytes_total)
        held = max(1, min(limits.out_of_order_bytes, held_total))
        pieces = min(max(held // _BYTES_PER_PIECE, _LEAST_PIECES), _MOST_PIECES)
        # One packet may end a stream and so free both of its held lists, each one segment over its limit:
        # per piece one event for it and one for the hole before it. A segment of a fragmented datagram is many pieces.
        spare_pieces = 4 * pieces + 256
        event_bytes = (_EVENT_ROOM + 2 * spare_pieces) * _EVENT.size
        self._arena = mmap.mmap(-1, _ARENA_ROOM + 2 * held + 8 * _LONGEST_PACKET)
        self._events = mmap.mmap(-1, event_bytes)
        self._events_view = memoryview(self._events)
        self._state: LuaState | None = LuaState()
        self._state.add_modules("capture", Path(__file__).parent)
        self._state.add_modules("offpath", Path(lua_api.__file__).parent)
        module = self._state.require("capture.decoder")
        self._lua: dict[str, Any] = {name: module[name.encode()] for name in _LUA_FUNCTIONS}
        datagrams = self._state.require("capture.datagrams")
        datagrams[b"configure"](self._state.table(sorted(udp_ports)), self._state.table(sorted(quic_ports)))
        self._lua["next_datagram"] = datagrams[b"next"]
        self._names = module[b"protocol_names"]().decode().split("\n")
        self._last_layers: dict[str, int] = {}
        addresses: tuple[int, int, int] = self._lua["configure"](
            self._state.table(
                {
                    "events": _address(self._events),
                    "arena": _address(self._arena),
                    "event_room": _EVENT_ROOM,
                    "arena_room": _ARENA_ROOM,
                    "spare_pieces": spare_pieces,
                }
            ),
            self._state.table(
                {
                    "streams": limits.streams,
                    "held": held,
                    "held_total": held_total,
                    "pieces": pieces,
                    "pieces_total": max(held_total // _BYTES_PER_PIECE, _LEAST_PIECES),
                    "gap_wait": limits.gap_wait_seconds,
                    "idle": limits.idle_seconds,
                }
            ),
            self._state.table(
                {
                    "flows": limits.flows,
                    "tunnels": limits.tunnels,
                    "lifetimes": {
                        "idle": limits.idle_seconds,
                        "attempt": limits.attempt_seconds,
                        "closed": limits.closed_seconds,
                        "datagrams": limits.datagram_seconds,
                    },
                    "fragments": {
                        "datagrams": max(1, limits.fragmented_datagrams),
                        "bytes": limits.fragment_bytes,
                        "seconds": limits.fragment_seconds,
                    },
                }
            ),
            int.from_bytes(os.urandom(4), "little"),
            streams,
        )
        self._counters, self._layers, self._rows = addresses
        self._frames = self._origins = 0
        self._runs_on = (-math.inf, False)
        self.want_frames(frames)

    def begin(self, capture: MappedCapture, *, shift: float = 0.0, span: float = math.inf) -> None:
        """Decode this capture from now on: flows and streams of the one before go on, unless `finish` ended them.

        It must stay open until a batch is `done`. `shift` is added to the times of its packets; those of a batch
        are at most `span` seconds apart. Raises `RuntimeError` when it is closed, or when packets of the capture before
        were not decoded.
        """
        if capture.closed:
            raise RuntimeError(f"{capture.path} is closed")
        self._begin(capture.path, lambda: capture.closed)
        self._lua["begin"](capture.address, capture.size, *_layout(capture.format), shift, False, span)

    def begin_parts(self, name: str, fmt: CaptureFormat, address: int, size: int, *, last: bool) -> None:
        """Decode a capture that comes in parts. The memory must stay as it is until `extend` gives another."""
        self._begin(name, _never)
        self._lua["begin"](address, size, *_layout(fmt), 0.0, not last, math.inf)

    def has(self, packets: int) -> bool:
        """Whether a step can decode so many records, or all that are left, before `extend` brings more."""
        enough: bool = self._lua["has"](packets)
        return enough

    @property
    def position(self) -> int:
        """How many bytes of the present part were read. The next part begins with the others."""
        return int(self._lua["position"]())

    def extend(self, address: int, size: int, *, last: bool) -> None:
        """The next part. Only between two steps of which the first left nothing queued, that is when not `has`."""
        self._lua["extend"](address, size, not last)

    def begin_block(self, name: str, address: int, size: int, link_type: int) -> None:
        """Decode the packets in a block of the kernel's ring, which must stay as it is until a batch is `done`."""
        self._begin(name, _never)
        self._lua["begin_block"](address, size, link_type)

    def _begin(self, name: str, closed: Callable[[], bool]) -> None:
        if self._unread:
            raise RuntimeError(f"{self._name} is not finished: call step() until it is done")
        self._name, self._closed, self._unread = name, closed, True

    def end_window(self, time: float) -> None:
        """Packets of that time and later ones are not decoded until this is called again, so no batch is of two."""
        self._lua["end_window"](time)

    def want_frames(self, wanted: bool) -> None:
        """Whether the next steps leave their dissected packets in memory, for `Batch.frames`."""
        wanted = wanted or self._needs_frames
        if wanted != bool(self._frames):
            self._frames, self._origins = self._lua["want_frames"](wanted)

    def measure(self, groups: Collection[str], home: Collection[str]) -> Measures | None:
        """Count what counter groups need (`measures.MEASURED`), with these home networks; None for no groups.

        To be called before any packet.
        """
        if not groups:
            return None
        assert self._state is not None
        return Measures(self._state, self._lua, groups, home)

    def run_on(self, wanted_at: float, *, over: bool) -> None:
        """Let the next steps go on past whole seconds of stream time, but for those from `wanted_at` on.

        Without `over` a step ends before a second in which flows are over, so that their records come between those of
        the packets; with it `Batch.flows` tells of them when the step is over, or when there are many.
        """
        if (wanted_at, over) != self._runs_on:
            self._runs_on = wanted_at, over
            self._lua["run_on"](wanted_at, over)

    def resume(self) -> None:
        """Dissect those frames of the last step further whose last layer names a protocol of ours as the next one.

        Their flow is not counted again: row 0, and ports and addresses of the innermost headers.
        """
        self._lua["resume"]()

    def step(self, packets: int) -> Batch:
        """Decode at most that many records; fewer when buffers are full, or others come after the `span` of `begin`.

        `done` when all of the capture, or of the block, is decoded.
        """
        if not self._name:
            raise RuntimeError("cannot step: no capture was begun")
        if self._closed():
            raise RuntimeError(f"cannot step: {self._name} was closed before it was decoded")
        batch = self._run("step", packets)
        self._unread = self._unread and not batch.done
        return batch

    def pass_time(self, time: float) -> Batch:
        """Stream time goes on without packets: what waits or is idle for too long ends. Call again until `done`."""
        return self._run("pass_time", time)

    def datagrams(self, batch: Batch) -> Iterator[Datagram]:
        """The chosen datagrams among the packets of a step, in their order; before the next step only."""
        at = 0
        while (found := self._lua["next_datagram"](batch.frames, batch.frame_count, at)) is not None:
            at = found[0]
            yield Datagram(*found[1:])

    def finish(self) -> Batch:
        """The source ends here: holes become gaps and every stream is closed. Call again until it is done.

        Packets that were not decoded never will be.
        """
        self._unread = False
        return self._run("finish")

    def forget(self) -> Iterator[int]:
        """After `finish`: no connection was ever seen, so that the same one may come again; flows go on counting.

        Done in slices of some thousand flows.
        """
        index = 1
        while number := self._lua["forget"](index):
            yield number
            index += number

    def flow_key(self, stream: int) -> bytes:
        """Flow key of a stream, from its OPEN until the call that follows the batch with its CLOSE."""
        return self._opened[stream][1]

    def roles_known(self, stream: int) -> bool:
        """Whether the handshake told who is the client; valid as long as `flow_key`."""
        return self._opened[stream][2]

    def ignore(self, stream: int) -> None:
        """Nobody wants more of this connection: no more events, and no CLOSE."""
        opened = self._opened.get(stream)
        if opened is not None:
            self._lua["ignore"](opened[0], stream)
            self._over.append(stream)
            self._ignored.add(stream)

    def mute(self, stream: int) -> None:
        """Nobody wants more bytes of this connection: its next event after the present batch is its CLOSE."""
        opened = self._opened.get(stream)
        if opened is not None:
            self._lua["mute"](opened[0], stream)

    def flow_row(self, key: bytes) -> int:
        """The row of a flow key, 0 when there is none."""
        return int(self._lua["flow_row"](key))

    def flow_bytes(self, key: bytes, *, place: int = -1, time: float = math.inf) -> FlowBytes | None:
        """What a flow had carried at a packet of the last batch: at a place among its frames, or at a time.

        Without frames, or as it is, now. None for a flow that there is not.
        """
        found, swapped, a_bytes, z_bytes, client = self._lua["flow_bytes"](key, place, time)
        if not found:
            return None
        if swapped:
            return FlowBytes(z_bytes, a_bytes, 3 - client if client else 0)
        return FlowBytes(a_bytes, z_bytes, int(client))

    def flow_records(self) -> Iterator[Iterator[Flow]]:
        """The flows that are not over, in slices of some hundred. They go on counting between slices.

        They come in order of appearance when none was over before.
        """
        index = 1
        while index:
            number, index = self._lua["show_flows"](index)
            if number:
                yield read_flows(self._rows, number)

    def flows_over(self, batch: Batch) -> Iterator[Flow]:
        """The flows that are over since the batch before, made as they are taken; none has packets in a later batch."""
        return read_flows(self._rows, batch.flows)

    def forget_over(self) -> None:
        """From now on `flow_bytes` knows no flow that is over; without, it does until the next batch."""
        self._lua["forget_over"]()

    def stats(self) -> DecodeStats:
        """Counts so far; after `close`, the last ones. Reads memory and does not call Lua."""
        if self._state is not None:
            values = _COUNTERS.unpack(ctypes.string_at(self._counters, _COUNTERS.size))
            self._last_stats = DecodeStats(*map(int, values))
        return self._last_stats

    def layers(self) -> dict[str, int]:
        """In how many packets each protocol was a layer, by its name in `lua_api/protocols.lua`, so far or in all.

        Of a packet in a tunnel, a protocol that is inside and outside counts once.
        """
        if self._state is not None:
            counts = (ctypes.c_double * (len(self._names) + 1)).from_address(self._layers)
            self._last_layers = {name: int(counts[number]) for number, name in enumerate(self._names, 1)}
        return {name: packets for name, packets in self._last_layers.items() if packets}

    def close(self) -> None:
        """Free the Lua state and the buffers, on the thread that made them. Idempotent."""
        if self._state is None:
            return
        self.stats()
        self.layers()
        self._lua.clear()
        self._state.close()
        self._state = None
        self._name = ""
        self._events_view.release()
        self._events.close()
        self._arena.close()

    def _run(self, name: str, *args: float) -> Batch:
        for stream in self._over:
            self._opened.pop(stream, None)
        self._over.clear()
        self._ignored.clear()
        events, packets, done, time, frames, flows, turn = self._lua[name](*args)
        each_event = partial(self._each_event, events)
        return Batch(packets, done, float(time), each_event, self._frames, frames, flows, turn, self._origins)

    def _each_event(self, number: int) -> Iterator[StreamEvent]:
        arena, ignored = self._arena, self._ignored
        make = tuple.__new__  # half the cost of calling StreamEvent, once per event
        # A copy: were the buffer lent until the last event is read, it could not be closed.
        rows = _EVENT.iter_unpack(bytes(self._events_view[: number * _EVENT.size]))
        for time, stream, position, length, offset, kind, direction, slot, _last, _row in rows:
            if stream in ignored:
                continue
            data = b""
            if kind == _DATA:
                data = arena[offset : offset + length]
            elif kind == _OPEN:
                data = arena[offset : offset + length]
                length = 0
                self._opened[stream] = (slot, data, position == 1)
            elif kind == _CLOSE:
                self._over.append(stream)
            yield make(StreamEvent, (kind, stream, direction, time, position, length, data))


def _never() -> bool:
    return False


def _layout(fmt: CaptureFormat) -> tuple[bool, int, bool, int, int]:
    return fmt.name == "pcapng", fmt.records, fmt.big_endian, fmt.ticks, fmt.link_type


def _address(memory: mmap.mmap) -> int:
    # The view is dropped at once, or the memory could not be closed.
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
