-- Plain values cross from Python and back as one string each way, in the format of Python's `marshal` module (version 4):
-- its C code walks mappings several times as fast as tables can be filled from outside.
--
-- `read` knows what plain data is made of and refuses all else, without a trace; the host then takes the slow way, which
-- says what is wrong. `write` refuses by name.

local ffi = require("ffi")
local new_table = require("table.new")

local byte, char, find, format = string.byte, string.char, string.find, string.format
local concat, ffi_string, cast, tostring, type, error, pcall = table.concat, ffi.string, ffi.cast, tostring, type, error, pcall
local floor, getmetatable, next = math.floor, getmetatable, next
local band = bit.band

local M = {}

local BYTES_P, INT_P, DOUBLE_P, SHORT_P =
  ffi.typeof("const uint8_t *"), ffi.typeof("const int32_t *"), ffi.typeof("const double *"), ffi.typeof("const uint16_t *")

-- Reading. One text at a time: no hook runs, and no other text is read, while one is.

local held, memory, size, position -- the text, as memory, its length, the next byte
local refs, ref_count = {}, 0 -- what later parts may refer to, by place; false for tables that are not complete
local allows_bytes -- whether a byte string is what it seems, see `read`
local width = 0 -- of the last mapping, as the next one is likely to be like it

local REFUSED, BYTES = {}, {}

local function refuse() error(REFUSED, 0) end

-- The position before so many bytes, which are passed over.
local function pass(count)
  local at = position
  if count < 0 or at + count > size then refuse() end
  position = at + count
  return at
end

local function int32() return cast(INT_P, memory + pass(4))[0] end

-- Text is UTF-8, but for lone surrogates, which Python lets by here and nowhere else.
local function text(count)
  local found = ffi_string(memory + pass(count), count)
  if find(found, "\237", 1, true) and find(found, "\237[\160-\191]") then refuse() end
  return found
end

-- Digits of 15 bits, the lowest first. With up to four, only the last addition rounds.
local function long()
  local count = int32()
  local digits = count < 0 and -count or count
  if digits > 4 then refuse() end
  local at, value = pass(2 * digits), 0
  for place = digits - 1, 0, -1 do value = value * 32768 + cast(SHORT_P, memory + at + 2 * place)[0] end
  return count < 0 and -value or value
end

-- Events do not share tables, as a hook may write into its own.
local function copy(value)
  if type(value) ~= "table" then return value end
  local to = {}
  for key, item in next, value do to[copy(key)] = copy(item) end
  return to
end

local read_value

local function read_list(count, ref)
  if count < 0 or count > size - position then refuse() end
  local list = new_table(count, 0)
  if ref then refs[ref] = false end
  for at = 1, count do list[at] = read_value() end
  if ref then refs[ref] = list end
  return list
end

local function read_mapping(ref)
  local mapping, count = new_table(0, width), 0
  if ref then refs[ref] = false end
  while true do
    if position < size and memory[position] == 48 then break end -- "0"
    local key = read_value()
    local value = read_value()
    if key == nil or key ~= key then refuse() end
    mapping[key] = value
    count = count + 1
  end
  position = position + 1
  width = count
  if ref then refs[ref] = mapping end
  return mapping
end

-- The next value. The commonest kinds come first.
function read_value()
  local code, ref = memory[pass(1)], nil
  if code >= 128 then
    code, ref = code - 128, ref_count
    ref_count = ref_count + 1
  end
  local value
  if code == 114 then -- "r": an earlier value
    local place = int32()
    value = place < ref_count and refs[place]
    if not value then refuse() end
    if type(value) == "table" then return copy(value) end
    return value
  elseif code == 122 or code == 90 then -- "z", "Z": short ASCII
    local count = memory[pass(1)]
    value = ffi_string(memory + pass(count), count)
  elseif code == 105 then value = int32() -- "i"
  elseif code == 103 then value = cast(DOUBLE_P, memory + pass(8))[0] -- "g"
  elseif code == 123 then return read_mapping(ref) -- "{"
  elseif code == 91 or code == 40 then return read_list(int32(), ref) -- "[", "("
  elseif code == 41 then return read_list(memory[pass(1)], ref) -- ")"
  elseif code == 78 then return nil -- "N"
  elseif code == 84 then return true -- "T"
  elseif code == 70 then return false -- "F"
  elseif code == 117 or code == 116 then value = text(int32()) -- "u", "t"
  elseif code == 97 or code == 65 then -- "a", "A": ASCII
    local count = int32()
    value = ffi_string(memory + pass(count), count)
  elseif code == 108 then value = long() -- "l"
  elseif code == 115 then -- "s"
    if not allows_bytes then error(BYTES, 0) end
    local count = int32()
    value = ffi_string(memory + pass(count), count)
  else
    refuse()
  end
  if ref then refs[ref] = value end
  return value
