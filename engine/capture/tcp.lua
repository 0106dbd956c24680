-- TCP reassembly: puts the bytes of each connection in order, first copy wins, and says what is missing.
--
-- A stream is made by its first packet, opened by its first byte or gap, and ended by FINs both ways, a reset, silence,
-- a new SYN or the end of the capture. One never opened is never closed; what ended never opens again: its flow row
-- keeps quiet until a SYN, or until the idle time has passed. A direction without a base (no SYN seen) holds what
-- comes until an ACK of the other side, a few segments or time show where it begins.
--
-- What is held is copied, so that streams outlive the mapping or block they came in.
-- The caller asks `has_room` before each segment; one gives no more events than both held lists of a stream hold.
local bit = require("bit")
local layouts = require("capture.layouts")
local flows = require("capture.flows")
local held = require("capture.held")
local streams = require("capture.streams")

local M = {}

local band, tobit, max, abs = bit.band, bit.tobit, math.max, math.abs
local row_at, counters, clock = flows.at, layouts.counters, streams.clock
local piece_at, hold, drop_first, total = held.at, held.hold, held.drop_first, held.total
local stream_at, create, release, touch = streams.at, streams.create, streams.release, streams.touch
local has_hole, watch_hole = streams.has_hole, streams.watch_hole

local FIN, SYN, RST, ACK = 1, 2, 4, 16
local ENDED = streams.ENDED
local NOT_CAPTURED = held.NOT_CAPTURED
local START_PIECES = 4           -- segments of a joined direction to see before the lowest counts as its start
local PLAUSIBLE = 2 ^ 30         -- sequence numbers further ahead belong to no window (RFC 7323, 2.3)
local JOINABLE = 2 ^ 28          -- the same among START_PIECES segments of which none is known to be right
local NEAR = 2 ^ 24              -- how far from what is expected a RST or the ACK of a SYN-ACK may be

local limits                     -- numbers: held, held_total, pieces, pieces_total, gap_wait, idle, streams
local out                        -- where events go: data, gap, open, close, has_room

-- `settings` are the fields of `limits` above; `sink` the functions that take events.
function M.configure(settings, sink)
  limits, out = settings, sink
  streams.configure(limits.streams, limits.gap_wait, limits.idle)
end

---- delivery ----------------------------------------------------------------------------------------------------

local function open(stream)
  stream.opened = 1
  counters.streams = counters.streams + 1
  out.open(stream, clock.now)
end

local function deliver(stream, side, address, length)
  local half = stream.half[side]
  if stream.opened == 0 then open(stream) end
  if address < 0 then counters.gap_bytes = counters.gap_bytes + length end
  if stream.muted == 0 then
    if address >= 0 then
      out.data(stream, side, address, length, half.position, clock.now)
    else
      out.gap(stream, side, length, half.position, clock.now)
    end
  end
  half.next_seq, half.position = tobit(half.next_seq + length), half.position + length
end

-- Gives held pieces as far as they are in order.
local function drain(stream, side)
  local half = stream.half[side]
  while half.first ~= 0 do
    local piece = piece_at(half.first)
    local known = tobit(half.next_seq - piece.seq)
    if known < 0 then break end
    if known < piece.length then deliver(stream, side, piece.address + known, piece.length - known) end
    drop_first(half)
  end
end

local function set_base(stream, side, seq)
  local half = stream.half[side]
  half.based, half.next_seq = 1, seq
  drain(stream, side)
  watch_hole(stream, side)
end

-- The hole in front becomes a gap; what follows it is delivered.
local function skip_hole(stream, side)
  local half = stream.half[side]
  local seq = half.fin_seq
  if half.first ~= 0 then seq = piece_at(half.first).seq end
  if half.based == 0 then return set_base(stream, side, seq) end
  local missing = tobit(seq - half.next_seq)
  if missing > 0 then deliver(stream, side, NOT_CAPTURED, missing) end
  drain(stream, side)
  watch_hole(stream, side)
end

local function flush(stream, side)
  while has_hole(stream.half[side]) do skip_hole(stream, side) end
end

local function is_done(half)
  return half.has_fin == 1 and half.based == 1 and tobit(half.next_seq - half.fin_seq) >= 0
end

-- Whether a direction was ended by its sender, as against given up by us.
local function is_over(half)
  return is_done(half) or half.is_reset == 1
end

-- Ends a stream: holes become gaps, direction 0 first.
local function close(stream, quiet_until)
  flush(stream, stream.flip)
  flush(stream, 1 - stream.flip)
  if stream.opened == 1 then
    out.close(stream, is_over(stream.half[stream.flip]), is_over(stream.half[1 - stream.flip]), clock.now)
  end
  release(stream, quiet_until)
end

local function close_if_done(stream)
  if is_done(stream.half[0]) and is_done(stream.half[1]) then close(stream, clock.now + limits.idle) end
end

