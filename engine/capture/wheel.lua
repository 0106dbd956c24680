-- When flow rows are to be looked at: a list for each second of stream time, in a wheel of so many seconds. A packet
-- costs nothing here: a row that turns out to have had one is put in again, for when it may be due then.
local ffi = require("ffi")
local rows = require("capture.rows")

local M = {}

local SPAN = 512               -- seconds; what is due later is looked at once more on the way
local AT_HAND = SPAN           -- the list of the second that has come
local END_OF_TIME = 2 ^ 52     -- seconds; past it a second more makes no difference to a number

local ceil, max, min, row_at = math.ceil, math.max, math.min, rows.at
local first = ffi.new("int32_t[?]", SPAN + 1)
local turned = 0               -- the second up to which the wheel has come

-- The first row of a list has its list before it, as a negative number.
local function link(index, row, list)
  local other = first[list]
  row.before, row.after = -list - 1, other
  if other ~= 0 then row_at(other).before = index end
  first[list] = index
end

local function remove(row)
  local before, after = row.before, row.after
  if before < 0 then first[-before - 1] = after else row_at(before).after = after end
  if after ~= 0 then row_at(after).before = before end
end

-- Has a row looked at in the first whole second from a time on.
local function add(index, row, time)
  local second = max(min(ceil(time), turned + SPAN - 1), turned + 1)
  link(index, row, second % SPAN)
end

-- The same for a row that is in the wheel already.
function M.move(index, row, time)
  remove(row)
  add(index, row, time)
end

-- The next row to be looked at when stream time has come to a second, or 0. It stays the next one until it is removed.
function M.next(second)
  second = min(second, END_OF_TIME)
  while first[AT_HAND] == 0 do
    if turned >= second then return 0 end
    turned = max(turned, second - SPAN) + 1
    local list = turned % SPAN
    local index = first[list]
    if index ~= 0 then
      first[AT_HAND], first[list] = index, 0
      row_at(index).before = -AT_HAND - 1
    end
  end
  return first[AT_HAND]
end

M.add, M.remove = add, remove

return M
