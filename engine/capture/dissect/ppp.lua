-- PPP on its own, over Ethernet (PPPoE), and what it carries.
local bit = require("bit")
local protocols = require("offpath.protocols")
local layouts = require("capture.layouts")
local graph = require("capture.dissect.graph")

local M = {}

local band = bit.band
local be16 = layouts.be16
local layer, short, unknown, MALFORMED = graph.layer, graph.short, graph.unknown, graph.MALFORMED
local PPP, PPPOE = protocols.PPP, protocols.PPPOE
local by_ppp, ethertypes = graph.ppp, graph.ethertypes

-- Behind the address and control bytes, when they are there: a protocol of two bytes, or of one that is odd when both
-- sides agreed to compress it (RFC 1661, 2 and 6.5). The layer begins at `first`.
local function protocol(p, first, o, captured, wire, packet)
  if o + 1 > captured then return short(packet, o + 1, wire) end
  local number, length = p[o], 1
  if band(number, 1) == 0 then
    if o + 2 > captured then return short(packet, o + 2, wire) end
    number, length = be16(p, o), 2
  end
  layer(packet, PPP, first, o + length - first, captured)
  local dissect = by_ppp[number]
  if dissect then return dissect(p, o + length, captured, wire, packet) end
  return unknown(packet)
end

-- PPP, framed as in HDLC (RFC 1662) or without these two bytes.
local function ppp(p, o, captured, wire, packet)
  if o + 2 <= captured and p[o] == 0xff and p[o + 1] == 3 then
    return protocol(p, o, o + 2, captured, wire, packet)
  end
  return protocol(p, o, o, captured, wire, packet)
end
M.ppp = ppp

-- PPPoE sessions (RFC 2516): the length it states ends what Ethernet padded.
local function session(p, o, captured, wire, packet)
  if o + 6 > captured then return short(packet, o + 6, wire) end
  local last = o + 6 + be16(p, o + 4)
  if p[o] ~= 0x11 or last > wire then return MALFORMED end
  layer(packet, PPPOE, o, 6, captured)
  if p[o + 1] ~= 0 then return unknown(packet) end
  return protocol(p, o + 6, o + 6, last < captured and last or captured, last, packet)
end

-- PPPoE discovery (RFC 2516, 5): tags to the end of the packet.
local function discovery(p, o, captured, wire, packet)
  if o + 6 > captured then return short(packet, o + 6, wire) end
  local length = 6 + be16(p, o + 4)
  if p[o] ~= 0x11 or o + length > wire then return MALFORMED end
  layer(packet, PPPOE, o, length, captured)
  return unknown(packet)
end

local function ipv4(p, o, captured, wire, packet)
  return ethertypes[0x0800](p, o, captured, wire, packet)
end

local function ipv6(p, o, captured, wire, packet)
  return ethertypes[0x86dd](p, o, captured, wire, packet)
end

local function mpls(p, o, captured, wire, packet)
  return ethertypes[0x8847](p, o, captured, wire, packet)
end

by_ppp[0x0021], by_ppp[0x0057] = ipv4, ipv6
by_ppp[0x0281], by_ppp[0x0283] = mpls, mpls        -- RFC 3032, 4.3
graph.links[9], graph.links[50], graph.links[51] = ppp, ppp, session
ethertypes[0x8863], ethertypes[0x8864] = discovery, session

return M
