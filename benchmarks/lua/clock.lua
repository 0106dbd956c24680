-- Seconds of the monotonic clock, the one that Python's time.perf_counter reads on Linux.

local ffi = require("ffi")

ffi.cdef([[
  struct benchmark_timespec { long seconds; long nanoseconds; };
  int clock_gettime(int clock, struct benchmark_timespec *time);
]])

local MONOTONIC = 1
local time = ffi.new("struct benchmark_timespec")

return function()
  ffi.C.clock_gettime(MONOTONIC, time)
  return tonumber(time.seconds) + tonumber(time.nanoseconds) * 1e-9
end
