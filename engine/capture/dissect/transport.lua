-- What ends an IP packet: TCP, UDP and SCTP, which make flows, and the protocols that swallow the rest.
local ffi = require("ffi")
local bit = require("bit")
local protocols = require("offpath.protocols")
local layouts = require("capture.layouts")
local graph = require("capture.dissect.graph")

local lshift, rshift = bit.lshift, bit.rshift
local be32, be16 = layouts.be32, layouts.be16
local layer, MALFORMED, DECODED = graph.layer, graph.MALFORMED, graph.DECODED
local TCP, UDP, SCTP = protocols.TCP, protocols.UDP, protocols.SCTP
local tunnels = graph.udp

-- The same keys as bytes: every UDP packet asks, and a table would hash the port.
local is_tunnel = ffi.new("uint8_t[65536]")

local function ports(p, o, packet)
  packet.port[0], packet.port[1], packet.has_ports = be16(p, o), be16(p, o + 2), 1
end

-- Notes what a transport header that ends at `payload` carries up to `wire`.
local function carry(payload, captured, wire, packet)
  packet.payload, packet.payload_length = payload, wire - payload
  if captured > wire then captured = wire end
  packet.payload_captured = captured > payload and captured - payload or 0
end

-- TCP (RFC 9293, 3.1). A header cut by the snap length still counts for its flow.
local function tcp(p, o, captured, wire, packet)
  if wire - o < 20 then return MALFORMED end
  if captured - o < 20 then
    layer(packet, TCP, o, 20, captured)
    if captured - o >= 4 then ports(p, o, packet) end
    return DECODED
  end
  local header = lshift(rshift(p[o + 12], 4), 2)
  if header < 20 or o + header > wire then return MALFORMED end
  layer(packet, TCP, o, header, captured)
  ports(p, o, packet)
  packet.seq, packet.ack, packet.flags, packet.has_tcp = be32(p, o + 4), be32(p, o + 8), p[o + 13], 1
  carry(o + header, captured, wire, packet)
  return DECODED
end

-- UDP (RFC 768). A length of zero is that of a jumbogram, or was left to the card; one beyond the packet is clipped.
local function udp(p, o, captured, wire, packet)
  if wire - o < 8 then return MALFORMED end
  layer(packet, UDP, o, 8, captured)
  if captured - o < 8 then
    if captured - o >= 4 then ports(p, o, packet) end
    return DECODED
  end
  local length = be16(p, o + 4)
  if length < 8 and length ~= 0 then return MALFORMED end
  ports(p, o, packet)
  if length ~= 0 and o + length < wire then wire = o + length end
  carry(o + 8, captured, wire, packet)
  if is_tunnel[packet.port[1]] == 0 then return DECODED end
  return tunnels[packet.port[1]](p, o + 8, captured < wire and captured or wire, wire, packet)
end

-- The common header of SCTP (RFC 9260, 3.1).
local function sctp(p, o, captured, wire, packet)
  if wire - o < 12 then return MALFORMED end
  layer(packet, SCTP, o, 12, captured)
  if captured - o >= 4 then ports(p, o, packet) end
  carry(o + 12, captured, wire, packet)
  return DECODED
end

-- A protocol whose layer reaches to the end of the packet and has at least so many bytes.
local function swallow(number, protocol, least)
  graph.ip[number] = function(_, o, captured, wire, packet)
    if wire - o < least then return MALFORMED end
    layer(packet, protocol, o, wire - o, captured)
    return DECODED
  end
end

-- Lets UDP go on with what hangs on a destination port.
local function open_ports()
  for port in pairs(tunnels) do is_tunnel[port] = 1 end
end

graph.ip[6], graph.ip[17], graph.ip[132] = tcp, udp, sctp
swallow(1, protocols.ICMP, 8)        -- RFC 792
swallow(2, protocols.IGMP, 8)        -- RFC 2236, RFC 3376
swallow(50, protocols.ESP, 8)        -- RFC 4303
swallow(58, protocols.ICMPV6, 4)     -- RFC 4443

return { open_ports = open_ports }