end

-- The values of a list, and how many; or nil and "bytes" when byte strings are in it, or "other" for what is refused. What
-- Python writes as byte string may be any object that shows its memory: whoever has looked says `bytes_checked`.
function M.read(written, bytes_checked)
  held, memory, size, position = written, cast(BYTES_P, written), #written, 0
  ref_count, allows_bytes = 0, bytes_checked
  local ok, list = pcall(read_value)
  held, memory = nil, nil
  if ref_count > 1000 then refs = {} end
  if not ok then
    if list == BYTES then return nil, "bytes" end
    if list == REFUSED then return nil, "other" end
    return nil, "other" -- out of stack: nested as deep as nothing should be
  end
  return list
end

-- A key and its value, which begin at `at`: where the next ones begin, or 0 when either is no short ASCII, number or boolean.
local function read_pair(bytes, at, last, mapping)
  local code, length = band(bytes[at], 127), bytes[at + 1] -- without the bit that lets later parts refer to it
  if code ~= 122 and code ~= 90 then return 0 end -- "z", "Z"
  local from = at + 2
  at = from + length
  if at >= last then return 0 end
  local key = ffi_string(bytes + from, length)
  code = band(bytes[at], 127)
  if code == 122 or code == 90 then
    length, from = bytes[at + 1], at + 2
    at = from + length
    if at > last then return 0 end
    mapping[key] = ffi_string(bytes + from, length)
    return at
  elseif code == 105 then -- "i"
    if at + 5 > last then return 0 end
    mapping[key] = cast(INT_P, bytes + at + 1)[0]
    return at + 5
  elseif code == 103 then -- "g"
    if at + 9 > last then return 0 end
    mapping[key] = cast(DOUBLE_P, bytes + at + 1)[0]
    return at + 9
  elseif code == 84 or code == 70 then -- "T", "F"
    mapping[key] = code == 84
    return at + 1
  end
  return 0
end

