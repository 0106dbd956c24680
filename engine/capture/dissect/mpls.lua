-- MPLS labels, and a guess at what is behind the last one: nothing in the packet says it.
local bit = require("bit")
local protocols = require("offpath.protocols")
local layouts = require("capture.layouts")
local graph = require("capture.dissect.graph")
local ethernet = require("capture.dissect.link").ethernet

local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift
local be16 = layouts.be16
local layer, short, unknown, enter, DECODED = graph.layer, graph.short, graph.unknown, graph.enter, graph.DECODED
local ethertypes = graph.ethertypes
local MPLS, PW_CONTROL = protocols.MPLS, protocols.PW_CONTROL

local IPV4_NULL, IPV6_NULL = 0, 2      -- explicit null labels (RFC 3032, 2.1)

local function like_ethernet(p, o, captured, wire)
  if o + 14 > captured then return false end
  local ethertype = be16(p, o + 12)
  if ethertype > 1500 then return ethertypes[ethertype] ~= nil end
  return ethertype >= 3 and o + 14 + ethertype <= wire
end

local function like_ipv4(p, o, captured, wire)
  if o + 20 > captured then return true end
  local total = be16(p, o + 2)
  return band(p[o], 15) >= 5 and total >= 20 and o + total <= wire
end

-- Nearly any bytes could be an IPv6 header: this one must end where the packet does. Few are so short as to be padded.
local function like_ipv6(p, o, captured, wire)
  return o + 40 > captured or o + 40 + be16(p, o + 4) == wire
end

local function pseudowire(p, o, captured, wire, packet)
  if not enter(packet) then return unknown(packet) end
  return ethernet(p, o, captured, wire, packet)
end

-- Not IP, by its first four bits: an Ethernet pseudowire (RFC 4448), with a control word (RFC 4385) when that leads to
-- a more likely frame. Bits 0001 are an associated channel, if it is no address that begins so.
local function guess(p, o, captured, wire, packet)
  if o + 4 <= captured and rshift(p[o], 4) == 0 and like_ethernet(p, o + 4, captured, wire) then
    layer(packet, PW_CONTROL, o, 4, captured)
    return pseudowire(p, o + 4, captured, wire, packet)
  end
  if like_ethernet(p, o, captured, wire) then return pseudowire(p, o, captured, wire, packet) end
  return unknown(packet)
end

-- The address of an Ethernet frame may begin like an IP header (RFC 4928, 3), so the lengths are looked at as well.
local function payload(label, p, o, captured, wire, packet)
  if o + 1 > captured then return short(packet, o + 1, wire) end
  if label == IPV4_NULL then return ethertypes[0x0800](p, o, captured, wire, packet) end
  if label == IPV6_NULL then return ethertypes[0x86dd](p, o, captured, wire, packet) end
  local version = rshift(p[o], 4)
  if version == 4 and (like_ipv4(p, o, captured, wire) or not like_ethernet(p, o, captured, wire)) then
    return ethertypes[0x0800](p, o, captured, wire, packet)
  end
  if version == 6 and (like_ipv6(p, o, captured, wire) or not like_ethernet(p, o, captured, wire)) then
    return ethertypes[0x86dd](p, o, captured, wire, packet)
  end
  return guess(p, o, captured, wire, packet)
end

-- One entry of the label stack (RFC 3032, 2.1).
local function mpls(p, o, captured, wire, packet)
  if o + 4 > captured then return short(packet, o + 4, wire) end
  layer(packet, MPLS, o, 4, captured)
  if band(p[o + 2], 1) == 0 then return mpls(p, o + 4, captured, wire, packet) end
  return payload(bor(lshift(be16(p, o), 4), rshift(p[o + 2], 4)), p, o + 4, captured, wire, packet)
end

-- MPLS in IP (RFC 4023).
local function mpls_in_ip(p, o, captured, wire, packet)
  if not enter(packet) then return DECODED end
  return mpls(p, o, captured, wire, packet)
end

ethertypes[0x8847], ethertypes[0x8848] = mpls, mpls
graph.ip[137] = mpls_in_ip
