"""Dissects packets that end where a page begins that must not be touched. Run as a program: a read too far kills it.

python -m tests.capture.guard_page CAPTURE...    every packet at every length, then with random bytes changed
python -m tests.capture.guard_page --overrun     reads one byte too far, to show that it would be seen
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path

import lua_api
from engine.capture.source import open_capture
from engine.vm.state import LuaFunction, LuaState

ROOM = 512 << 10
"""Bytes before the protected page: more than the longest packet."""

PROT_NONE = 0

DRIVER = rb"""
local ffi = require "ffi"
local layouts, memory = require "capture.layouts", require "capture.memory"
local records, fragments = require "capture.records", require "capture.fragments"
local graph = require "capture.dissect.graph"
local dissect = require("capture.dissect").dissect

local guard_address, room = ...
local guard = ffi.cast("uint8_t *", guard_address)
local packet, record = layouts.packet_t(), records.record
local tries = 0

memory.map(guard_address - room, room)
graph.configure(16)
fragments.configure({ datagrams = 16, bytes = 2 ^ 20, seconds = 30 }, 1)

local function check(verdict)
  if verdict < 0 or verdict > 2 then error("verdict " .. verdict) end
  local last = 0
  for i = 0, packet.layer_count - 1 do
    local layer = packet.layer[i]
    if layer.offset < last or layer.length <= 0 then error("layer " .. i .. " is out of order") end
    last = layer.offset + layer.length
  end
  if last > packet.captured then error("a layer reaches beyond the captured bytes") end
  if verdict == 2 and packet.has_ports == 1 and packet.payload_captured > 0 then
    if packet.payload + packet.payload_captured > packet.captured then error("the payload does") end
    memory.check(packet.address + packet.payload, packet.payload_captured)
  end
end

-- The bytes lie before the guard already.
local function try(captured, wire)
  tries = tries + 1
  memory.start_batch()
  packet.time, packet.address = record.time, guard_address - captured
  packet.verdict = dissect(guard - captured, captured, wire, record.link, packet)
  check(packet.verdict)
end

local function at_every_length(source)
  for captured = 0, record.captured do
    ffi.copy(guard - captured, source, captured)
    try(captured, record.wire)
    try(captured, captured)
  end
end

-- Most of what decides lies in the first bytes.
local function with_changes(source, rounds)
  local length = record.captured
  for _ = 1, length > 0 and rounds or 0 do
    local captured = math.random(length)
    ffi.copy(guard - captured, source, captured)
    for _ = 1, math.random(4) do
      guard[math.random(math.min(captured, 120)) - 1 - captured] = math.random(0, 255)
    end
    try(captured, math.random(2) == 1 and captured or record.wire)
  end
end

local M = {}

-- Returns the numbers of packets and of tries.
function M.run(address, bytes, is_pcapng, first, swapped, ticks, link, rounds)
  math.randomseed(bytes)
  local base, packets = ffi.cast("uint8_t *", address), 0
  local next_record = records.begin(base, bytes, is_pcapng, first, swapped, ticks, link, 0, false, math.huge)
  while true do
    local result = next_record()
    if result == records.END then return packets, tries end
    if result == records.LATER then records.start_batch() end
    if result == records.PACKET then
      packets = packets + 1
      at_every_length(base + record.offset)
      with_changes(base + record.offset, rounds)
    end
  end
end

-- One packet, whose bytes lie before the guard already. Returns its verdict, and its layers as text.
function M.one(captured, wire, link, time)
  record.time, record.link = time, link
  try(captured, wire)
  local seen = {}
  for i = 0, packet.layer_count - 1 do seen[i + 1] = packet.layer[i].protocol end
  return packet.verdict, table.concat(seen, ".")
end

function M.overrun()
  return guard[0]
end

return M
"""


class GuardedRoom:
    """Memory that ends at a page which can't be read."""

    def __init__(self) -> None:
        self.room = mmap.mmap(-1, ROOM + mmap.PAGESIZE)
        self.guard = ctypes.addressof(ctypes.c_char.from_buffer(self.room)) + ROOM
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(self.guard), ctypes.c_size_t(mmap.PAGESIZE), PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")

    def put(self, data: bytes) -> int:
        """Have bytes end before the page; their address."""
        address = self.guard - len(data)
        ctypes.memmove(address, data, len(data))
        return address


def load(guard: int) -> dict[str, LuaFunction]:
    """The driver's `run`, `one` and `overrun`."""
    state = LuaState()
    state.add_modules("capture", Path(__file__).parents[2] / "engine" / "capture")
    state.add_modules("offpath", Path(lua_api.__file__).parent)
    driver = state.compile(DRIVER, "guard_page")(guard, ROOM)
    return {name: driver[name.encode()] for name in ("run", "one", "overrun")}


def main(args: list[str]) -> int:
    room = GuardedRoom()
    driver = load(room.guard)
    if args == ["--overrun"]:
        return int(driver["overrun"]())
    packets, tries = 0, 0
    for path in args:
        with open_capture(path) as capture:
            fmt = capture.format
            swapped = fmt.big_endian is (sys.byteorder == "little")
            head = (capture.address, capture.size, fmt.name == "pcapng", fmt.records, swapped)
            more, tries = driver["run"](*head, fmt.ticks, fmt.link_type, 100)
            packets += more
    sys.stdout.write(f"{packets} {int(tries)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