-- A mapping of a few short texts, numbers and booleans, as most events are; nil for all else, which `read` may know, and where
-- the same number or text is in it twice, the second time by reference.
--
-- Each pair has a line of its own: a loop in here would keep all that leads here from being compiled (`jit.attach`: "inner loop
-- in root trace").
function M.read_flat(written)
  local bytes, last = cast(BYTES_P, written), #written - 1
  if last < 1 or band(bytes[0], 127) ~= 123 or bytes[last] ~= 48 then return nil end -- "{", "0"
  local mapping = new_table(0, 8)
  if last == 1 then return mapping end
  local at = read_pair(bytes, 1, last, mapping)
  if at ~= 0 and at < last then at = read_pair(bytes, at, last, mapping) end
  if at ~= 0 and at < last then at = read_pair(bytes, at, last, mapping) end
  if at ~= 0 and at < last then at = read_pair(bytes, at, last, mapping) end
  if at ~= 0 and at < last then at = read_pair(bytes, at, last, mapping) end
  if at ~= 0 and at < last then at = read_pair(bytes, at, last, mapping) end
  if at ~= 0 and at < last then at = read_pair(bytes, at, last, mapping) end
  if at ~= 0 and at < last then at = read_pair(bytes, at, last, mapping) end
  return at == last and mapping or nil
end

-- Writing.

local FOUR, EIGHT = ffi.new("int32_t[1]"), ffi.new("double[1]")
local DEEPEST = 200
local parts, length, inside = {}, 0, {}

local function put(part)
  length = length + 1
  parts[length] = part
end

local function int32_text(value)
  FOUR[0] = value
  return ffi_string(FOUR, 4)
end

-- Whether a string is UTF-8 as Python reads it: no overlong forms, no surrogates, nothing past U+10FFFF.
function M.is_utf8(string)
  local at, stop = 1, #string
  while at <= stop do
    local first = byte(string, at)
    local more, low, high = 0, 128, 191
    if first >= 128 then
      if first < 194 or first > 244 then return false end
      more = first < 224 and 1 or first < 240 and 2 or 3
      if first == 224 then low = 160 elseif first == 237 then high = 159 elseif first == 240 then low = 144 elseif first == 244 then high = 143 end
    end
    for place = 1, more do
      local next_byte = byte(string, at + place)
      if not next_byte or next_byte < low or next_byte > high then return false end
      low, high = 128, 191
    end
    at = at + more + 1
  end
  return true
end

local function put_string(value)
  if #value < 256 and not find(value, "[\128-\255]") then return put("z" .. char(#value) .. value) end
  put((M.is_utf8(value) and "u" or "s") .. int32_text(#value) .. value)
end

local function put_number(value)
  if value == floor(value) and value >= -2147483648 and value <= 2147483647 and 1 / value ~= -1 / 0 then return put("i" .. int32_text(value)) end
  EIGHT[0] = value
  put("g" .. ffi_string(EIGHT, 8))
end

local function array_length(value)
  local count, top = 0, 0
  for key in next, value do
    if type(key) ~= "number" or key < 1 or key ~= floor(key) then return nil end
    count = count + 1
    if key > top then top = key end
  end
  return count == top and top or nil
end

local put_value

local function put_table(value, where, depth)
  if inside[value] then error({ where .. " contains itself" }, 0) end
  if depth > DEEPEST then error({ where .. " is nested too deep" }, 0) end
  if getmetatable(value) then error({ where .. " is an object, which is no plain value" }, 0) end
  inside[value] = true
  local count = array_length(value)
  if count then
    put("[" .. int32_text(count))
    for at = 1, count do put_value(value[at], where, at, depth) end
  else
    put("{")
    for key, item in next, value do
      if type(key) ~= "string" and type(key) ~= "number" then error({ format("%s has a key that is a %s", where, type(key)) }, 0) end
      put_value(key, where, "?", depth)
      put_value(item, where, key, depth)
    end
    put("0")
  end
  inside[value] = nil
end

-- `key` is where the value is in the table `where`, or nil.
function put_value(value, where, key, depth)
  local kind = type(value)
  if kind == "string" then return put_string(value) end
  if kind == "number" then return put_number(value) end
  if kind == "boolean" then return put(value and "T" or "F") end
  if kind == "nil" then return put("N") end
  if key ~= nil then where = where .. (type(key) == "number" and "[" .. key .. "]" or "." .. tostring(key)) end
  if kind == "table" then return put_table(value, where, depth + 1) end
  error({ format("%s is a %s, which is no plain value", where, kind) }, 0)
end

-- A value for the host; or nil and what is wrong, where `name` is what the value is called. Tables with the keys 1 to n
-- become lists, the empty one, too. Text becomes str when it is UTF-8, else bytes.
function M.write(value, name)
  parts, length, inside = {}, 0, {}
  local ok, failed = pcall(put_value, value, name, nil, 0)
  if not ok then return nil, type(failed) == "table" and failed[1] or tostring(failed) end
  return concat(parts, "", 1, length)
end

-- Several values as a list, nil among them; otherwise the same.
function M.write_list(name, count, ...)
  parts, length, inside = {}, 0, {}
  local values = { ... }
  put("[" .. int32_text(count))
  for at = 1, count do
    local ok, failed = pcall(put_value, values[at], name .. " " .. at, nil, 0)
    if not ok then return nil, type(failed) == "table" and failed[1] or tostring(failed) end
  end
  return concat(parts, "", 1, length)
end

return M
