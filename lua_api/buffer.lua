-- Buffer: a view of captured bytes, with 0-based offsets (spec 3.6). Every read is checked against the length,
-- so nothing outside of the view is ever touched: numbers read 0 there, strings are clipped.
local M = {}

local ffi = require "ffi"

local char, find, format = string.char, string.find, string.format
local concat, getmetatable, setmetatable, tonumber, type = table.concat, getmetatable, setmetatable, tonumber, type

local const_bytes_t = ffi.typeof("const uint8_t *")
local LINE = 16 -- bytes in a line of a hexdump

local Buffer = {}
Buffer.__index = Buffer

-- A number as lua_tonumber reads it, without its fraction; nil and garbage are 0.
local function integer(value)
  if type(value) ~= "number" then value = tonumber(value) or 0 end
  return value - value % 1
end

-- `offset` when `count` bytes can be read there, else nil. NaN fails both comparisons.
local function readable(self, offset, count)
  offset = integer(offset)
  if offset >= 0 and offset + count <= self.len then return offset end
  return nil
end

-- The part of [offset, offset + size) that is inside the view, as start and count.
local function clip(self, offset, size)
  local from = integer(offset)
  local to = size == nil and self.len or from + integer(size)
  if not (from > 0) then from = 0 end
  if not (to < self.len) then to = self.len end
  if from >= to then return 0, 0 end
  return from, to - from
end

-- A Buffer over a Lua string.
function M.from_string(text)
  return setmetatable({ ptr = ffi.cast(const_bytes_t, text), len = #text, owner = text }, Buffer)
end

-- A Buffer over `len` bytes at `ptr`. `owner` is whatever keeps them alive; without one, the caller must
-- `M.reset` the Buffer before the memory goes.
function M.from_pointer(ptr, len, owner)
  return setmetatable({ ptr = ffi.cast(const_bytes_t, ptr), len = len, owner = owner }, Buffer)
end

-- Points a Buffer at other memory; with no pointer it becomes empty, which makes a kept reference harmless.
function M.reset(buffer, ptr, len, owner)
  buffer.ptr = ptr and ffi.cast(const_bytes_t, ptr) or nil
  buffer.len = ptr and len or 0
  buffer.owner = owner
end

-- Whether a value is a Buffer.
function M.is_buffer(value)
  return type(value) == "table" and getmetatable(value) == Buffer
end

-- Number of bytes.
function Buffer:size()
  return self.len
end

Buffer.length = Buffer.size

-- The byte at an offset.
function Buffer:hval_8(offset)
  local at = readable(self, offset, 1)
  return at and self.ptr[at] or 0
end

-- The big-endian 16-bit number at an offset.
function Buffer:hval_16(offset)
  local at = readable(self, offset, 2)
  if not at then return 0 end
  local p = self.ptr
  return p[at] * 256 + p[at + 1]
end

-- The big-endian 24-bit number at an offset.
function Buffer:hval_24(offset)
  local at = readable(self, offset, 3)
  if not at then return 0 end
  local p = self.ptr
  return p[at] * 65536 + p[at + 1] * 256 + p[at + 2]
end

-- The big-endian unsigned 32-bit number at an offset.
function Buffer:hval_32(offset)
  local at = readable(self, offset, 4)
  if not at then return 0 end
  local p = self.ptr
  return p[at] * 16777216 + p[at + 1] * 65536 + p[at + 2] * 256 + p[at + 3]
end

-- The bytes from an offset, all of them without arguments, as a Lua string.
function Buffer:tostring(offset, size)
  local from, count = clip(self, offset, size)
  if count == 0 then return "" end
  local owner = self.owner
  if count == self.len and type(owner) == "string" and #owner == count then return owner end
  return ffi.string(self.ptr + from, count)
end

Buffer.__tostring = function(self) return self:tostring() end

-- Lines of position, 16 bytes in hex and the same as text; a short last line is filled up with zero bytes.
function Buffer:hexdump(offset, size)
  local from, count = clip(self, offset, size)
  local lines, hex, shown = {}, {}, {}
  for position = 0, count - 1, LINE do
    for column = 0, LINE - 1 do
      local at = position + column
      local value = at < count and self.ptr[from + at] or 0
      hex[column + 1] = format("%02x", value)
      shown[column + 1] = value >= 32 and value < 127 and char(value) or "."
    end
    lines[#lines + 1] = format("%08x   %s    %s\n", position, concat(hex, " "), concat(shown))
  end
  return concat(lines)
end

-- Writes the bytes at `offset`, or at the end, and closes the file. The message names the file.
local function put(self, file, name, offset)
  local done, message = true, nil
  if offset then done, message = file:seek("set", offset) end
  if done then done, message = file:write(self:tostring()) end
  local closed, close_message = file:close()
  if done and closed then return nil end
  return format("cannot write %s: %s", name, message or close_message or "unknown error")
end

-- A file name as C reads it: numbers are text, a NUL would cut the name short and is refused.
local function file_name(name)
  if type(name) == "number" then name = tostring(name) end
  if type(name) ~= "string" or name == "" or find(name, "%z") then return nil end
  return name
end

-- Appends the bytes to a file, which is created when absent. Blocks: T.async does the same off the fast path.
function Buffer:appendtofile(filename)
  local name = file_name(filename)
  if not name then error("appendtofile: a file name is needed", 2) end
  local file, message = io.open(name, "ab")
  if not file then error("cannot append to " .. message, 2) end
  message = put(self, file, name, nil)
  if message then error(message, 2) end
end

-- Writes the bytes at a 0-based offset of a file, which is created when absent and never cut short.
function Buffer:writetofile(filename, offset)
  local name = file_name(filename)
  if not name then error("writetofile: a file name is needed", 2) end
  local at = integer(offset)
  if not (at >= 0 and at < 2 ^ 53) then error("writetofile: the offset must not be negative", 2) end
  local file, message = io.open(name, "r+b")
  if not file then
    -- Only creates: mode "w" could cut a file that came into being just now.
    local created = io.open(name, "ab")
    if created then created:close() end
    file, message = io.open(name, "r+b")
  end
  if not file then error("cannot write " .. message, 2) end
  message = put(self, file, name, at)
  if message then error(message, 2) end
end

return M
