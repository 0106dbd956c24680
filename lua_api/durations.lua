-- Buckets of durations, as the host counts them (histogram.py): they double from 1 µs.

local ffi = require("ffi")

local rshift = bit.rshift

ffi.cdef("typedef union { double value; uint32_t words[2]; } offpath_double_t;")
local double = ffi.new("offpath_double_t")
local words = double.words

local LAST_BUCKET = 27

local M = {}

-- The bucket of a duration in seconds, from 0: the exponent of the double.
function M.bucket(seconds)
  double.value = seconds * 1e6
  local bucket = rshift(words[1], 20) - 1022
  if bucket < 0 then return 0 end
  return bucket > LAST_BUCKET and LAST_BUCKET or bucket
end

return M
