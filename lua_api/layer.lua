-- Layer: one header of the packet that is looked at, and what a script asks of it (spec 3.5).
--
-- Every read is checked against the bytes of the layer. A layer that is kept beyond its hook reads as empty, or as the
-- packet that came next: nothing outside of the captured bytes is ever touched.

local bit = require "bit"
local ffi = require "ffi"
local protocols = require "offpath.protocols"
local from_pointer = require("offpath.buffer").from_pointer

local band, rshift = bit.band, bit.rshift
local cast, floor, tonumber, type = ffi.cast, math.floor, tonumber, type
local bytes_ptr_t = ffi.typeof("const uint8_t *")

local M = {}

-- Makes a layer of `view` (packet.lua). `index` is its place among the layers; -1 is the bytes above them all, for a protocol
-- handler.
function M.new(view, methods, index)
  return setmetatable({ view = view, sight = view.sight, index = index }, methods)
end

-- First byte of the layer in the packet, and how many there are.
local function extent(self)
  local sight, index = self.sight, self.index
  local frame = sight.frame
  if frame == nil then return 0, 0 end
  if index < 0 then return sight.above, sight.available end
  if index >= frame.layer_count then return 0, 0 end
  local layer = frame.layer[index]
  return layer.offset, layer.length
end

-- The methods of layers; `packet_of(view)` gives the packet object.
function M.methods(packet_of)
  local Layer = {}
  Layer.__index = Layer

  -- Bytes of the layer; inside parselayer, bytes that there are for it.
  function Layer:layer_bytes()
    local _, length = extent(self)
    return length
  end

  -- The packet's length on the wire.
  function Layer:total_bytes()
    local frame = self.sight.frame
    return frame ~= nil and frame.wire or 0
  end

  -- The GUID of the protocol.
  function Layer:protocol_id()
    local frame, index = self.sight.frame, self.index
    if index < 0 then return self.view.protocol end
    if frame == nil or index >= frame.layer_count then return "" end
    return protocols.guid[frame.layer[index].protocol] or ""
  end

  -- The bytes of this layer.
  function Layer:rawbytes()
    local offset, length = extent(self)
    if length == 0 then return from_pointer(nil, 0) end
    return self.view:lend(from_pointer(cast(bytes_ptr_t, self.sight.frame.address) + offset, length))
  end

  function Layer:packet() return packet_of(self.view) end

  -- Whether a bit is set; bit 0 is the most significant one of byte 0.
  function Layer:testbit(n)
    if type(n) ~= "number" then n = tonumber(n) or -1 end
    local at = floor(n / 8)
    return band(rshift(self:getbyte(at), 7 - floor(n - at * 8)), 1) == 1
  end

  -- The byte at a 0-based offset; 0 beyond the layer.
  function Layer:getbyte(at)
    if type(at) ~= "number" then at = tonumber(at) or -1 end
    local offset, length = extent(self)
    if not (at >= 0 and at < length) then return 0 end
    return cast(bytes_ptr_t, self.sight.frame.address)[offset + at]
  end

  -- The flow key of the packet.
  function Layer:flowkey() return self.view:flow_key() end

  Layer.__opaque = "a layer belongs to the hook that it was given to"
  return Layer
end

return M
