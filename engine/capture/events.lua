-- Stream events of a batch, and their payload: two buffers that Python owns, filled when the batch ends. Until then
-- bytes stay where they are and pieces say which of them belong to an event.
local ffi = require("ffi")
local bit = require("bit")
local layouts = require("capture.layouts")
local flows = require("capture.flows")

local M = {}

local band, bxor, rshift = bit.band, bit.bxor, bit.rshift
local cast, copy, floor = ffi.cast, ffi.copy, math.floor
local counters = layouts.counters

local OPEN, DATA, GAP, CLOSE = 0, 1, 2, 3            -- EventKind in batches.py
local KEY_BYTES = 83                                     -- the longest flow key
local HEX = ffi.new("const char[16]", "0123456789ABCDEF")

local event_ptr_t, bytes_ptr_t = ffi.typeof("$ *", layouts.event_t), layouts.bytes_ptr_t

local events, arena, pieces                 -- buffers; the pieces say which bytes belong to a DATA event
local keys, key_count                       -- flow keys of OPEN events: another flow may have the row when the batch ends
local event_count, piece_count, arena_used = 0, 0, 0
local event_room, piece_room, arena_room = 0, 0, 0
local batch = 0

local function has_room()
  return event_count < event_room and piece_count < piece_room and arena_used < arena_room
end

local function new_event(kind, stream, direction, time)
  local event = events[event_count]
  event.kind, event.direction, event.time, event.stream = kind, direction, time, stream.id
  event.position, event.length, event.first = 0, 0, 0
  stream.batch, stream.event = batch, event_count
  event_count = event_count + 1
  return event
end

-- Whether more of the same may join the last event of its stream in this batch. A length is 32 bits wide. All of an event is
-- of one second, as records have its time: how many seconds a batch goes on past must make no difference to them.
local function joinable(kind, stream, direction, time)
  if stream.batch ~= batch then return false end
  local last = events[stream.event]
  return last.kind == kind and last.direction == direction and last.length < 2 ^ 30 and floor(last.time) == floor(time)
end

---- flow keys ----------------------------------------------------------------------------------------------------

-- Each writes at `o` of `p` and returns where it ended. Offsets, as pointers would be allocated.
local function put_hex(p, o, value)
  p[o], p[o + 1] = HEX[rshift(value, 4)], HEX[band(value, 15)]
  return o + 2
end

local function put_ipv4(p, o, address, first)
  put_hex(p, o, address[first])
  put_hex(p, o + 3, address[first + 1])
  put_hex(p, o + 6, address[first + 2])
  p[o + 2], p[o + 5], p[o + 8] = 0x2e, 0x2e, 0x2e          -- "."
  return put_hex(p, o + 9, address[first + 3])
end

local function put_ipv6(p, o, address, first)
  for i = first, first + 15 do o = put_hex(p, o, address[i]) end
  return o
end

local function put_end(p, o, address, first, family, port)
  if family == 4 then o = put_ipv4(p, o, address, first) else o = put_ipv6(p, o, address, first) end
  p[o], p[o + 1], p[o + 2] = 0x3a, 0x70, 0x2d              -- ":p-"
  return put_hex(p, put_hex(p, o + 3, rshift(port, 8)), band(port, 255))
end

-- Writes the flow key of a row, 41 or 83 bytes.
local function put_key(p, o, row)
  local address, family = cast(bytes_ptr_t, row.address), row.family
  o = put_hex(p, o, row.proto)
  p[o], p[o + 1] = family == 4 and 0x41 or 0x42, 0x3a      -- "A:" or "B:"
  o = put_end(p, o + 2, address, 0, family, row.port[0])
  p[o] = 0x5f                                              -- "_"
  return put_end(p, o + 1, address, 16, family, row.port[1])
end

---- events -------------------------------------------------------------------------------------------------------

-- What the streams call.
local sink = { has_room = has_room }
M.sink = sink

function sink.open(stream, time)
  local event = new_event(OPEN, stream, 0, time)
  event.position, event.first, event.last = stream.roles, stream.slot, key_count
  event.length = put_key(keys, key_count * KEY_BYTES, flows.at(stream.row)) - key_count * KEY_BYTES
  key_count, arena_used = key_count + 1, arena_used + KEY_BYTES
end

function sink.data(stream, side, address, length, stream_position, time)
  local direction, index = bxor(side, stream.flip), piece_count
  local piece = pieces[index]
  piece.address, piece.length = address, length
  piece_count, arena_used = index + 1, arena_used + length
  if joinable(DATA, stream, direction, time) then
    local event = events[stream.event]
    pieces[event.last].next = index
    event.last, event.length = index, event.length + length
  else
    local event = new_event(DATA, stream, direction, time)
    event.position, event.length, event.first, event.last = stream_position, length, index, index
  end
end

function sink.gap(stream, side, length, stream_position, time)
  local direction = bxor(side, stream.flip)
  if joinable(GAP, stream, direction, time) then
    local event = events[stream.event]
    event.length = event.length + length
  else
    local event = new_event(GAP, stream, direction, time)
    event.position, event.length = stream_position, length
    counters.gaps = counters.gaps + 1
  end
end

-- `over0`, `over1`: whether the sender of each direction ended it.
function sink.close(stream, over0, over1, time)
  local event = new_event(CLOSE, stream, 0, time)
  event.position = (over0 and 1 or 0) + (over1 and 2 or 0)
end

---- laying out the arena ----------------------------------------------------------------------------------------

-- Copies the pieces of a DATA event one behind the other.
local function put_pieces(target, event)
  local index, used, length = event.first, 0, event.length
  while used < length do
    local piece = pieces[index]
    copy(target + used, cast(bytes_ptr_t, piece.address), piece.length)
    used, index = used + piece.length, piece.next
  end
end

-- Fills the buffers; returns the number of events.
function M.lay_out()
  local used = 0
  for i = 0, event_count - 1 do
    local event = events[i]
    event.offset = used
    if event.kind == DATA then
      put_pieces(arena + used, event)
      used = used + event.length
    elseif event.kind == OPEN then
      copy(arena + used, keys + event.last * KEY_BYTES, event.length)
      used = used + event.length
    end
  end
  return event_count
end

-- Forgets the batch before.
function M.start_batch()
  event_count, piece_count, key_count, arena_used, batch = 0, 0, 0, 0, batch + 1
end

-- `buffers`: events and arena as addresses, and how much of each a batch fills before it ends. Python makes both
-- larger by what one packet can set free.
function M.configure(buffers)
  events, arena = cast(event_ptr_t, buffers.events), cast(bytes_ptr_t, buffers.arena)
  event_room, arena_room, piece_room = buffers.event_room, buffers.arena_room, buffers.event_room * 4
  pieces = ffi.new(ffi.typeof("$[?]", layouts.piece_t), piece_room + buffers.spare_pieces)
  keys = layouts.allocate((event_room + 2 * buffers.spare_pieces) * KEY_BYTES)
end

-- Whether there is no event in this batch.
function M.is_empty()
  return event_count == 0
end

M.has_room = has_room

return M
