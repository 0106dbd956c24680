-- Link layers on a wire: Ethernet with its tags, LLC, and what captures put in place of a link layer.
local bit = require("bit")
local protocols = require("offpath.protocols")
local layouts = require("capture.layouts")
local graph = require("capture.dissect.graph")

local M = {}

local band, bor, bswap = bit.band, bit.bor, bit.bswap
local be16, be32 = layouts.be16, layouts.be32
local layer, short, unknown, by_ethertype = graph.layer, graph.short, graph.unknown, graph.by_ethertype
local links, ethertypes = graph.links, graph.ethertypes
local ETHERNET, LLC, VLAN = protocols.ETHERNET, protocols.LLC, protocols.VLAN
local SLL, SLL2, LOOPBACK = protocols.SLL, protocols.SLL2, protocols.LOOPBACK

local LONGEST_8023 = 1500      -- a type field up to this is a length (IEEE 802.3, 3.2.6)
local SHORTEST_LLC = 3         -- bytes
local SLL_8022 = 4             -- protocol of a cooked packet that begins with LLC

-- IEEE 802.2 with SNAP (RFC 1042). Control is one byte in frames without a number, else two.
local function llc(p, o, captured, wire, packet)
  if o + 3 > captured then return short(packet, o + 3, wire) end
  if p[o] == 0xaa and p[o + 1] == 0xaa and o + 8 <= captured then
    layer(packet, LLC, o, 8, captured)
    -- Organisation 0: an EtherType follows.
    if bor(p[o + 3], p[o + 4], p[o + 5]) ~= 0 then return unknown(packet) end
    return by_ethertype(be16(p, o + 6), p, o + 8, captured, wire, packet)
  end
  layer(packet, LLC, o, band(p[o + 2], 3) == 3 and 3 or 4, captured)
  return unknown(packet)
end
M.llc = llc

-- What follows a type field of IEEE 802.3: padding ends where a length says. Novell's own frames have no LLC.
local function typed(ethertype, p, o, captured, wire, packet)
  if ethertype > LONGEST_8023 then return by_ethertype(ethertype, p, o, captured, wire, packet) end
  if ethertype < SHORTEST_LLC then return unknown(packet) end
  if o + ethertype < wire then wire = o + ethertype end
  if wire < captured then captured = wire end
  if o + 2 <= captured and be16(p, o) == 0xffff then return unknown(packet) end
  return llc(p, o, captured, wire, packet)
end

-- Ethernet II and IEEE 802.3 (RFC 894, RFC 1042).
local function ethernet(p, o, captured, wire, packet)
  if o + 14 > captured then return short(packet, o + 14, wire) end
  layer(packet, ETHERNET, o, 14, captured)
  return typed(be16(p, o + 12), p, o + 14, captured, wire, packet)
end
M.ethernet = ethernet

-- A tag of IEEE 802.1Q or 802.1ad, any number of them. The layer is what the tag's EtherType announced: control
-- information and the type of what follows.
local function vlan(p, o, captured, wire, packet)
  if o + 4 > captured then return short(packet, o + 4, wire) end
  layer(packet, VLAN, o, 4, captured)
  return typed(be16(p, o + 2), p, o + 4, captured, wire, packet)
end

local function cooked(protocol, p, o, captured, wire, packet)
  if protocol == SLL_8022 then return llc(p, o, captured, wire, packet) end
  return by_ethertype(protocol, p, o, captured, wire, packet)
end

-- Linux cooked captures, version 1 (LINKTYPE_LINUX_SLL).
local function sll(p, o, captured, wire, packet)
  if o + 16 > captured then return short(packet, o + 16, wire) end
  layer(packet, SLL, o, 16, captured)
  return cooked(be16(p, o + 14), p, o + 16, captured, wire, packet)
end

-- Version 2 (LINKTYPE_LINUX_SLL2).
local function sll2(p, o, captured, wire, packet)
  if o + 20 > captured then return short(packet, o + 20, wire) end
  layer(packet, SLL2, o, 20, captured)
  return cooked(be16(p, o), p, o + 20, captured, wire, packet)
end

-- Four bytes of address family, in the byte order of the host that captured (LINKTYPE_NULL, LINKTYPE_LOOP).
local function loopback(p, o, captured, wire, packet)
  if o + 4 > captured then return short(packet, o + 4, wire) end
  layer(packet, LOOPBACK, o, 4, captured)
  local family = be32(p, o)
  if band(family, 0xffff) == 0 then family = bswap(family) end
  if family == 2 then return ethertypes[0x0800](p, o + 4, captured, wire, packet) end
  -- IPv6 has another number on each BSD.
  if family == 24 or family == 28 or family == 30 or family == 10 then
    return ethertypes[0x86dd](p, o + 4, captured, wire, packet)
  end
  return unknown(packet)
end

links[1] = ethernet
links[0], links[108] = loopback, loopback
links[113], links[276] = sll, sll2
for _, raw in ipairs { 12, 14, 101, 228, 229 } do links[raw] = graph.by_version end
for _, tag in ipairs { 0x8100, 0x88a8, 0x9100 } do ethertypes[tag] = vlan end

return M
