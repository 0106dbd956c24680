-- Seconds of a clock that only goes forward, for measuring. A name of our own, as a script may declare the function, too.

local ffi = require("ffi")

ffi.cdef([[
typedef struct { long seconds; long nanoseconds; } offpath_timespec_t;
int offpath_clock_gettime(int clock, offpath_timespec_t *time) __asm__("clock_gettime");
]])

local CLOCK_MONOTONIC = 1

local C = ffi.C
local time = ffi.new("offpath_timespec_t")

local M = {}

-- Seconds, with nanoseconds as fraction.
function M.now()
  C.offpath_clock_gettime(CLOCK_MONOTONIC, time)
  return tonumber(time.seconds) + tonumber(time.nanoseconds) * 1e-9
end

return M
