-- The driver: walks the records of a mapped capture, has each dissected, counted and reassembled, and writes events
-- and payload into two buffers that Python owns. One decoder per Lua state: the modules of this folder are it.
local ffi = require("ffi")
local bit = require("bit")
local layouts = require("capture.layouts")
local dissect = require("capture.dissect").dissect
local verdicts = require("capture.dissect")
local records = require("capture.records")
local flows = require("capture.flows")
local tcp = require("capture.tcp")
local held = require("capture.held")

local M = {}

local band, bxor, rshift = bit.band, bit.bxor, bit.rshift
local cast, copy = ffi.cast, ffi.copy
local counters = layouts.counters
local count_flow, count_fragment, take, advance = flows.count, flows.count_fragment, tcp.take, tcp.advance
local UNDECODED, DECODED = verdicts.UNDECODED, verdicts.DECODED
local PACKET, BROKEN, SKIPPED, END = records.PACKET, records.BROKEN, records.SKIPPED, records.END

local OPEN, DATA, GAP, CLOSE = 0, 1, 2, 3            -- EventKind in decoder.py
local KEY_BYTES = 83                                     -- the longest flow key
local QUEUE = 2048                                       -- segments between the two loops; bounds one step
local TICK = 0.1                                         -- seconds after which packets of no TCP flow move the time on
local HEX = ffi.new("const char[16]", "0123456789ABCDEF")

local event_ptr_t, bytes_ptr_t = ffi.typeof("$ *", layouts.event_t), layouts.bytes_ptr_t
local record, packet = records.record, layouts.packet_t()

local base, base_address, size              -- the mapping, or the part of the capture that is in memory
local next_record                           -- of pcap or of pcapng
local with_streams = true

local queue = ffi.new(ffi.typeof("$[?]", layouts.segment_t), QUEUE)
local queued, taken = 0, 0                  -- segments put into the queue, and those of them that were taken
local latest, queued_time = 0, 0            -- latest time stamp of all packets, and of those in the queue

local events, arena, pieces                 -- buffers; the pieces say which bytes belong to a DATA event
local event_count, piece_count, arena_used = 0, 0, 0
local event_room, piece_room, arena_room = 0, 0, 0
local batch = 0

---- events ------------------------------------------------------------------------------------------------------

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

-- Whether more of the same may join the last event of its stream in this batch. A length is 32 bits wide.
local function joinable(kind, stream, direction)
  if stream.batch ~= batch then return false end
  local last = events[stream.event]
  return last.kind == kind and last.direction == direction and last.length < 2 ^ 30
end

local sink = { has_room = has_room }

function sink.open(stream, time)
  local event = new_event(OPEN, stream, 0, time)
  event.position, event.row, event.first = stream.roles, stream.row, stream.slot
  arena_used = arena_used + KEY_BYTES
end

function sink.data(stream, side, offset, length, stream_position, time)
  local direction, index = bxor(side, stream.flip), piece_count
  local piece = pieces[index]
  piece.offset, piece.length = offset, length
  piece_count, arena_used = index + 1, arena_used + length
  if joinable(DATA, stream, direction) then
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
  if joinable(GAP, stream, direction) then
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

-- Copies the pieces of a DATA event one behind the other.
local function put_pieces(target, event)
  local index, used, length = event.first, 0, event.length
  while used < length do
    local piece = pieces[index]
    copy(target + used, cast(bytes_ptr_t, piece.offset), piece.length)
    used, index = used + piece.length, piece.next
  end
end

local function lay_out()
  local used = 0
  for i = 0, event_count - 1 do
    local event = events[i]
    event.offset = used
    if event.kind == DATA then
      put_pieces(arena + used, event)
      used = used + event.length
    elseif event.kind == OPEN then
      used = put_key(arena, used, flows.at(event.row))
      event.length = used - event.offset
    end
  end
  return event_count
end

local function start_batch()
  event_count, piece_count, arena_used, batch = 0, 0, 0, batch + 1
  held.forget()
end

---- what Python calls -------------------------------------------------------------------------------------------

-- `buffers`: events and arena as addresses, and how much of each a batch fills before it ends. Python makes both
-- larger by what one packet can set free. Returns the address of the counters.
function M.configure(buffers, settings, row_limit, seed, streams)
  events, arena = cast(event_ptr_t, buffers.events), cast(bytes_ptr_t, buffers.arena)
  event_room, arena_room, piece_room = buffers.event_room, buffers.arena_room, buffers.event_room * 4
  pieces = ffi.new(ffi.typeof("$[?]", layouts.piece_t), piece_room + buffers.spare_pieces)
  with_streams = streams
  flows.configure(row_limit, seed)
  tcp.configure(settings, sink)
  return tonumber(cast("uintptr_t", cast("void *", counters)))
end

