-- The driver: walks the records of a mapped capture, has each dissected, counted and reassembled, and lets the streams
-- leave their events. One decoder per Lua state: the modules of this folder are it.
local ffi = require("ffi")
local frame = require("offpath.frame")
local protocols = require("offpath.protocols")
local layouts = require("capture.layouts")
local dissect = require("capture.dissect").dissect
local verdicts = require("capture.dissect")
local graph = require("capture.dissect.graph")
local records = require("capture.records")
local resume = require("capture.dissect.resume")
local memory = require("capture.memory")
local fragments = require("capture.fragments")
local flows = require("capture.flows")
local lifetimes = require("capture.lifetimes")
local expiry = require("capture.expiry")
local events = require("capture.events")
local tcp = require("capture.tcp")
local held = require("capture.held")
local measures = require("capture.measures")
local segments = require("capture.segments")
local turnover = require("capture.turnover")
local wire = require("capture.wire")

local M = {}

-- Dissectors call one another as tail calls, and all that a trace follows count towards this limit, which is 15.
require("jit.opt").start("loopunroll=60")

local copy, floor, abs = ffi.copy, math.floor, math.abs
local counters, address_of, STEP = layouts.counters, layouts.address_of, layouts.STEP
local count_flow, take, advance = flows.count, tcp.take, tcp.advance
local UNDECODED, DECODED = verdicts.UNDECODED, verdicts.DECODED
local PACKET, BROKEN, SKIPPED = records.PACKET, records.BROKEN, records.SKIPPED
local END, TICK_RESULT = records.END, records.TICK
local row_at = flows.at
local HEAD_BYTES, LAYER_BYTES = frame.HEAD_BYTES, frame.LAYER_BYTES
local has_room, has_scratch = events.has_room, memory.has_room
local note_segments, note_wire, wire_count = segments.note, wire.note, wire.count
local add_turnover = turnover.add

local GARBAGE_PAUSE = 110                   -- per cent of what was in use that the heap grows to before more is collected
local TICK = 0.1                            -- seconds after which packets of no TCP flow move the time on

local record, packet = records.record, layouts.packet_t()

local base, base_address                    -- the mapping
local next_record                           -- of pcap or of pcapng
local with_streams, measured = true, false

local queue = ffi.new(ffi.typeof("$[?]", layouts.segment_t), STEP)
local queued, taken = 0, 0                  -- segments put into the queue, and those of them that were taken
local latest, queued_time = 0, 0            -- latest time stamp of all packets, and of those in the queue
local second                                -- that is about to begin: first the flows go that are over then
local records_left = 0                      -- that a step was to read when the second came
local due, past_flows = -math.huge, false   -- see `run_on`

local frames, origins                       -- of the packets of a step, when they are wanted
local frame_count = 0

local function start_batch()
  events.start_batch()
  expiry.start_batch()
  held.forget()
end

---- what Python calls -------------------------------------------------------------------------------------------

-- `buffers` and `settings` are those of events.lua and of the modules they are named after.
function M.configure(buffers, settings, limits, seed, streams)
  with_streams = streams
  events.configure(buffers)
  flows.configure(limits.flows, seed)
  graph.configure(limits.tunnels)
  fragments.configure(limits.fragments, seed)
  tcp.configure(settings, events.sink)
  lifetimes.configure(limits.lifetimes)
  records.tick(-math.huge)
  -- Most of the heap is tables of flows and streams, which last: by default as much again would fill with garbage, some
  -- bytes of each stream, so that a long capture took more memory than a short one. There are few objects to look at.
  collectgarbage("setpause", GARBAGE_PAUSE)
  return address_of(counters), address_of(graph.layer_packets), expiry.configure(tcp.leave, has_room)
end

-- Have what counter groups of the platform need counted (measures.lua); `home` are the home networks. To be called before
-- any packet. `fold` and `next_sums` bring it out.
function M.measure(groups, home, seed)
  measured = #groups > 0
  measures.configure(groups, home, seed)
end

-- Whether the next steps are to keep their packets. Returns where these are and where they came from, or zeros.
function M.want_frames(wanted)
  frames, frame_count = wanted and ffi.new(ffi.typeof("$[?]", frame.frame_t), STEP) or nil, 0
  origins = wanted and ffi.new(ffi.typeof("$[?]", frame.origin_t), STEP) or nil
  return wanted and address_of(frames) or 0, wanted and address_of(origins) or 0
end

-- Names of the protocols by their numbers, from 1 on, a line each. Their counts lie one further: 0 is none.
function M.protocol_names()
  return table.concat(protocols.name, "\n")
end

