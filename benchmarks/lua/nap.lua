-- Sleeps without giving up the thread, for so many seconds.

local ffi = require("ffi")

ffi.cdef("int usleep(unsigned int microseconds);")

return function(seconds) ffi.C.usleep(seconds * 1e6) end