-- `order` is whether a pcap file is big-endian, `first` where its records begin; `shift` is added to all times. Streams
-- and flows of the capture before go on.
function M.begin(address, bytes, is_pcapng, first, order, ticks_per_second, link_type, shift, partial)
  base, base_address, size, queued, taken = cast(bytes_ptr_t, address), address, bytes, 0, 0
  local swapped = order == ffi.abi("le")
  next_record = records.begin(base, bytes, is_pcapng, first, swapped, ticks_per_second, link_type, shift, partial)
end

-- Whether a step can take so many records, or all that are left.
function M.has(number)
  return taken ~= queued or records.has(number)
end

-- The next part of a capture of which `begin` or `extend` said that it is partial: all from `position` on.
function M.extend(address, bytes, partial)
  base, base_address, size = cast(bytes_ptr_t, address), address, bytes
  records.extend(base, bytes, partial)
end

-- The packets in a block of the kernel's ring. They must all be taken before the block goes back.
function M.begin_block(address, bytes, link_type)
  base, base_address, size, queued, taken = cast(bytes_ptr_t, address), address, bytes, 0, 0
  next_record = records.begin_block(base, bytes, link_type)
end

-- Hands the packet on to the stream loop, with the time up to which that has come.
local function enqueue(row)
  local segment = queue[queued]
  queued, queued_time = queued + 1, latest
  segment.time, segment.row = latest, row
  local first = record.offset + packet.payload
  -- The one place where the address of payload is made. What is out of bounds here was let in by a fault of ours.
  if row ~= 0 and (first < 0 or first + packet.captured > size) then error("a segment lies outside the capture") end
  segment.offset = base_address + first
  segment.seq, segment.ack, segment.flags, segment.side = packet.seq, packet.ack, packet.flags, packet.side
  segment.captured, segment.length = packet.captured, packet.length
end

-- Counts a decoded packet; returns its flow row when it is TCP and to be reassembled, or 0.
local function take_decoded()
  counters.decoded = counters.decoded + 1
  if packet.is_fragment == 1 then
    counters.fragments = counters.fragments + 1
    count_fragment(packet, record.wire, record.time)
    return 0
  end
  if packet.has_ports == 0 then return 0 end
  local row = count_flow(packet, record.wire, record.time)
  return packet.has_tcp == 1 and row or 0
end

local function take_packet()
  local captured, wire, row = record.captured, record.wire, 0
  counters.wire_bytes = counters.wire_bytes + wire
  counters.captured_bytes = counters.captured_bytes + captured
  if captured < wire then counters.cut = counters.cut + 1 end
  if record.time > latest then latest = record.time end
  local verdict = dissect(base + record.offset, captured, wire, record.link, packet)
  if verdict == DECODED then
    row = take_decoded()
  elseif verdict == UNDECODED then
    counters.undecoded = counters.undecoded + 1
  else
    counters.malformed = counters.malformed + 1
  end
  if with_streams and (row ~= 0 or latest - queued_time > TICK) then enqueue(row) end
end

-- The packet loop: reads at most `limit` records or blocks. Streams have a loop of their own: with both in one, every
-- other trace was given up with "register coalescing too complex". As they are, jit.v shows each as one loop trace
-- with side traces that link back to it, given up only where an inner loop runs: a hash chain of more than three, held
-- pieces, a stream that ends. Those alone allocate.
local function read_records(limit)
  local packets = 0
  records.start_batch()
  for _ = 1, math.min(limit, QUEUE) do
    local result = next_record()
    if result >= END then return packets, result == END end
    if result ~= SKIPPED then packets = packets + 1 end
    if result == PACKET then
      take_packet()
    elseif result == BROKEN then
      counters.malformed = counters.malformed + 1
    end
  end
  return packets, false
end

-- The stream loop: takes what is queued as far as there is room for the events.
local function take_segments()
  for i = taken, queued - 1 do
    local segment = queue[i]
    if not has_room() or not advance(segment.time) then return end
    if segment.row ~= 0 then take(segment) end
    taken = i + 1
  end
end

-- Reads at most `limit` records or blocks; none while segments wait for room. Returns the numbers of events and
-- packets, whether all of the capture is decoded, and stream time.
function M.step(limit)
  start_batch()
  local packets, at_end = 0, false
  if taken == queued then
    queued, taken = 0, 0
    packets, at_end = read_records(limit)
    counters.packets = counters.packets + packets
  end
  take_segments()
  return lay_out(), packets, at_end and taken == queued, latest
end

-- Stream time goes on without packets. Returns as `step` does; call again until it is done.
function M.pass_time(time)
  start_batch()
  latest = math.max(latest, time)
  local done = advance(latest)
  return lay_out(), 0, done, latest
end

-- Ends every stream. Returns as `step` does; call again until it is done.
function M.finish()
  start_batch()
  local done = tcp.finish()
  return lay_out(), 0, done, latest
end

M.ignore = tcp.ignore
M.flow_run, M.forget, M.position = flows.run, flows.forget, records.position

return M