-- `order` is whether a pcap file is big-endian, `first` where its records begin; `shift` is added to all times; a
-- batch has packets of at most `span` seconds. Streams and flows of the capture before go on.
function M.begin(address, bytes, is_pcapng, first, order, ticks_per_second, link_type, shift, partial, span)
  base, base_address, queued, taken, second = memory.map(address, bytes), address, 0, 0, nil
  local swapped = order == ffi.abi("le")
  next_record = records.begin(base, bytes, is_pcapng, first, swapped, ticks_per_second, link_type, shift, partial,
                              span)
end

-- Whether a step can take so many records, or all that are left.
function M.has(number)
  return taken ~= queued or records.has(math.min(number, STEP))
end

-- The next part of a capture of which `begin` or `extend` said that it is partial: all from `position` on.
function M.extend(address, bytes, partial)
  base, base_address = memory.map(address, bytes), address
  records.extend(base, bytes, partial)
end

-- The packets in a block of the kernel's ring. They must all be taken before the block goes back.
function M.begin_block(address, bytes, link_type)
  base, base_address, queued, taken, second = memory.map(address, bytes), address, 0, 0, nil
  next_record = records.begin_block(base, bytes, link_type)
end

-- Hands the packet on to the stream loop, with the time up to which that has come.
local function enqueue(row)
  local segment = queue[queued]
  queued, queued_time = queued + 1, latest
  segment.time, segment.stamp, segment.row = latest, record.time, row
  segment.address = packet.address + packet.payload
  -- The one place where the address of payload is made. What is out of bounds here was let in by a fault of ours.
  if row ~= 0 and packet.payload_captured > 0 then memory.check(segment.address, packet.payload_captured) end
  segment.seq, segment.ack, segment.flags, segment.side = packet.seq, packet.ack, packet.flags, packet.side
  segment.captured, segment.length = packet.payload_captured, packet.payload_length
end

-- Counts a packet by its verdict; returns its flow row, or 0.
local function count(verdict, wire)
  if verdict == DECODED then
    counters.decoded = counters.decoded + 1
    return packet.has_ports == 1 and count_flow(packet, wire, record.time, latest) or 0
  elseif verdict == UNDECODED then
    counters.undecoded = counters.undecoded + 1
  else
    counters.malformed = counters.malformed + 1
  end
  return 0
end

-- The time stamp as seconds and nanoseconds; of the double, unless the reader kept it in full.
local function keep_time(origin)
  local time = record.time
  local seconds, nanos = record.seconds, record.nanos
  local kept = record.precise == 1 and nanos < 1e9 and abs(seconds + nanos * 1e-9 - time) < 1e-6
  if not kept then
    if not (time > 0) then time = 0 end
    seconds = floor(time)
    local micros = floor((time - seconds) * 1e6 + 0.5)
    if micros == 1e6 then seconds, micros = seconds + 1, 0 end
    nanos = micros * 1000
  end
  origin.seconds, origin.nanos, origin.precise = seconds < 2 ^ 32 and seconds or 2 ^ 32 - 1, nanos, kept and 1 or 0
end

local function keep_origin(row)
  local origin = origins[frame_count]
  origin.row, origin.side = row, packet.side
  origin.address, origin.captured = base_address + record.offset, record.captured
  origin.wire, origin.link = record.wire, record.link
  keep_time(origin)
end

local function keep_frame(verdict, row)
  keep_origin(row)
  packet.verdict, packet.row, packet.flow = verdict, row, row ~= 0 and row_at(row).number or 0
  copy(frames + frame_count, packet, HEAD_BYTES + packet.layer_count * LAYER_BYTES)
  frame_count = frame_count + 1
end

local function take_packet()
  local captured, wire = record.captured, record.wire
  counters.wire_bytes = counters.wire_bytes + wire
  counters.captured_bytes = counters.captured_bytes + captured
  if captured < wire then counters.cut = counters.cut + 1 end
  if record.time > latest then latest = record.time end
  packet.time, packet.address = record.time, base_address + record.offset
  local verdict = dissect(base + record.offset, captured, wire, record.link, packet)
  local row = count(verdict, wire)
  if frames then keep_frame(verdict, row) end
  if measured then note_wire(base_address + record.offset, wire, packet) end
  if packet.has_tcp == 0 then row = 0 end
  if row ~= 0 or with_streams and latest - queued_time > TICK then enqueue(row) end
end

-- The packet loop: reads at most `limit` records or blocks. Streams have a loop of their own: with both in one, every
-- other trace was given up with "register coalescing too complex". As they are, `jit.attach` shows each as one loop
-- trace with side traces that link back to it, given up only where an inner loop runs: a hash chain of more than three,
-- held pieces, a stream that ends. Those alone allocate. What cost a tenfold in packets with labels or fragments until
-- it was found: more than `loopunroll` tail calls in a trace (error 10), of which `return bit.bor(...)` in a helper is
-- one. Error 8 is a helper that got hot before the loop did and is tried by itself first: it does no harm.
local function read_records(limit)
  local packets = 0
  for at = 1, math.min(limit, STEP) do
    local result = next_record()
    if result >= END then
      if result == TICK_RESULT then second, records_left = records.second(), limit - at + 1 end
      return packets, result == END
    end
    if result ~= SKIPPED then packets = packets + 1 end
    if result == PACKET then
      take_packet()
    elseif result == BROKEN then
      counters.malformed = counters.malformed + 1
    end
    if not has_scratch() then return packets, false end
  end
  return packets, false
