-- T.util: addresses, bits, splitting, hashing and hex (spec 4.4). Numbers are unsigned 32-bit, and arguments are read
-- as lua_tonumber and lua_tostring would: numeric strings are numbers, garbage is 0 or "".
local M = {}

local bit = require "bit"
local address = require "offpath.address"

local band, bor, bxor, lshift, rshift, tobit = bit.band, bit.bor, bit.bxor, bit.lshift, bit.rshift, bit.tobit
local byte, char, find, format, gsub, match, sub =
  string.byte, string.char, string.find, string.format, string.gsub, string.match, string.sub
local tonumber, tostring, type, unpack = tonumber, tostring, type, unpack

local WORD = 4294967296 -- 2^32

local function number(value)
  if type(value) ~= "number" then value = tonumber(value) or 0 end
  if value ~= value or value == math.huge or value == -math.huge then return 0 end
  return value
end

local function unsigned(value)
  value = number(value)
  return (value - value % 1) % WORD
end

local function text(value)
  if type(value) == "string" then return value end
  return type(value) == "number" and tostring(value) or ""
end

-- The dotted form of a 32-bit number, most significant byte first.
function M.ntop(value)
  return address.number_to_dotted(number(value))
end

-- The number of a dotted address; 0 when it is none.
function M.pton(dotted)
  return address.dotted_to_number(text(dotted)) or 0
end

-- Bitwise or, as an unsigned number.
function M.bor(p, q)
  return bor(tobit(unsigned(p)), tobit(unsigned(q))) % WORD
end

-- Bitwise and, as an unsigned number.
function M.band(p, q)
  return band(tobit(unsigned(p)), tobit(unsigned(q))) % WORD
end

-- Whether a bit is set; 0 is the least significant, and bits outside of 0..31 are not set.
function M.testbit32(value, index)
  index = number(index)
  if index < 0 or index > 31 then return false end
  return rshift(tobit(unsigned(value)), index) % 2 == 1
end

-- The field of `width` bits whose highest is bit `start`: (20, 4) reads bits 20 to 17.
function M.bitval32(value, start, width)
  start, width = unsigned(start), unsigned(width)
  local lowest = start - width + 1
  if lowest < 0 then
    lowest, width = 0, start + 1
  end
  local shifted = unsigned(value) / 2 ^ lowest
  return (shifted - shifted % 1) % 2 ^ width
end

-- The parts of a text between a literal delimiter, empty ones included.
function M.split(str, delim)
  str, delim = text(str), text(delim)
  local parts, count, from = {}, 0, 1
  local start, stop = nil, nil
  if delim ~= "" then start, stop = find(str, delim, 1, true) end
  while start do
    count = count + 1
    parts[count] = sub(str, from, start - 1)
    from = stop + 1
    start, stop = find(str, delim, from, true)
  end
  parts[count + 1] = sub(str, from)
  return parts
end

-- The same as several results.
function M.splitm(str, delim)
  return unpack(M.split(str, delim))
end

local MIX = 0x5bd1e995 -- the multiplier of MurmurHash2
local SEED = 0x9747b28c

-- The low 32 bits of a * MIX. Halves of 16 bits keep both products below 2^48, so doubles hold them exactly.
local function mix(a)
  return tobit(lshift(tobit(rshift(a, 16) * MIX), 16) + band(a, 0xffff) * MIX)
end

-- MurmurHash2 (32 bits, little-endian words, a fixed seed) of a text; the low `nbits` of it when given.
function M.hash(str, nbits)
  str = text(str)
  local size = #str
  local h = bxor(tobit(SEED), tobit(size))
  local tail = size % 4
  for at = 1, size - tail, 4 do
    local a, b, c, d = byte(str, at, at + 3)
    local k = mix(bor(a, lshift(b, 8), lshift(c, 16), lshift(d, 24)))
    h = bxor(mix(h), mix(bxor(k, rshift(k, 24))))
  end
  if tail > 0 then
    local a, b, c = byte(str, size - tail + 1, size)
    h = mix(bxor(h, a, lshift(b or 0, 8), lshift(c or 0, 16)))
  end
  h = mix(bxor(h, rshift(h, 13)))
  h = bxor(h, rshift(h, 15)) % WORD
  nbits = nbits == nil and 32 or number(nbits)
  if nbits >= 32 then return h end
  return nbits < 1 and 0 or h % 2 ^ (nbits - nbits % 1)
end

local HEX = {}
for value = 0, 255 do HEX[char(value)] = format("%02x", value) end

-- Lower-case hex digits of bytes.
function M.bin2hex(bytes)
  return (gsub(text(bytes), ".", HEX))
end

-- The bytes of hex digits in either case, up to the first pair that is none.
function M.hex2bin(hex)
  hex = match(text(hex), "^%x*")
  return (gsub(sub(hex, 1, #hex - #hex % 2), "%x%x", function(pair) return char(tonumber(pair, 16)) end))
end

return M
