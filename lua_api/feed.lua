-- Feeds the frames of a batch to a packet hook: a counter's onpacket (spec 2.2), a protocol handler's parselayer (2.15).
--
-- The loops over frames make no garbage, and `jit.attach` shows each as one loop trace with side traces that link back to it,
-- the script's hook inlined, when the hook compiles. What stops that: another loop inside of it, and a call of string.format
-- or the like, which LuaJIT leaves to the interpreter.

local bit = require "bit"
local ffi = require "ffi"
local frames = require "offpath.frame"
local protocols = require "offpath.protocols"
local packets = require "offpath.packet"
local hosts = require "offpath.hosts"
local failure = require "offpath.failure"
local effects = require "offpath.effects"

local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift
local cast, floor, min, tonumber, xpcall = ffi.cast, math.floor, math.min, tonumber, xpcall
local place_of, handler, end_of = packets.place_of, failure.handler, hosts.end_of
local frame_ptr_t = frames.frame_ptr_t

local M = {}

-- Whether a protocol is among the layers of a frame: one bit each, 32 a word (frame.lua).
local function mask_of(protocol)
  return rshift(protocol, 5), lshift(1, band(protocol, 31))
end

-- Calls onpacket(engine, layer) for each frame in which the layer is. Returns run(address, count, first): 0, and how many calls
-- it made; `first` is the place of the frames in their batch.
function M.counter(context, protocol, onpacket)
  local view = packets.new_view()
  local sight, layer = view.sight, view.layer(0)
  local word, mask = mask_of(protocol)
  local engine = context.engine

  return function(address, count, first)
    local batch, calls = cast(frame_ptr_t, address), 0
    for at = 0, count - 1 do
      local frame = batch + at
      if band(frame.present[word], mask) ~= 0 then
        calls = calls + 1
        sight.frame, layer.index = frame, place_of(frame, protocol)
        context.time, context.wire_length, context.place = frame.time, frame.wire, first + at
        local ok, failed = xpcall(onpacket, handler, engine, layer)
        if not ok then context.put(effects.ERROR, 3, "onpacket", failure.parts(failed)) end
      end
    end
    context.wire_length, context.place = nil, nil
    view:close()
    return 0, calls
  end
end

-- Calls parselayer(layer) for each frame in which what lies above the last layer is the handler's: by host and ports, or
-- because the handler below named it. Returns run(address, count, first, named_only): how many frames name another protocol next,
-- and how many calls it made.
-- `own` and `host` are numbers of protocols, `ports` a set.
function M.handler(context, own, host, ports, parselayer)
  local view = packets.new_view()
  local sight, layer = view.sight, view.layer(-1)
  local above = hosts.above(host, ports)
  local word, mask = mask_of(own)
  view.protocol = protocols.guid[own]

  -- Adds the layer, and notes what comes next: what the handler says, or else what has this protocol for its host.
  local function note(frame, last, from, available, consumed, following)
    consumed = tonumber(consumed)
    if not consumed or not (consumed >= 0) then return 0 end
    consumed = floor(min(consumed, available))
    local number = following and protocols.find(following) or 0
    if consumed == 0 then
      last.reserved = number
    elseif frame.layer_count == frames.LAYERS then
      return 0
    else
      if number == 0 then number = protocols.guest[own] or 0 end
      local new = frame.layer[frame.layer_count]
      new.protocol, new.offset, new.length, new.reserved = own, from, consumed, number
      frame.layer_count = frame.layer_count + 1
      frame.present[word] = bor(frame.present[word], mask)
    end
    return number ~= 0 and 1 or 0
  end

  -- Where the handler's bytes begin in a frame, or nil.
  local function place(frame, last, named_only)
    if last.reserved == own then return last.offset + last.length end
    if last.reserved ~= 0 or named_only and frame.resumed == 0 then return nil end
    return above(frame, last)
  end

  return function(address, count, first, named_only)
    local batch, naming, calls = cast(frame_ptr_t, address), 0, 0
    for at = 0, count - 1 do
      local frame = batch + at
      if frame.layer_count > 0 then
        local last = frame.layer + (frame.layer_count - 1)
        local from = place(frame, last, named_only)
        local available = from and end_of(frame) - from or 0
        if available > 0 then
          last.reserved, calls = 0, calls + 1
          sight.frame, sight.above, sight.available = frame, from, available
          context.time, context.wire_length, context.place = frame.time, frame.wire, first + at
          local ok, consumed, following = xpcall(parselayer, handler, layer)
          if ok then
            naming = naming + note(frame, last, from, available, consumed, following)
          else
            context.put(effects.ERROR, 3, "parselayer", failure.parts(consumed))
          end
        end
      end
    end
    context.wire_length, context.place = nil, nil
    view:close()
    return naming, calls
  end
end

return M
