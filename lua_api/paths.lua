-- Paths as scripts give them, made absolute: the working directory belongs to the whole process and may be another one later.

local ffi = require("ffi")

ffi.cdef([[char *offpath_getcwd(char *buffer, size_t size) __asm__("getcwd");]])

local C = ffi.C
local byte, error = string.byte, error

local SLASH = 47
local ROOM = 65536

local room -- made when it is first needed: most paths are absolute

local M = {}

-- An absolute path stays as it is. Raises at `level`, 1 for who calls this, when the working directory is gone.
function M.absolute(path, level)
  if byte(path) == SLASH then return path end
  room = room or ffi.new("char[?]", ROOM)
  if C.offpath_getcwd(room, ROOM) == nil then
    error(("'%s' is relative, and there is no working directory"):format(path), level + 1)
  end
  return ffi.string(room) .. "/" .. path
end

return M
