-- Packet: the frame that is looked at, as scripts see it (spec 3.4), and the view that packets and layers share.
--
-- There is one view for a state. It is pointed at one frame after the other, so that a hook per packet makes no garbage; when
-- the batch is over it is pointed at nothing, and whatever a script kept reads as empty.

local ffi = require "ffi"
local frames = require "offpath.frame"
local protocols = require "offpath.protocols"
local flow_keys = require "offpath.flowkey"
local layers = require "offpath.layer"
local buffers = require "offpath.buffer"
local flowids = require "offpath.flowid"

local cast, floor, tonumber = ffi.cast, math.floor, tonumber
local bytes_ptr_t = ffi.typeof("const uint8_t *")

local M = {}

local View = {}
View.__index = View

-- Points the view at a frame.
function View:look_at(frame)
  self.frame = frame
end

-- Notes a Buffer over the packet's bytes, to be emptied when they go.
function View:lend(buffer)
  local lent = self.lent
  lent[#lent + 1] = buffer
  return buffer
end

-- Ends the batch: what scripts kept of it is empty from now on.
function View:close()
  self.frame = nil
  local lent = self.lent
  for at = 1, #lent do
    buffers.reset(lent[at])
    lent[at] = nil
  end
end

function View:flow_key()
  local frame = self.frame
  if frame == nil then return flowids.ZERO_KEY end
  return flow_keys.of_frame(frame)
end

-- Makes the view of a state. `view.packet` is the packet object, `view.layer(index)` a layer of it.
function M.new_view()
  local view = setmetatable({ frame = nil, lent = {}, above = 0, available = 0, protocol = "", policy = -1 }, View)
  local Packet = {}
  Packet.__index = Packet
  local methods = layers.methods(function() return view.packet end)
  view.packet = setmetatable({}, Packet)

  function view.layer(index) return layers.new(view, methods, index) end

  -- Seconds and microseconds.
  function Packet:timestamp()
    local frame = view.frame
    if frame == nil then return 0, 0 end
    local seconds = floor(frame.time)
    return seconds, floor((frame.time - seconds) * 1e6 + 0.5)
  end

  -- All bytes that were captured.
  function Packet:rawbytes()
    local frame = view.frame
    if frame == nil then return buffers.from_pointer(nil, 0) end
    return view:lend(buffers.from_pointer(cast(bytes_ptr_t, frame.address), frame.captured))
  end

  function Packet:wire_length() return view.frame ~= nil and view.frame.wire or 0 end

  function Packet:capture_length() return view.frame ~= nil and view.frame.captured or 0 end

  function Packet:num_layers() return view.frame ~= nil and view.frame.layer_count or 0 end

  -- The layer at a place, 0 is the link layer; nil when there is none.
  function Packet:get_layer(index)
    index = tonumber(index)
    local frame = view.frame
    if frame == nil or not index or index < 0 or index >= frame.layer_count then return nil end
    return view.layer(floor(index))
  end

  -- The first layer of a protocol, or nil.
  function Packet:find_layer(guid)
    local index = M.index_of(view.frame, protocols.find(guid))
    return index and view.layer(index)
  end

  function Packet:flowid() return flowids.from_key(view:flow_key()) end

  -- The interface that the packet came from.
  function Packet:originid() return 0 end

  -- A hint: 0 skip, 1 full, 2 headers. Other scripts may say otherwise.
  function Packet:set_packetstore_policy(policy) view.policy = tonumber(policy) or -1 end

  local function refuse(method)
    return function() error(("packet:%s: only a packet that an inputfilter makes can be set"):format(method), 2) end
  end

  Packet.set_timestamp, Packet.set_packet = refuse("set_timestamp"), refuse("set_packet")
  Packet.__opaque = "a packet belongs to the hook that it was given to"
  return view
end

-- The place of the first layer of a protocol in a frame, or nil.
function M.index_of(frame, protocol)
  if frame == nil or not protocol then return nil end
  for index = 0, frame.layer_count - 1 do
    if frame.layer[index].protocol == protocol then return index end
  end
  return nil
end

M.frame_ptr_t = frames.frame_ptr_t

return M
