-- Feeds the frames of a batch to a packet hook: a counter's onpacket (spec 2.2), a protocol handler's parselayer (2.15).
--
-- The loops over frames make no garbage but one reference a frame, and compile whole when the script's hook does.

local bit = require "bit"
local ffi = require "ffi"
local frames = require "offpath.frame"
local protocols = require "offpath.protocols"
local packets = require "offpath.packet"
local failure = require "offpath.failure"
local effects = require "offpath.effects"

local band, lshift, rshift = bit.band, bit.lshift, bit.rshift
local cast, tonumber, type, xpcall = ffi.cast, tonumber, type, xpcall
local index_of, handler = packets.index_of, failure.handler
local frame_ptr_t, bytes_ptr_t = frames.frame_ptr_t, ffi.typeof("const uint8_t *")

local M = {}

-- Whether a protocol is among the layers of a frame: one bit each, 32 a word (frame.lua).
local function mask_of(protocol)
  return rshift(protocol, 5), lshift(1, band(protocol, 31))
end

-- Calls onpacket(engine, layer) for each frame in which the layer is. Returns run(address, count): how many calls that were.
function M.counter(context, protocol, onpacket)
  local view = packets.new_view()
  local layer = view.layer(0)
  local word, mask = mask_of(protocol)
  local engine = context.engine

  return function(address, count)
    local batch, calls = cast(frame_ptr_t, address), 0
    for at = 0, count - 1 do
      local frame = batch[at]
      if band(frame.present[word], mask) ~= 0 then
        view.frame, layer.index = frame, index_of(frame, protocol) or 0
        context.time, context.wire_length = frame.time, frame.wire
        calls = calls + 1
        local ok, failed = xpcall(onpacket, handler, engine, layer)
        if not ok then context.put(effects.ERROR, 3, "onpacket", failure.parts(failed)) end
      end
    end
    context.wire_length = nil
    view:close()
    return calls, 0
  end
end

-- Two bytes in network order.
local function be16(p, at) return p[at] * 256 + p[at + 1] end

-- Where what a host carries begins, and how many bytes of it there are; nil when this is not for the handler. One function for
-- each kind of host: what its ports mean.
local function above_transport(host, ports)
  return function(frame, last)
    if frame.has_ports == 0 or last.protocol ~= host or frame.payload_captured <= 0 then return nil end
    if not (ports[frame.port[0]] or ports[frame.port[1]]) then return nil end
    return frame.payload, frame.payload_captured
  end
end

local function above_network(host, ports)
  return function(frame, last)
    if last.protocol ~= host or not ports[frame.proto] then return nil end
    local from = last.offset + last.length
    return from, frame.captured - from
  end
end

local function above_link(host, ports)
  return function(frame, last)
    local from = last.offset + last.length
    if last.protocol ~= host or last.length < 2 then return nil end
    if not ports[be16(cast(bytes_ptr_t, frame.address), from - 2)] then return nil end
    return from, frame.captured - from
  end
end

local function nowhere() return nil end

local ABOVE = {
  [protocols.TCP] = above_transport, [protocols.UDP] = above_transport, [protocols.SCTP] = above_transport,
  [protocols.IPV4] = above_network, [protocols.IPV6] = above_network,
  [protocols.ETHERNET] = above_link, [protocols.VLAN] = above_link, [protocols.SLL] = above_link,
}

-- Calls parselayer(layer) for each frame in which what lies above the last layer is the handler's: by host and ports, or
-- because the handler below named it. Returns run(address, count, named_only): how many calls that were, and how many frames
-- name another protocol next.
-- `own` and `host` are numbers of protocols, `ports` an array.
function M.handler(context, own, host, ports, parselayer)
  local view = packets.new_view()
  local layer = view.layer(-1)
  local wanted = {}
  for _, port in ipairs(ports) do wanted[tonumber(port) or -1] = true end
  local above = (ABOVE[host] or function() return nowhere end)(host, wanted)
  local word, mask = mask_of(own)
  view.protocol = protocols.guid[own]

  -- Adds the layer, and notes what the handler says comes next.
  local function note(frame, last, from, available, consumed, following)
    consumed = tonumber(consumed)
    if not consumed or consumed < 0 then return 0 end
    if consumed > available then consumed = available end
    local number = following and protocols.find(following) or 0
    if consumed == 0 then
      last.reserved = number
    elseif frame.layer_count < frames.LAYERS then
      local new = frame.layer[frame.layer_count]
      new.protocol, new.offset, new.length, new.reserved = own, from, consumed, number
      frame.layer_count = frame.layer_count + 1
      frame.present[word] = bit.bor(frame.present[word], mask)
    end
    return number ~= 0 and 1 or 0
  end

  -- Where the handler's bytes are in a frame.
  local function place(frame, last, named_only)
    if last.reserved == own then
      local from = last.offset + last.length
      return from, frame.captured - from
    end
    if named_only or last.reserved ~= 0 then return nil end
    return above(frame, last)
  end

  return function(address, count, named_only)
    local batch, calls, naming = cast(frame_ptr_t, address), 0, 0
    for at = 0, count - 1 do
      local frame = batch[at]
      if frame.layer_count > 0 then
        local last = frame.layer[frame.layer_count - 1]
        local from, available = place(frame, last, named_only)
        if from and available > 0 then
          last.reserved = 0
          view.frame, view.above, view.available = frame, from, available
          context.time, context.wire_length = frame.time, frame.wire
          calls = calls + 1
          local ok, consumed, following = xpcall(parselayer, handler, layer)
          if ok then
            naming = naming + note(frame, last, from, available, consumed, following)
          else
            context.put(effects.ERROR, 3, "parselayer", failure.parts(consumed))
          end
        end
      end
    end
    context.wire_length = nil
    view:close()
    return calls, naming
  end
end

return M
