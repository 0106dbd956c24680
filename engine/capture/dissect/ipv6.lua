-- IPv6 and the headers between it and the transport.
local bit = require("bit")
local protocols = require("offpath.protocols")
local layouts = require("capture.layouts")
local fragments = require("capture.fragments")
local graph = require("capture.dissect.graph")

local band, lshift, rshift = bit.band, bit.lshift, bit.rshift
local rd32, be16, be32 = layouts.rd32, layouts.be16, layouts.be32
local layer, short, unknown, by_protocol = graph.layer, graph.short, graph.unknown, graph.by_protocol
local MALFORMED, DECODED = graph.MALFORMED, graph.DECODED
local IPV6, IPV6_FRAGMENT, AH = protocols.IPV6, protocols.IPV6_FRAGMENT, protocols.AH
local take_fragment, result = fragments.take, fragments.result
local by_number = graph.ip

-- IPv6 (RFC 8200, 3).
local function ipv6(p, o, captured, wire, packet)
  if o + 40 > captured then return short(packet, o + 40, wire) end
  if rshift(p[o], 4) ~= 6 then return MALFORMED end
  local length = be16(p, o + 4)
  -- Zero: a jumbogram, or segmentation offload.
  local wire_end = length == 0 and wire or o + 40 + length
  if wire_end > wire then return MALFORMED end
  packet.family = 6
  local ip = packet.ip
  -- No loop: the compiler would take it for one of its own and leave the packet loop here.
  ip[0], ip[1], ip[2], ip[3] = rd32(p, o + 8), rd32(p, o + 12), rd32(p, o + 16), rd32(p, o + 20)
  ip[4], ip[5], ip[6], ip[7] = rd32(p, o + 24), rd32(p, o + 28), rd32(p, o + 32), rd32(p, o + 36)
  layer(packet, IPV6, o, 40, captured)
  return by_protocol(p[o + 6], p, o + 40, wire_end < captured and wire_end or captured, wire_end, packet)
end

-- IPv6 in IP (RFC 2473, RFC 4213).
local function ipv6_in_ip(p, o, captured, wire, packet)
  if not graph.enter(packet) then return unknown(packet) end
  return ipv6(p, o, captured, wire, packet)
end

-- One extension header of `length` bytes, its next header in the first byte. Each is at least 8 bytes long, so a chain
-- of them ends with the packet.
local function extension(protocol, length, p, o, captured, wire, packet)
  if o + length > wire then return MALFORMED end
  layer(packet, protocol, o, length, captured)
  if o + length > captured then return DECODED end
  return by_protocol(p[o], p, o + length, captured, wire, packet)
end

-- A header whose length is in units of 8 bytes beyond the first: options (RFC 8200, 4.3, 4.6), routing (4.4), mobility
-- (RFC 6275, 6.1), HIP (RFC 7401, 5.1), Shim6 (RFC 5533, 5.1).
local function octuple(number, protocol)
  by_number[number] = function(p, o, captured, wire, packet)
    if packet.family ~= 6 then return DECODED end
    if o + 8 > captured then return short(packet, o + 8, wire) end
    return extension(protocol, lshift(p[o + 1] + 1, 3), p, o, captured, wire, packet)
  end
end

-- The authentication header, in IPv4 as well (RFC 4302, 2): units of 4 bytes beyond the first two.
local function authentication(p, o, captured, wire, packet)
  if o + 8 > captured then return short(packet, o + 8, wire) end
  return extension(AH, lshift(p[o + 1] + 2, 2), p, o, captured, wire, packet)
end

-- The fragment header (RFC 8200, 4.5). One of a whole datagram is an atomic fragment (RFC 6946).
local function fragment(p, o, captured, wire, packet)
  if packet.family ~= 6 then return DECODED end
  if o + 8 > captured then return short(packet, o + 8, wire) end
  local field = be16(p, o + 2)
  if band(field, 0xfff9) == 0 then return extension(IPV6_FRAGMENT, 8, p, o, captured, wire, packet) end
  layer(packet, IPV6_FRAGMENT, o, 8, captured)
  packet.fragment, packet.proto = 1, p[o]
  local offset, more, id = band(field, 0xfff8), band(field, 1), be32(p, o + 4)
  local whole = take_fragment(packet, p, o + 8, captured, wire, offset, more, id, p[o])
  if not whole then return result.verdict end
  return by_protocol(result.proto, whole, o + 8, result.captured, result.wire, packet)
end

graph.ethertypes[0x86dd] = ipv6
by_number[41], by_number[44], by_number[51] = ipv6_in_ip, fragment, authentication
octuple(0, protocols.IPV6_HOP_BY_HOP)
octuple(43, protocols.IPV6_ROUTING)
octuple(60, protocols.IPV6_DESTINATION)
octuple(135, protocols.IPV6_MOBILITY)
octuple(139, protocols.HIP)
octuple(140, protocols.SHIM6)
