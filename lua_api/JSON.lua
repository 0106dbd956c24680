-- JSON text to Lua values and back (spec 6.1). Needs nothing of the host, so any state can load it.
--
-- Decoding is strict (RFC 8259) and never raises: bad input gives nil and a message. null gives no value: an object
-- has no such key, an array keeps the positions of the others, so `ipairs` ends at the hole; `decode(text, { null =
-- JSON.null })` puts a value of your choice there. Lone surrogates become U+FFFD, other bytes pass as they are.
-- Encoding is deterministic: keys are sorted. A table with the keys 1..n, or none, is an array. What has no JSON form
-- raises an error that names its path.
-- Every function can be called with a colon or a dot.
local M = {}

local byte, char, find, format, gsub, sub =
  string.byte, string.char, string.find, string.format, string.gsub, string.sub
local concat, sort = table.concat, table.sort
local error, getmetatable, next, pcall, setmetatable, tonumber, tostring, type =
  error, getmetatable, next, pcall, setmetatable, tonumber, tostring, type
local floor, huge = math.floor, math.huge

local DEPTH_LIMIT = 1000 -- nesting of arrays and objects, both ways
local EXACT = 2 ^ 53 -- integers below it have a form of their own

-- Stands for null where one is wanted; encodes as null.
M.null = setmetatable({}, { __tostring = function() return "null" end })

-- What our own code raises, told from other errors by its metatable.
local Failure = {}

local function fail(message)
  error(setmetatable({ message = message }, Failure), 0)
end

-- Decoding: each function takes the text and a position and gives a value and the position after it.

local function fail_at(text, pos, what)
  if pos > #text then fail("text ends where " .. what .. " is expected") end
  fail(format("%s expected at byte %d", what, pos))
end

-- The position of the next byte that is no white space, and that byte.
local function skip(text, pos)
  local b = byte(text, pos)
  while b == 32 or b == 10 or b == 13 or b == 9 do
    pos = pos + 1
    b = byte(text, pos)
  end
  return pos, b
end

local function utf8(code)
  if code < 0x80 then return char(code) end
  local last = 0x80 + code % 64
  code = floor(code / 64)
  if code < 32 then return char(0xc0 + code, last) end
  local third = 0x80 + code % 64
  code = floor(code / 64)
  if code < 16 then return char(0xe0 + code, third, last) end
  return char(0xf0 + floor(code / 64), 0x80 + code % 64, third, last)
end

-- The character of the escape "\uXXXX" at `pos`, with its second half when it is a surrogate pair.
local function unicode_escape(text, pos)
  local _, stop, digits = find(text, "^(%x%x%x%x)", pos + 2)
  if not stop then fail_at(text, pos, "an escape of four hex digits") end
  local code = tonumber(digits, 16)
  if code < 0xd800 or code > 0xdfff then return utf8(code), stop + 1 end
  local _, low_stop, low = find(text, "^\\u([dD][c-fC-F]%x%x)", stop + 1)
  if code > 0xdbff or not low_stop then return utf8(0xfffd), stop + 1 end
  return utf8(0x10000 + (code - 0xd800) * 1024 + tonumber(low, 16) - 0xdc00), low_stop + 1
end

local ESCAPED = {
  [34] = '"', [47] = "/", [92] = "\\", [98] = "\b", [102] = "\f", [110] = "\n", [114] = "\r", [116] = "\t",
}
local BACKSLASH, QUOTE = 92, 34

