-- The TCP streams there are, in two lists: by last activity, and by the age of the holes that data waits behind.
-- What is in the streams is the business of tcp.lua; here they are made, found when their time is over, and freed.
local ffi = require("ffi")
local bit = require("bit")
local layouts = require("capture.layouts")
local flows = require("capture.flows")
local held = require("capture.held")

local M = {
  ENDED = -1,     -- row.stream of a connection that is over
}

local band, tobit, rshift = bit.band, bit.tobit, bit.rshift
local fill, min, row_at, counters = ffi.fill, math.min, flows.at, layouts.counters
local piece_at, drop_first = held.at, held.drop_first
local ENDED = M.ENDED
local SEARCHED = 64               -- older holes looked at to find the place of a new one

local pool = layouts.pool(layouts.stream_t, 10)
local stream_at, reserve = pool.at, pool.reserve
local stream_bytes = ffi.sizeof(layouts.stream_t)

-- Stream time, and the earliest time at which a stream or a hole may be due.
local clock = layouts.clock_t(0, math.huge)
local most, gap_wait, idle, grain
local live, last_id, made, free_slot = 0, 0, 0, 0
local oldest, newest = 0, 0
local oldest_hole, newest_hole = 0, 0    -- slot * 2 + side

M.at, M.clock = stream_at, clock

-- Seconds of stream time: how long data waits behind a hole, and how long a stream may be silent.
function M.configure(most_streams, gap_wait_seconds, idle_seconds)
  most, gap_wait, idle = most_streams, gap_wait_seconds, idle_seconds
  -- A stream moves in the list by activity at most this often.
  grain = min(1, idle / 8)
end

local function half_of(hole)
  return stream_at(rshift(hole, 1)).half[band(hole, 1)]
end

local function forget_hole(half)
  if half.in_holes == 0 then return end
  local older, newer = half.older_hole, half.newer_hole
  if older ~= 0 then half_of(older).newer_hole = newer else oldest_hole = newer end
  if newer ~= 0 then half_of(newer).older_hole = older else newest_hole = older end
  half.in_holes = 0
end

-- Puts the hole into its place by age. The search is bounded; past it the hole counts as younger than it is.
local function remember_hole(half, hole, since)
  local older, newer, tries = newest_hole, 0, 0
  while older ~= 0 and half_of(older).since > since do
    if tries == SEARCHED then
      since = half_of(older).since
      break
    end
    older, newer, tries = half_of(older).older_hole, older, tries + 1
  end
  half.older_hole, half.newer_hole, half.in_holes, half.since = older, newer, 1, since
  if older ~= 0 then half_of(older).newer_hole = hole else oldest_hole = hole end
  if newer ~= 0 then half_of(newer).older_hole = hole else newest_hole = hole end
  clock.wake = min(clock.wake, since + gap_wait)
end

-- Whether bytes are missing before something that was seen: held pieces, or a FIN.
local function has_hole(half)
  return half.first ~= 0 or (half.has_fin == 1 and half.based == 1 and tobit(half.fin_seq - half.next_seq) > 0)
end

-- To be called when what a direction waits for may have changed. Directions that were reset wait in the same list,
-- for the end of their stream.
function M.watch_hole(stream, side)
  local half = stream.half[side]
  local since
  if half.first ~= 0 then
    since = piece_at(half.first).since
  elseif has_hole(half) then
    since = half.fin_since
  elseif half.is_reset == 1 then
    since = stream.last
  else
    return forget_hole(half)
  end
  if half.in_holes == 1 then
    if half.since == since then return end
    forget_hole(half)
  end
  remember_hole(half, stream.slot * 2 + side, since)
end

M.has_hole = has_hole

local function unlink(stream)
  local older, newer = stream.older, stream.newer
  if older ~= 0 then stream_at(older).newer = newer else oldest = newer end
  if newer ~= 0 then stream_at(newer).older = older else newest = older end
end

local function link_newest(stream)
  stream.older, stream.newer, stream.touched = newest, 0, clock.now
  if newest ~= 0 then stream_at(newest).newer = stream.slot else oldest = stream.slot end
  newest = stream.slot
end

-- A new stream whose direction 0 is what `client` sends; nil when there are too many.
function M.create(row, index, client)
  if live >= most then
    counters.streams_rejected = counters.streams_rejected + 1
    row.stream, row.quiet_until = ENDED, math.huge
    return nil
  end
  local slot = free_slot
  if slot ~= 0 then
    free_slot = stream_at(slot).newer
  else
    made = made + 1
    slot = made
    reserve(slot)
  end
  local stream = stream_at(slot)
  fill(stream, stream_bytes)
  live, last_id = live + 1, last_id + 1
  stream.id, stream.slot, stream.row, stream.flip, stream.last = last_id, slot, index, client, clock.now
  stream.roles = row.client ~= 0 and 1 or 0
  row.stream = slot
  link_newest(stream)
  clock.wake = min(clock.wake, clock.now + idle)
  return stream
end

local function empty(half)
  forget_hole(half)
  while half.first ~= 0 do drop_first(half) end
end

-- Frees the slot and what is held. The row stays quiet until the given stream time, but for a SYN.
function M.release(stream, quiet_until)
  empty(stream.half[0])
  empty(stream.half[1])
  unlink(stream)
  local row = row_at(stream.row)
  row.stream, row.quiet_until = ENDED, quiet_until
  live = live - 1
  stream.id, stream.newer, free_slot = 0, free_slot, stream.slot
end

-- The stream had a packet.
function M.touch(stream)
  local now = clock.now
  stream.last = now
  if now - stream.touched >= grain then
    unlink(stream)
    link_newest(stream)
  end
end

-- The stream that has been silent for longest, or nil.
function M.oldest()
  if oldest ~= 0 then return stream_at(oldest) end
end

-- The stream that has been silent for too long, or nil.
function M.next_idle()
  while oldest ~= 0 do
    local stream = stream_at(oldest)
    if clock.now - stream.touched <= idle then return nil end
    if clock.now - stream.last > idle then return stream end
    unlink(stream)
    link_newest(stream)
  end
end

-- Stream and side of the oldest hole when its time is over, or nil.
function M.next_hole()
  if oldest_hole == 0 or clock.now - half_of(oldest_hole).since < gap_wait then return nil end
  return stream_at(rshift(oldest_hole, 1)), band(oldest_hole, 1)
end

-- To be called when nothing is due: sets the time at which something may be.
function M.set_wake()
  clock.wake = math.huge
  if oldest_hole ~= 0 then clock.wake = half_of(oldest_hole).since + gap_wait end
  if oldest ~= 0 then clock.wake = min(clock.wake, stream_at(oldest).touched + idle) end
end

-- The stream in a slot when it still has this number, or nil.
function M.find(slot, id)
  if slot < 1 or slot > made or stream_at(slot).id ~= id then return nil end
  return stream_at(slot)
end

return M