local function over_limit(half)
  return half.first ~= 0 and (half.held > limits.held or total.bytes > limits.held_total
    or half.pieces > limits.pieces or total.pieces > limits.pieces_total)
end

-- The same as `skip_hole`, for want of room behind it.
local function give_up_hole(stream, side)
  counters.held_over = counters.held_over + 1
  skip_hole(stream, side)
end

---- segments ----------------------------------------------------------------------------------------------------

local function base_is(half, seq)
  return half.based == 1 and tobit(half.next_seq - half.position) == seq
end

-- Whether what a direction holds may follow this base.
local function may_begin(half, base)
  if half.first == 0 then return true end
  local ahead = tobit(piece_at(half.first).seq - base)
  return ahead >= 0 and ahead < NEAR
end

local function set_client(stream, row, side)
  stream.roles, stream.flip, row.client = 1, side, side + 1
end

-- A SYN: the stream it belongs to, which is a new one when it doesn't fit the old.
local function take_syn(stream, row, index, side, base)
  if stream then
    local half = stream.half[side]
    if base_is(half, base) then return stream end
    if half.based == 1 or half.first ~= 0 or stream.opened == 1 then
      close(stream, 0)
      stream = nil
    end
  end
  stream = stream or create(row, index, side)
  if not stream then return nil end
  if stream.opened == 0 then set_client(stream, row, side) end
  set_base(stream, side, base)
  return stream
end

-- A SYN-ACK, likewise. It also tells where the other side begins.
local function take_syn_ack(stream, row, index, side, base, ack)
  if stream then
    local half, peer = stream.half[side], stream.half[1 - side]
    if base_is(half, base) then return stream end
    if half.based == 1 or not may_begin(half, base)
      or (peer.based == 1 and abs(tobit(ack - peer.next_seq)) > NEAR) then
      close(stream, 0)
      stream = nil
    end
  end
  stream = stream or create(row, index, 1 - side)
  if not stream then return nil end
  -- Once a stream is open its directions stay as they were announced.
  if stream.opened == 0 then set_client(stream, row, 1 - side) end
  set_base(stream, side, base)
  local peer = stream.half[1 - side]
  if peer.based == 0 and may_begin(peer, ack) then set_base(stream, 1 - side, ack) end
  return stream
end

-- What the other side acknowledges shows where this direction begins when no SYN did.
local function take_ack(stream, side, ack)
  local half = stream.half[side]
  half.ack, half.has_ack = ack, 1
  local first = half.first
  if first ~= 0 and tobit(ack - piece_at(first).seq) > 0 then set_base(stream, side, piece_at(first).seq) end
end

-- Holds a segment, of which only the first `captured` bytes are in the file; returns how much of it was new.
local function hold_segment(half, seq, address, captured, length, waits)
  local kept = 0
  if captured > 0 then kept = hold(half, seq, captured, address, clock.now, waits) end
  if captured < length then
    kept = kept + hold(half, tobit(seq + captured), length - captured, NOT_CAPTURED, clock.now, waits)
  end
  return kept
end

local function count_kept(kept, length)
  if kept == 0 then
    counters.retransmitted = counters.retransmitted + 1
  elseif kept < length then
    counters.overlapping = counters.overlapping + 1
  end
end

-- A segment of a direction whose base is not known yet.
local function join(stream, side, seq, address, captured, length)
  local half = stream.half[side]
  if half.first ~= 0 and abs(tobit(seq - piece_at(half.first).seq)) > JOINABLE then
    counters.out_of_order = counters.out_of_order + 1
    return
  end
  count_kept(hold_segment(half, seq, address, captured, length, true), length)
  if over_limit(half) then
    give_up_hole(stream, side)
  elseif half.pieces >= START_PIECES or (half.has_ack == 1 and half.ack == seq) then
    skip_hole(stream, side)
  else
    watch_hole(stream, side)
  end
end

local function take_segment(stream, side, seq, address, captured, length)
  local half = stream.half[side]
  if half.based == 0 then return join(stream, side, seq, address, captured, length) end
  local ahead = tobit(seq - half.next_seq)
  if ahead == 0 and half.first == 0 then
    if captured > 0 then deliver(stream, side, address, captured) end
    if captured < length then deliver(stream, side, NOT_CAPTURED, length - captured) end
    if half.in_holes == 1 then watch_hole(stream, side) end
    return
  end
  if ahead + length <= 0 then return count_kept(0, length) end
  if ahead > 0 then counters.out_of_order = counters.out_of_order + 1 end
  if ahead > PLAUSIBLE then return end
  local old = ahead < 0 and -ahead or 0
  local kept = hold_segment(half, tobit(seq + old), address + old, max(captured - old, 0), length - old, ahead > 0)
  count_kept(kept, length)
  drain(stream, side)
  watch_hole(stream, side)
  while over_limit(half) do give_up_hole(stream, side) end
end

