-- The rows of the flow table: memory for one flow each. Rows never move; a row that is freed is the next one taken, so
-- that a capture needs as many as it ever has flows at once.
local ffi = require("ffi")
local layouts = require("capture.layouts")

local M = {}

local ROW_BITS = 12            -- rows in a chunk: 4096, about a megabyte
local LAST_NUMBER = 2 ^ 31 - 1

local fill = ffi.fill
local row_bytes = ffi.sizeof(layouts.row_t)
local pool = layouts.pool(layouts.row_t, ROW_BITS)
local row_at, reserve = pool.at, pool.reserve
local made, free, number = 0, 0, 0

M.at = row_at

-- A row that is zero but for its number.
function M.take()
  local index = free
  if index ~= 0 then
    free = row_at(index).after
    fill(row_at(index), row_bytes)
  else
    made = made + 1
    index = made
    reserve(index)
  end
  number = number % LAST_NUMBER + 1
  row_at(index).number = number
  return index
end

-- No packet matches a row of no address family.
function M.free(index)
  local row = row_at(index)
  row.number, row.family, row.after = 0, 0, free
  free = index
end

-- How many rows there are, free ones among them: none has a higher index.
function M.made()
  return made
end

return M
