-- Lets flows go that are over: once a second of stream time, between two packets, so that what a packet meets does not
-- depend on how the capture is cut into batches. A flow is over in the first whole second in which it has been silent
-- for its lifetime. Copies of the rows are left for Python, which makes records of them.
local ffi = require("ffi")
local layouts = require("capture.layouts")
local rows = require("capture.rows")
local wheel = require("capture.wheel")
local lifetimes = require("capture.lifetimes")
local flows = require("capture.flows")
local turnover = require("capture.turnover")

local M = {}

local ROOM = 512               -- rows that a batch may leave: a few milliseconds of work for Python
local LOOKED_AT = 4096         -- rows in a batch, however many seconds it goes on past

local copy, row_at, min, counters = ffi.copy, rows.at, math.min, layouts.counters
local counts, close_flow = turnover.counts, turnover.close
local lifetime, state, CLOSED = lifetimes.of, lifetimes.state, lifetimes.CLOSED
local row_bytes = ffi.sizeof(layouts.row_t)
local over = ffi.new(ffi.typeof("$[?]", layouts.row_t), ROOM)
local count, looked = 0, 0     -- rows in `over`, and those that were looked at in this batch
local end_stream, has_room     -- of a row; whether one may give its events

-- `close(row)` ends the stream of a row, when there is `room()`. Returns the address of what is left for Python.
function M.configure(close, room)
  end_stream, has_room = close, room
  return layouts.address_of(over)
end

local function let_go(index, row)
  if row.stream > 0 then end_stream(row) end
  if row.proto == 6 and state(row) == CLOSED then
    counters.flows_closed = counters.flows_closed + 1
  else
    counters.flows_timed_out = counters.flows_timed_out + 1
  end
  if counts() then close_flow(row) end
  copy(over + count, row, row_bytes)
  count = count + 1
  flows.remove(index, row)
end

-- Ends the flows that are over when stream time has come to a second. Returns false when there may be more, for want
-- of room or of time: call again in the next batch, before any packet. All of it is compiled (`jit.attach`), in several
-- traces: empty lists of the wheel and chains of the index are loops of their own.
function M.sweep(second)
  while looked < LOOKED_AT do
    local index = wheel.next(second)
    if index == 0 then return true end
    if count == ROOM or not has_room() then return false end
    looked = looked + 1
    local row = row_at(index)
    wheel.remove(row)
    local due = row.seen + lifetime(row)
    if due > second then wheel.add(index, row, due) else let_go(index, row) end
  end
  return false
end

-- Leaves copies of the flows that there are, from a row on. Returns how many, and the row to go on with.
function M.show(index)
  count = 0
  local last = min(rows.made(), index + LOOKED_AT - 1)
  while index <= last and count < ROOM do
    local row = row_at(index)
    if row.number ~= 0 then
      copy(over + count, row, row_bytes)
      count = count + 1
    end
    index = index + 1
  end
  return count, index <= rows.made() and index or 0
end

-- Forgets what was left.
function M.start_batch()
  count, looked = 0, 0
end

-- The copy of a row that is of the same flow as a packet whose side is known, or nil.
function M.find(packet)
  for at = 0, count - 1 do
    if flows.is_of(over[at], packet) then return over[at] end
  end
end

-- How many rows are left.
function M.count()
  return count
end

return M
