-- Packet: the frame that is looked at, as scripts see it (spec 3.4), and the view that packets and layers share.
--
-- There is one view for a hook. It is pointed at one frame after the other, so that a hook per packet makes no garbage; when
-- the batch is over it is pointed at nothing, and whatever a script kept reads as empty. What it points at is in a struct:
-- a pointer in a Lua table would be an object for each packet.

local bit = require "bit"
local ffi = require "ffi"
require "offpath.frame"
local protocols = require "offpath.protocols"
local flow_keys = require "offpath.flowkey"
local layers = require "offpath.layer"
local buffers = require "offpath.buffer"
local flowids = require "offpath.flowid"
local storage = require "offpath.storage"

local band, lshift, rshift = bit.band, bit.lshift, bit.rshift
local cast, floor, tonumber = ffi.cast, math.floor, tonumber
local bytes_ptr_t = ffi.typeof("const uint8_t *")

ffi.cdef [[
typedef struct {
  offpath_frame_t *frame;     // NULL for none
  int32_t above, available;   // where the bytes above all layers begin, for a protocol handler, and how many there are
} offpath_sight_t;
]]
local sight_t = ffi.typeof("offpath_sight_t")

local M = {}

-- Ranks of offpath.storage by policy.
local HINTS = { [0] = storage.rank(0), storage.rank(1), storage.rank(2) }

local View = {}
View.__index = View

-- Notes a Buffer over the packet's bytes, to be emptied when they go.
function View:lend(buffer)
  local lent = self.lent
  lent[#lent + 1] = buffer
  return buffer
end

-- Ends the batch: what scripts kept of it is empty from now on.
function View:close()
  self.sight.frame = nil
  local lent = self.lent
  for at = 1, #lent do
    buffers.reset(lent[at])
    lent[at] = nil
  end
end

function View:flow_key()
  local frame = self.sight.frame
  if frame == nil then return flowids.ZERO_KEY end
  return flow_keys.of_frame(frame)
end

-- Makes a view. `view.packet` is the packet object, `view.layer(index)` a layer of it, `view.sight` what they look at.
function M.new_view()
  local sight = sight_t()
  local view = setmetatable({ sight = sight, lent = {}, protocol = "" }, View)
  local Packet = {}
  Packet.__index = Packet
  local methods = layers.methods(function() return view.packet end)
  view.packet = setmetatable({}, Packet)

  function view.layer(index) return layers.new(view, methods, index) end

  -- Seconds and microseconds.
  function Packet:timestamp()
    local frame = sight.frame
    if frame == nil then return 0, 0 end
    local microseconds = floor(frame.time * 1e6 + 0.5)
    local seconds = floor(microseconds / 1e6)
    return seconds, microseconds - seconds * 1e6
  end

  -- All bytes that were captured.
  function Packet:rawbytes()
    local frame = sight.frame
    if frame == nil then return buffers.from_pointer(nil, 0) end
    return view:lend(buffers.from_pointer(cast(bytes_ptr_t, frame.address), frame.captured))
  end

  function Packet:wire_length() return sight.frame ~= nil and sight.frame.wire or 0 end

  function Packet:capture_length() return sight.frame ~= nil and sight.frame.captured or 0 end

  function Packet:num_layers() return sight.frame ~= nil and sight.frame.layer_count or 0 end

  -- The layer at a place, 0 is the link layer; nil when there is none.
  function Packet:get_layer(index)
    index = tonumber(index)
    local frame = sight.frame
    if frame == nil or not index or not (index >= 0 and index < frame.layer_count) then return nil end
    return view.layer(floor(index))
  end

  -- The first layer of a protocol, or nil.
  function Packet:find_layer(guid)
    local frame, protocol = sight.frame, protocols.find(guid)
    if frame == nil or not protocol or not M.has(frame, protocol) then return nil end
    return view.layer(M.place_of(frame, protocol))
  end

  function Packet:flowid() return flowids.from_key(view:flow_key()) end

  -- The interface that the packet came from.
  function Packet:originid() return 0 end

  -- A hint for this packet: 0 skip, 1 full, 2 headers. Where scripts say different things, the most liberal one holds.
  function Packet:set_packetstore_policy(policy)
    local frame, rank = sight.frame, HINTS[tonumber(policy)]
    if frame ~= nil and rank and rank > frame.store then frame.store = rank end
  end

  local function refuse(method)
    return function() error(("packet:%s: only a packet that an inputfilter makes can be set"):format(method), 2) end
  end

  Packet.set_timestamp, Packet.set_packet = refuse("set_timestamp"), refuse("set_packet")
  Packet.__opaque = "a packet belongs to the hook that it was given to"
  return view
end

-- Whether a protocol is among the layers of a frame.
function M.has(frame, protocol)
  return band(frame.present[rshift(protocol, 5)], lshift(1, band(protocol, 31))) ~= 0
end

-- The place of the first layer of a protocol, which is among them. Most lie within the first four; those are not looked for
-- in a loop, as it would be compiled by itself, and the loop over packets around it would not.
function M.place_of(frame, protocol)
  local layers = frame.layer
  if layers[0].protocol == protocol then return 0 end
  if layers[1].protocol == protocol then return 1 end
  if layers[2].protocol == protocol then return 2 end
  if layers[3].protocol == protocol then return 3 end
  local index = 4
  while index < frame.layer_count and layers[index].protocol ~= protocol do index = index + 1 end
  return index
end

return M