end

-- The stream loop: takes what is queued as far as there is room for the events.
local function take_segments()
  if not with_streams then taken = queued end
  for i = taken, queued - 1 do
    local segment = queue[i]
    if not has_room() or not advance(segment.time) then return end
    if segment.row ~= 0 then take(segment) end
    taken = i + 1
  end
end

-- Lets flows go before a second begins. Returns false when some are left, for the next batch.
local function begin_second()
  if not second then return true end
  if not (advance(second) and expiry.sweep(second)) then return false end
  records.tick(second)
  second = nil
  return true
end

-- Whether a step that has come to a second may read on: nobody has to be told of the second, or of flows that were over.
local function may_read_on(time)
  return (past_flows or expiry.count() == 0) and (time < due or events.is_empty())
end

-- The packets of a step; none while flows that are over, or what came of them, wait to be taken.
local function read_packets(limit)
  queued, taken = 0, 0
  memory.start_batch()
  records.start_batch()
  local packets, at_end = 0, false
  local time = second or -math.huge
  while taken == queued and begin_second() and may_read_on(time) do
    local more
    more, at_end = read_records(limit)
    packets = packets + more
    note_segments(queue, queued)
    if not second or (packets > 0 and second >= due) then break end
    limit, time = records_left, second
    take_segments()
    if taken == queued then queued, taken = 0, 0 end
  end
  counters.packets = counters.packets + packets
  if measured then wire_count() end
  return packets, at_end
end

local function leave(packets, done, turn)
  add_turnover()
  return events.lay_out(), packets, done, latest, frame_count, expiry.count(), turn or math.huge
end

-- Whether steps go on past a second: while it is before the time `wanted_at`, and no flow is over, or with `over` even then.
function M.run_on(wanted_at, over)
  due, past_flows = wanted_at, over
end

-- Reads at most `limit` records or blocks, and never more than `layouts.STEP`; none while segments wait for room. Returns
-- the numbers of events and packets, whether all of the capture is decoded, stream time, the numbers of frames and of flows
-- that are over, and the time of a packet that waits for the next window, or infinity.
function M.step(limit)
  start_batch()
  local packets, at_end = 0, false
  frame_count = 0
  if taken == queued then packets, at_end = read_packets(limit) end
  take_segments()
  return leave(packets, at_end and taken == queued, taken == queued and records.turn() or math.huge)
end

-- Stream time goes on without packets. Returns as `step` does; call again until it is done.
function M.pass_time(time)
  start_batch()
  frame_count = 0
  latest = math.max(latest, time)
  if records.is_tick(latest) then second = math.floor(latest) end
  return leave(0, advance(latest) and begin_second())
end

-- Dissects the packets of the last step further in which a script named what comes next.
function M.resume()
  for at = 0, frame_count - 1 do resume(frames + at, packet) end
end

-- Ends every stream. Returns as `step` does; call again until it is done.
function M.finish()
  start_batch()
  fragments.clear()
  frame_count = 0
  return leave(0, tcp.finish())
end

M.ignore, M.mute = tcp.ignore, tcp.mute
M.show_flows, M.forget_over = expiry.show, expiry.start_batch
M.forget, M.position = flows.forget, records.position
M.end_window = records.end_window
M.fold, M.next_sums, M.sums_full = measures.fold, measures.next, measures.is_full

-- The row of a flow key, 0 when there is none.
function M.flow_row(key) return (flows.find_key(key)) end

-- Whether there is a flow of a key, or one that is over since the batch before; 1 when its A is the key's Z, and the bytes of A,
-- of Z, and which end is the client. Bytes of packets of the last step that came later are left out: behind a place among its
-- frames, or after a time where the place is -1.
function M.flow_bytes(key, place, time)
  local index, like = flows.find_key(key)
  if place >= 0 and frames and place < frame_count then time = frames[place].time end
  local row = index ~= 0 and row_at(index) or nil
  -- A batch that goes on past flows may have one that is over, and another of the same key after it.
  if like and not (row and row.first <= time) then row = expiry.find(like) or row end
  if not row then return false, 0, 0, 0, 0 end
  local later = ffi.new("double[2]")
  for at = frames and place + 1 or frame_count, frame_count - 1 do
    local each = origins[at]
    if each.row ~= 0 and frames[at].flow == row.number and (place >= 0 or frames[at].time > time) then
      later[each.side] = later[each.side] + each.wire
    end
  end
  return true, like.side, row.bytes[0] - later[0], row.bytes[1] - later[1], row.client
end

return M