-- `pos` is at the opening quote.
local function decode_string(text, pos)
  local from = pos + 1
  local stop = find(text, '["\\%z\1-\31]', from)
  if stop and byte(text, stop) == QUOTE then return sub(text, from, stop - 1), stop + 1 end
  local parts, count = {}, 0
  while stop do
    local b = byte(text, stop)
    count = count + 1
    parts[count] = sub(text, from, stop - 1)
    if b == QUOTE then return concat(parts), stop + 1 end
    if b ~= BACKSLASH then fail(format("control character in a string at byte %d", stop)) end
    local kind = byte(text, stop + 1)
    count = count + 1
    if kind == 117 then
      parts[count], from = unicode_escape(text, stop)
    else
      parts[count], from = ESCAPED[kind] or fail_at(text, stop, "an escape"), stop + 2
    end
    stop = find(text, '["\\%z\1-\31]', from)
  end
  return fail_at(text, #text + 1, 'a closing "')
end

local function decode_number(text, pos)
  local _, stop = find(text, "^%-?%d+", pos)
  if not stop then fail_at(text, pos, "a value") end
  if find(text, "^%-?0%d", pos) then fail(format("number with a leading zero at byte %d", pos)) end
  local b = byte(text, stop + 1)
  if b == 46 then
    local _, to = find(text, "^%d+", stop + 2)
    if not to then fail_at(text, stop + 2, "a digit") end
    stop, b = to, byte(text, to + 1)
  end
  if b == 101 or b == 69 then
    local _, to = find(text, "^[+-]?%d+", stop + 2)
    if not to then fail_at(text, stop + 2, "a digit") end
    stop = to
  end
  return tonumber(sub(text, pos, stop)), stop + 1
end

local decode_value

local function decode_array(text, pos, depth, null)
  local array, index, b = {}, 0, nil
  pos, b = skip(text, pos + 1)
  if b == 93 then return array, pos + 1 end
  while true do
    index = index + 1
    array[index], pos = decode_value(text, pos, depth, null)
    pos, b = skip(text, pos)
    if b == 93 then return array, pos + 1 end
    if b ~= 44 then fail_at(text, pos, '"," or "]"') end
    pos = skip(text, pos + 1)
  end
end

local function decode_object(text, pos, depth, null)
  local object, key, b = {}, nil, nil
  pos, b = skip(text, pos + 1)
  if b == 125 then return object, pos + 1 end
  while true do
    if b ~= QUOTE then fail_at(text, pos, "a key") end
    key, pos = decode_string(text, pos)
    pos, b = skip(text, pos)
    if b ~= 58 then fail_at(text, pos, '":"') end
    pos = skip(text, pos + 1)
    object[key], pos = decode_value(text, pos, depth, null)
    pos, b = skip(text, pos)
    if b == 125 then return object, pos + 1 end
    if b ~= 44 then fail_at(text, pos, '"," or "}"') end
    pos, b = skip(text, pos + 1)
  end
end

-- The value at `pos`, which is at no white space.
function decode_value(text, pos, depth, null)
  local b = byte(text, pos)
  if b == QUOTE then return decode_string(text, pos) end
  if b == 123 or b == 91 then
    if depth >= DEPTH_LIMIT then fail(format("nested deeper than %d at byte %d", DEPTH_LIMIT, pos)) end
    return (b == 123 and decode_object or decode_array)(text, pos, depth + 1, null)
  end
  if b == 116 and sub(text, pos, pos + 3) == "true" then return true, pos + 4 end
  if b == 102 and sub(text, pos, pos + 4) == "false" then return false, pos + 5 end
  if b == 110 and sub(text, pos, pos + 3) == "null" then return null, pos + 4 end
  return decode_number(text, pos)
end

local function decode_text(text, null)
  local value, pos = decode_value(text, skip(text, 1), 0, null)
  pos = skip(text, pos)
  if pos <= #text then fail_at(text, pos, "the end of the text") end
  return value
end

-- The value of a JSON text; nil and a message when it is none. `options.null` is what null becomes.
function M.decode(self, text, options)
  if self ~= M then
    text, options = self, text
  end
  if type(text) == "number" then text = tostring(text) end
  if type(text) ~= "string" then return nil, "JSON text expected, got " .. type(text) end
  local ok, value = pcall(decode_text, text, type(options) == "table" and options.null or nil)
  if ok then return value end
  if getmetatable(value) == Failure then return nil, value.message end
  return nil, tostring(value)
end

-- Encoding: an `encoder` holds the parts of the text so far, the tables it is inside of, and the keys that lead there.

local function path_of(encoder)
  local path = "value"
  for index = 1, encoder.depth do
    local key = encoder.path[index]
    path = path .. (type(key) == "number" and "[" .. key .. "]" or "." .. tostring(key))
  end
  return path
end

local ESCAPES = {
  ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t",
}
for code = 0, 31 do
  local character = char(code)
  ESCAPES[character] = ESCAPES[character] or format("\\u%04x", code)
end

local function quote(text)
  if not find(text, '["\\%z\1-\31]') then return '"' .. text .. '"' end
  return '"' .. gsub(text, '["\\%z\1-\31]', ESCAPES) .. '"'
end

-- The shortest of 15, 16 and 17 digits that reads back as the same number; nil for nan and infinity.
local function number_text(number)
  if number ~= number or number == huge or number == -huge then return nil end
  if number == floor(number) and number < EXACT and number > -EXACT then return format("%.0f", number) end
  for digits = 15, 17 do
    local text = format("%." .. digits .. "g", number)
    if digits == 17 or tonumber(text) == number then return text end
  end
end

-- The length of a table that is an array, or nil.
local function array_length(value)
  local count, top = 0, 0
  for key in next, value do
    if type(key) ~= "number" or key < 1 or key ~= floor(key) then return nil end
    count = count + 1
    if key > top then top = key end
  end
  return count == top and top or nil
end

local encode_value

-- The keys of an object as text, sorted, and the key of each text.
local function sorted_keys(encoder, object)
  local names, keys, count = {}, {}, 0
  for key in next, object do
    local kind = type(key)
    local name = kind == "string" and key or kind == "number" and number_text(key)
    if not name then fail(format("%s has a key that is a %s", path_of(encoder), kind)) end
    if keys[name] ~= nil then fail(format("%s has the key %q twice, as text and as number", path_of(encoder), name)) end
    count = count + 1
    names[count], keys[name] = name, key
  end
  sort(names)
  return names, keys
end

local function put(encoder, text)
  local count = encoder.count + 1
  encoder[count], encoder.count = text, count
end

local function encode_table(encoder, value)
  if encoder.inside[value] then fail(path_of(encoder) .. " is a table that contains itself") end
  if encoder.depth >= DEPTH_LIMIT then fail(format("value is nested deeper than %d", DEPTH_LIMIT)) end
  local length = array_length(value)
  if length == 0 then return put(encoder, "[]") end
  local names, keys
  if not length then names, keys = sorted_keys(encoder, value) end
  put(encoder, length and "[" or "{")
  encoder.inside[value] = true
  encoder.depth = encoder.depth + 1
  local lead = encoder.newline .. encoder.indent:rep(encoder.depth)
  for index = 1, length or #names do
    local key = length and index or names[index]
    encoder.path[encoder.depth] = key
    put(encoder, length and lead or lead .. quote(key) .. encoder.colon)
    encode_value(encoder, value[length and index or keys[key]])
    if index == 1 then lead = "," .. lead end
  end
  encoder.depth = encoder.depth - 1
  encoder.inside[value] = nil
  put(encoder, encoder.newline .. encoder.indent:rep(encoder.depth) .. (length and "]" or "}"))
end

function encode_value(encoder, value)
  local kind = type(value)
  if kind == "string" then return put(encoder, quote(value)) end
  if kind == "number" then
    return put(encoder, number_text(value) or fail(format("%s is %s, which JSON cannot hold", path_of(encoder), value)))
  end
  if kind == "boolean" then return put(encoder, value and "true" or "false") end
  if value == nil or value == M.null then return put(encoder, "null") end
  if kind == "table" then return encode_table(encoder, value) end
  fail(format("%s is a %s, which JSON cannot hold", path_of(encoder), kind))
end

-- `level` as for `error`, seen from here.
local function encode(value, newline, indent, colon, level)
  local encoder = { count = 0, depth = 0, inside = {}, path = {}, newline = newline, indent = indent, colon = colon }
  local ok, raised = pcall(encode_value, encoder, value)
  if ok then return concat(encoder, "", 1, encoder.count) end
  if getmetatable(raised) == Failure then error("JSON: " .. raised.message, level) end
  error(raised, 0)
end

-- The JSON text of a value, without white space.
function M.encode(self, value)
  if self ~= M then value = self end
  local text = encode(value, "", "", ":", 3)
  return text
end

-- The same over several lines, indented by two blanks.
function M.encode_pretty(self, value)
  if self ~= M then value = self end
  local text = encode(value, "\n", "  ", ": ", 3)
  return text
end

return M
