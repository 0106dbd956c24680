-- IPv4 and ARP.
local bit = require("bit")
local protocols = require("offpath.protocols")
local layouts = require("capture.layouts")
local fragments = require("capture.fragments")
local graph = require("capture.dissect.graph")

local band, lshift, rshift = bit.band, bit.lshift, bit.rshift
local rd32, be16 = layouts.rd32, layouts.be16
local layer, short, unknown, by_protocol = graph.layer, graph.short, graph.unknown, graph.by_protocol
local MALFORMED, DECODED = graph.MALFORMED, graph.DECODED
local IPV4, ARP = protocols.IPV4, protocols.ARP
local take_fragment, result = fragments.take, fragments.result

-- A fragment whose data begins at `o`, behind the header at `header` (RFC 791, 3.2).
local function fragment(p, header, o, captured, wire, packet)
  packet.fragment = 1
  if o > captured then return DECODED end
  local field, id, proto = be16(p, header + 6), be16(p, header + 4), p[header + 9]
  local offset, more = lshift(band(field, 0x1fff), 3), band(rshift(field, 13), 1)
  local whole = take_fragment(packet, p, o, captured, wire, offset, more, id, proto)
  if not whole then return result.verdict end
  return by_protocol(result.proto, whole, o, result.captured, result.wire, packet)
end

-- IPv4 (RFC 791). Its total length ends what the link layer padded. Checksums are not looked at: captures of hosts that
-- leave them to the card are full of wrong ones.
local function ipv4(p, o, captured, wire, packet)
  if o + 20 > captured then return short(packet, o + 20, wire) end
  if rshift(p[o], 4) ~= 4 then return MALFORMED end
  local header, total = lshift(band(p[o], 15), 2), be16(p, o + 2)
  -- Segmentation offload leaves the total length zero.
  if total == 0 then total = wire - o end
  local wire_end = o + total
  if header < 20 or total < header or wire_end > wire then return MALFORMED end
  packet.family, packet.proto = 4, p[o + 9]
  local ip = packet.ip
  ip[0], ip[4] = rd32(p, o + 12), rd32(p, o + 16)
  local captured_end = wire_end < captured and wire_end or captured
  layer(packet, IPV4, o, header, captured_end)
  if band(be16(p, o + 6), 0x3fff) ~= 0 then return fragment(p, o, o + header, captured_end, wire_end, packet) end
  if o + header > captured_end then return DECODED end
  return by_protocol(p[o + 9], p, o + header, captured_end, wire_end, packet)
end

-- ARP and RARP (RFC 826, RFC 903): two addresses of each kind behind eight bytes.
local function arp(p, o, captured, wire, packet)
  if o + 8 > captured then return short(packet, o + 8, wire) end
  local length = 8 + 2 * p[o + 4] + 2 * p[o + 5]
  if o + length > wire then return MALFORMED end
  layer(packet, ARP, o, length, captured)
  return DECODED
end

-- IPv4 in IP (RFC 2003).
local function ipv4_in_ip(p, o, captured, wire, packet)
  if not graph.enter(packet) then return unknown(packet) end
  return ipv4(p, o, captured, wire, packet)
end

graph.ethertypes[0x0800], graph.ethertypes[0x0806], graph.ethertypes[0x8035] = ipv4, arp, arp
graph.ip[4] = ipv4_in_ip
