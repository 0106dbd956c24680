-- The flow key of a dissected packet (spec 3.2): the end with the lower port is Z, or with equal ports the higher address.

local bit = require "bit"
local ffi = require "ffi"
local ZERO_KEY = require("offpath.flowid").ZERO_KEY

local band, rshift, bswap = bit.band, bit.rshift, bit.bswap

local M = {}

local HEX = ffi.new("uint8_t[16]", { ("0123456789ABCDEF"):byte(1, 16) })
local text = ffi.new("uint8_t[83]")
local little = ffi.abi("le")

local KEPT = 4096 -- keys of flows, so that each is written once as long as its flow is busy

local keys, kept = {}, 0

local function put(o, value)
  text[o], text[o + 1] = HEX[rshift(value, 4)], HEX[band(value, 15)]
  return o + 2
end

-- A word in network order, byte by byte, with dots between them or none.
local function put_word(o, word, dots)
  if little then word = bswap(word) end
  o = put(o, band(rshift(word, 24), 255))
  if dots then text[o] = 0x2e o = o + 1 end
  o = put(o, band(rshift(word, 16), 255))
  if dots then text[o] = 0x2e o = o + 1 end
  o = put(o, band(rshift(word, 8), 255))
  if dots then text[o] = 0x2e o = o + 1 end
  return put(o, band(word, 255))
end

local function put_end(o, frame, first, port)
  if frame.family == 4 then
    o = put_word(o, frame.ip[first], true)
  else
    for word = first, first + 3 do o = put_word(o, frame.ip[word], false) end
  end
  text[o], text[o + 1], text[o + 2] = 0x3a, 0x70, 0x2d -- ":p-"
  return put(put(o + 3, rshift(port, 8)), band(port, 255))
end

-- Whether the source is the lower address.
local function source_is_lower(frame)
  for word = 0, frame.family == 4 and 0 or 3 do
    local a, z = frame.ip[word], frame.ip[word + 4]
    if a ~= z then
      if little then a, z = bswap(a), bswap(z) end
      return a % 4294967296 < z % 4294967296
    end
  end
  return true
end

-- Whether the source is A.
local function source_is_a(frame)
  if frame.flow ~= 0 then return frame.side == 0 end
  if frame.has_ports == 1 and frame.port[0] ~= frame.port[1] then return frame.port[0] > frame.port[1] end
  return source_is_lower(frame)
end

local function write(frame)
  local from, to, port_a, port_z = 0, 4, 0, 0
  if frame.has_ports == 1 then port_a, port_z = frame.port[0], frame.port[1] end
  if not source_is_a(frame) then from, to, port_a, port_z = to, from, port_z, port_a end
  local o = put(0, frame.proto)
  text[o], text[o + 1] = frame.family == 4 and 0x41 or 0x42, 0x3a
  o = put_end(o + 2, frame, from, port_a)
  text[o] = 0x5f
  return ffi.string(text, put_end(o + 1, frame, to, port_z))
end

-- The key of a frame; all zeros when it is of no IP protocol.
function M.of_frame(frame)
  if frame.family == 0 then return ZERO_KEY end
  local flow = frame.flow
  if flow == 0 then return write(frame) end
  local key = keys[flow]
  if key then return key end
  if kept == KEPT then keys, kept = {}, 0 end
  key = write(frame)
  keys[flow], kept = key, kept + 1
  return key
end

-- Forgets the keys of flows: another capture counts its own.
function M.forget()
  keys, kept = {}, 0
end

return M
