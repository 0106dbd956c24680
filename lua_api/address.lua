-- Addresses in their three forms: readable text, key format (spec 3.2) and network-order bytes.
-- Nothing here raises: what is no address gives nil, or the text itself where a readable form is asked for.
local M = {}

local byte, char, find, format = string.byte, string.char, string.find, string.format
local gmatch, gsub, match, sub = string.gmatch, string.gsub, string.match, string.sub
local concat, tonumber, type = table.concat, tonumber, type

local V6_KEY = "^" .. ("%x"):rep(32) .. "$"
local DOTTED = "^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$"

-- The 32-bit number of a dotted IPv4 address, or nil.
function M.dotted_to_number(text)
  local a, b, c, d = match(text, DOTTED)
  if not a then return nil end
  a, b, c, d = tonumber(a), tonumber(b), tonumber(c), tonumber(d)
  if a > 255 or b > 255 or c > 255 or d > 255 then return nil end
  return a * 16777216 + b * 65536 + c * 256 + d
end

-- The dotted form of a 32-bit number; a negative one is read as its two's complement.
function M.number_to_dotted(number)
  if number ~= number or number == math.huge or number == -math.huge then number = 0 end
  number = (number - number % 1) % 4294967296
  local d = number % 256
  local c = (number - d) / 256 % 256
  local b = (number - c * 256 - d) / 65536 % 256
  local a = (number - b * 65536 - c * 256 - d) / 16777216
  return format("%d.%d.%d.%d", a, b, c, d)
end

-- Values of the bytes that are hex digits.
local DIGIT = {}
for value = 0, 15 do
  DIGIT[byte(format("%x", value))], DIGIT[byte(format("%X", value))] = value, value
end
local DOT = byte(".")

-- The number of two hex digits at a position, or nil.
local function octet(text, at)
  local high, low = byte(text, at, at + 1)
  high, low = DIGIT[high], DIGIT[low]
  return high and low and high * 16 + low
end

-- The 32-bit number of an IPv4 address in key format, or nil. Goes by bytes, as patterns are not compiled and every
-- flow comes through here.
function M.key_to_number(key)
  if #key ~= 11 or byte(key, 3) ~= DOT or byte(key, 6) ~= DOT or byte(key, 9) ~= DOT then return nil end
  local a, b, c, d = octet(key, 1), octet(key, 4), octet(key, 7), octet(key, 10)
  if not (a and b and c and d) then return nil end
  return a * 16777216 + b * 65536 + c * 256 + d
end

-- The number of four hex digits after "p-", or nil.
function M.port_number(key)
  if #key ~= 6 or byte(key, 1) ~= 112 or byte(key, 2) ~= 45 then return nil end
  local high, low = octet(key, 3), octet(key, 5)
  return high and low and high * 256 + low
end

-- Appends the 16-bit groups of one side of "::" to `groups`; false when it is malformed.
local function read_groups(text, groups)
  if text == "" then return true end
  if find(text, "^:") or find(text, ":$") or find(text, "::", 1, true) then return false end
  for part in gmatch(text, "[^:]+") do
    local value = find(part, "^%x%x?%x?%x?$") and tonumber(part, 16)
    if not value then return false end
    groups[#groups + 1] = value
  end
  return true
end

-- The 16 bytes of a readable IPv6 address, or nil. A dotted tail is accepted, a zone is not.
local function v6_to_bytes(text)
  local head, tail = match(text, "^(.*:)(%d+%.%d+%.%d+%.%d+)$")
  if head then
    local number = M.dotted_to_number(tail)
    if not number then return nil end
    text = head .. format("%x:%x", (number - number % 65536) / 65536, number % 65536)
  end
  local groups, rest = {}, {}
  local from, to = find(text, "::", 1, true)
  if from then
    if not read_groups(sub(text, 1, from - 1), groups) or not read_groups(sub(text, to + 1), rest) then return nil end
    if #groups + #rest > 7 then return nil end
  elseif not read_groups(text, groups) or #groups ~= 8 then
    return nil
  end
  for _ = 1, 8 - #groups - #rest do groups[#groups + 1] = 0 end
  for index = 1, #rest do groups[#groups + 1] = rest[index] end
  local out = {}
  for index = 1, 8 do
    local low = groups[index] % 256
    out[index] = char((groups[index] - low) / 256, low)
  end
  return concat(out)
end

-- The 16 bytes of an IPv6 address in key format or readable form, or nil.
function M.v6_bytes(text)
  if #text == 32 and find(text, V6_KEY) then
    return (gsub(text, "%x%x", function(pair) return char(tonumber(pair, 16)) end))
  end
  if not find(text, ":", 1, true) then return nil end
  return v6_to_bytes(text)
end

-- 32 hex digits as RFC 5952 writes them: the longest run of zero groups, the first of equals, becomes "::".
local function v6_readable(key)
  local groups, best, best_size, run = {}, 0, 1, 0
  for index = 1, 8 do
    local value = tonumber(sub(key, index * 4 - 3, index * 4), 16)
    groups[index] = format("%x", value)
    run = value == 0 and run + 1 or 0
    if run > best_size then
      best, best_size = index - run + 1, run
    end
  end
  if best == 1 and best_size == 5 and groups[6] == "ffff" then
    return "::ffff:" .. M.number_to_dotted(tonumber(sub(key, 25), 16))
  end
  if best == 0 then return concat(groups, ":") end
  return concat(groups, ":", 1, best - 1) .. "::" .. concat(groups, ":", best + best_size, 8)
end

-- An address in key format as people write it; any other text comes back as it is.
function M.readable(key)
  local number = M.key_to_number(key)
  if number then return M.number_to_dotted(number) end
  if #key == 32 and find(key, V6_KEY) then return v6_readable(key) end
  return key
end

-- A network written as "10.0.0.0/8", "10.0.0.0/255.0.0.0", "fd00::/8" or a single address, or nil:
-- { base, size } of numbers for IPv4, { bytes, bits } for IPv6.
function M.parse_network(text)
  if type(text) ~= "string" then return nil end
  local host, prefix = match(text, "^%s*([^/%s]+)%s*/?%s*([^/%s]*)%s*$")
  if not host then return nil end
  local number = M.dotted_to_number(host)
  if number then
    local mask = M.dotted_to_number(prefix)
    local bits = prefix == "" and 32 or find(prefix, "^%d+$") and tonumber(prefix)
    local size = mask and 4294967296 - mask or bits and bits <= 32 and 2 ^ (32 - bits)
    -- A mask is contiguous when the size of its network is a power of two.
    if not size or math.frexp(size) ~= 0.5 then return nil end
    return { base = number - number % size, size = size }
  end
  local bytes = M.v6_bytes(host)
  local bits = prefix == "" and 128 or find(prefix, "^%d+$") and tonumber(prefix)
  if not bytes or not bits or bits > 128 then return nil end
  return { bytes = bytes, bits = bits }
end

-- Whether 16 address bytes lie in an IPv6 network of `parse_network`.
function M.v6_in_network(bytes, network)
  local rest = network.bits % 8
  local whole = (network.bits - rest) / 8
  if sub(bytes, 1, whole) ~= sub(network.bytes, 1, whole) then return false end
  if rest == 0 then return true end
  local step = 2 ^ (8 - rest)
  local ours, theirs = byte(bytes, whole + 1), byte(network.bytes, whole + 1)
  return ours - ours % step == theirs - theirs % step
end

return M
