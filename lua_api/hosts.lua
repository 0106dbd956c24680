-- What the ports of a protocol handler mean on each kind of host (spec 2.15), and where the bytes above the layers end.

local ffi = require "ffi"
require "offpath.frame"
local protocols = require "offpath.protocols"

local cast, min = ffi.cast, math.min
local bytes_ptr_t = ffi.typeof("const uint8_t *")
local IPV4, IPV6, ETHERNET, VLAN = protocols.IPV4, protocols.IPV6, protocols.ETHERNET, protocols.VLAN

local M = {}

-- Two bytes in network order.
local function be16(p, at) return p[at] * 256 + p[at + 1] end

-- Headers between IPv6 and what it carries.
local BETWEEN = {
  [protocols.IPV6_HOP_BY_HOP] = true, [protocols.IPV6_ROUTING] = true, [protocols.IPV6_FRAGMENT] = true,
  [protocols.IPV6_DESTINATION] = true, [protocols.IPV6_MOBILITY] = true, [protocols.HIP] = true,
  [protocols.SHIM6] = true, [protocols.AH] = true,
}

-- Each gives a function(frame, last) that says where what the host carries begins, or nil when it is not for the handler.

local function above_transport(host, ports)
  return function(frame, last)
    if frame.has_ports == 0 or last.protocol ~= host then return nil end
    if not (ports[frame.port[0]] or ports[frame.port[1]]) then return nil end
    return frame.payload
  end
end

local function above_network(host, ports)
  return function(frame, last)
    if frame.fragment == 1 or not ports[frame.proto] then return nil end
    if last.protocol ~= host and not (host == IPV6 and frame.family == 6 and BETWEEN[last.protocol]) then return nil end
    return last.offset + last.length
  end
end

-- The last two bytes of these headers are an EtherType. That of a tag is that of the frame, too.
local function above_link(host, ports)
  return function(frame, last)
    local from = last.offset + last.length
    if last.protocol ~= host and not (host == ETHERNET and last.protocol == VLAN) or last.length < 2 then return nil end
    if not ports[be16(cast(bytes_ptr_t, frame.address), from - 2)] then return nil end
    return from
  end
end

local ABOVE = {
  [protocols.TCP] = above_transport, [protocols.UDP] = above_transport, [protocols.SCTP] = above_transport,
  [IPV4] = above_network, [IPV6] = above_network,
  [ETHERNET] = above_link, [VLAN] = above_link, [protocols.SLL] = above_link,
}

local function nowhere() return nil end

-- function(frame, last) for a host; for one without ports, or for none, it is never the handler's turn by itself.
function M.above(host, ports)
  local make = ABOVE[host]
  return make and make(host, ports) or nowhere
end

-- Where the innermost IP packet ends; behind it there may be padding.
local function end_of_network(frame)
  local p, captured = cast(bytes_ptr_t, frame.address), frame.captured
  for index = frame.layer_count - 1, 0, -1 do
    local layer = frame.layer[index]
    if layer.protocol == IPV4 then
      local total = be16(p, layer.offset + 2)
      return total == 0 and captured or min(captured, layer.offset + total)
    elseif layer.protocol == IPV6 then
      local length = be16(p, layer.offset + 4)
      return length == 0 and captured or min(captured, layer.offset + 40 + length)
    end
  end
  return captured
end

-- Where the bytes end that the last layer carries, as far as they were captured.
function M.end_of(frame)
  if frame.has_ports == 1 then return frame.payload + frame.payload_captured end
  if frame.family == 0 or frame.reassembled == 1 then return frame.captured end
  return end_of_network(frame)
end

return M