local function take_fin(stream, side, seq)
  local half = stream.half[side]
  if half.has_fin == 1 then return end
  local near = half.next_seq
  if half.based == 0 then near = half.first ~= 0 and piece_at(half.first).seq or seq end
  if abs(tobit(seq - near)) > PLAUSIBLE then return end
  half.has_fin, half.fin_seq, half.fin_since = 1, seq, clock.now
  if half.based == 0 and half.first == 0 then return set_base(stream, side, seq) end
  watch_hole(stream, side)
end

-- A reset counts when it is near what is expected; a zero number stands in the answer to a SYN. The stream lingers:
-- what was under way still comes, and a forged reset does no harm to a connection that goes on.
local function take_rst(stream, side, seq)
  local half = stream.half[side]
  if half.based == 1 and seq ~= 0 and abs(tobit(seq - half.next_seq)) >= NEAR then return end
  if stream.opened == 0 and stream.half[0].first == 0 and stream.half[1].first == 0 then
    return close(stream, clock.now + limits.idle)
  end
  half.is_reset = 1
  watch_hole(stream, side)
end

-- The stream of a segment, or nil when nobody wants its bytes.
local function stream_of(row, segment, base)
  local slot, flags, side = row.stream, segment.flags, segment.side
  local stream
  if slot > 0 then stream = stream_at(slot) end
  if band(flags, SYN) ~= 0 and band(flags, RST) == 0 then
    if band(flags, ACK) == 0 then return take_syn(stream, row, segment.row, side, base) end
    if slot ~= ENDED or row.quiet_until < math.huge then
      return take_syn_ack(stream, row, segment.row, side, base, segment.ack)
    end
  end
  if stream then return stream end
  if band(flags, RST) ~= 0 or (slot == ENDED and clock.now < row.quiet_until) then return nil end
  -- Joined midway: an older stream of the same ends may have told who is the client.
  if row.client ~= 0 then side = row.client - 1 end
  return create(row, segment.row, side)
end

-- What is rare in a segment, after its data was taken.
local function take_end(stream, segment, fin)
  local flags, side = segment.flags, segment.side
  if band(flags, RST) ~= 0 then return take_rst(stream, side, segment.seq) end
  if band(flags, FIN) ~= 0 then take_fin(stream, side, fin) end
  if stream.half[0].has_fin == 1 and stream.half[1].has_fin == 1 then close_if_done(stream) end
end

-- Takes one TCP segment.
function M.take(segment)
  local row, flags, side, seq, length = row_at(segment.row), segment.flags, segment.side, segment.seq, segment.length
  -- A SYN takes one sequence number, before the data. What a RST carries is no data.
  if band(flags, SYN) ~= 0 then seq = tobit(seq + 1) end
  if band(flags, RST) ~= 0 then length = 0 end
  if length > 0 then counters.segments = counters.segments + 1 end
  local stream = stream_of(row, segment, seq)
  if not stream then
    -- What comes after the end of a connection was sent before; the bytes of an ignored one count as nothing.
    if length > 0 and row.quiet_until < math.huge then count_kept(0, length) end
    return
  end
  touch(stream)
  if band(flags, ACK) ~= 0 and stream.half[1 - side].based == 0 then take_ack(stream, 1 - side, segment.ack) end
  if length > 0 then take_segment(stream, side, seq, segment.address, segment.captured, length) end
  take_end(stream, segment, tobit(seq + length))
end

---- time --------------------------------------------------------------------------------------------------------

local function skip_old_holes()
  while out.has_room() do
    local stream, side = streams.next_hole()
    if not stream then return end
    if has_hole(stream.half[side]) then
      skip_hole(stream, side)
      close_if_done(stream)
    elseif clock.now - stream.last >= limits.gap_wait then
      close(stream, clock.now + limits.idle)
    else
      watch_hole(stream, side)
    end
  end
end

local function close_idle()
  while out.has_room() do
    local stream = streams.next_idle()
    if not stream then return end
    close(stream, 0)
  end
end

-- Moves stream time on; it never goes back. Returns false when events wait for room: call again then.
function M.advance(time)
  if time > clock.now then clock.now = time end
  if clock.now < clock.wake then return true end
  skip_old_holes()
  close_idle()
  if not out.has_room() then return false end
  streams.set_wake()
  return true
end

-- Ends every stream, the longest idle first; returns false when some are left for want of room.
function M.finish()
  while true do
    local stream = streams.oldest()
    if not stream then return true end
    if not out.has_room() then return false end
    close(stream, 0)
  end
end

-- Ends the stream of a flow that is over.
function M.leave(row)
  close(stream_at(row.stream), 0)
end

-- Forgets a stream for good: of its connection only a new SYN makes another. Nothing happens when it is gone.
function M.ignore(slot, id)
  local stream = streams.find(slot, id)
  if stream then release(stream, math.huge) end
end

-- Of this stream only its end is told from now on.
function M.mute(slot, id)
  local stream = streams.find(slot, id)
  if stream then stream.muted = 1 end
end

return M
