-- GRE, and the kinds of packets that it carries besides those with an EtherType of their own.
local bit = require("bit")
local protocols = require("offpath.protocols")
local layouts = require("capture.layouts")
local graph = require("capture.dissect.graph")
local ethernet = require("capture.dissect.link").ethernet
local ppp = require("capture.dissect.ppp").ppp

local band, rshift = bit.band, bit.rshift
local be16 = layouts.be16
local layer, short, unknown, enter = graph.layer, graph.short, graph.unknown, graph.enter
local by_ethertype, by_version = graph.by_ethertype, graph.by_version
local MALFORMED, DECODED = graph.MALFORMED, graph.DECODED
local GRE, ERSPAN = protocols.GRE, protocols.ERSPAN

local CHECKSUM, ROUTING, KEY, SEQUENCE = 0x80, 0x40, 0x20, 0x10    -- flags in the first byte
local ACKNOWLEDGMENT = 0x80                                         -- in the second, in version 1
local BRIDGED, ERSPAN_II, ERSPAN_III, PPP_FRAME = 0x6558, 0x88be, 0x22eb, 0x880b

-- ERSPAN (draft-foschiano-erspan-03). Type I is GRE without a sequence number and has no header of its own.
local function erspan_ii(p, o, captured, wire, packet)
  if o + 8 > captured then return short(packet, o + 8, wire) end
  if rshift(p[o], 4) ~= 1 then return unknown(packet) end
  layer(packet, ERSPAN, o, 8, captured)
  return ethernet(p, o + 8, captured, wire, packet)
end

-- Type III: 8 bytes more when bit O says so, and an IP packet instead of a frame when the frame type does.
local function erspan_iii(p, o, captured, wire, packet)
  if o + 12 > captured then return short(packet, o + 12, wire) end
  if rshift(p[o], 4) ~= 2 then return unknown(packet) end
  local length, frame_type = band(p[o + 11], 1) ~= 0 and 20 or 12, band(rshift(p[o + 10], 2), 31)
  if o + length > captured then return short(packet, o + length, wire) end
  layer(packet, ERSPAN, o, length, captured)
  if frame_type == 0 then return ethernet(p, o + length, captured, wire, packet) end
  if frame_type == 2 then return by_version(p, o + length, captured, wire, packet) end
  return unknown(packet)
end

-- What is behind the header, by the protocol type of GRE.
local function payload(kind, flags, p, o, captured, wire, packet)
  if kind == BRIDGED then return ethernet(p, o, captured, wire, packet) end
  if kind == ERSPAN_II then
    if band(flags, SEQUENCE) == 0 then return ethernet(p, o, captured, wire, packet) end
    return erspan_ii(p, o, captured, wire, packet)
  end
  if kind == ERSPAN_III then return erspan_iii(p, o, captured, wire, packet) end
  return by_ethertype(kind, p, o, captured, wire, packet)
end

local function has(flags, bits)
  return band(flags, bits) ~= 0 and 4 or 0
end

-- Version 0 (RFC 2784, RFC 2890). With source routes (RFC 1701) the header has no plain length: nothing goes on there.
local function version_0(flags, p, o, captured, wire, packet)
  local length = 4 + has(flags, CHECKSUM) + has(flags, KEY) + has(flags, SEQUENCE)
  if o + length > captured then return short(packet, o + length, wire) end
  layer(packet, GRE, o, length, captured)
  if band(flags, ROUTING) ~= 0 or o + length == wire or not enter(packet) then return DECODED end
  return payload(be16(p, o + 2), flags, p, o + length, captured, wire, packet)
end

-- Version 1, of PPTP (RFC 2637, 4.1). Without a sequence number it only acknowledges.
local function version_1(flags, p, o, captured, wire, packet)
  local length = 8 + has(flags, SEQUENCE) + has(p[o + 1], ACKNOWLEDGMENT)
  if o + length > captured then return short(packet, o + length, wire) end
  layer(packet, GRE, o, length, captured)
  local last = o + length + be16(p, o + 4)
  if be16(p, o + 2) ~= PPP_FRAME or band(flags, SEQUENCE) == 0 or last == o + length then return DECODED end
  if last > wire then return MALFORMED end
  if not enter(packet) then return DECODED end
  return ppp(p, o + length, last < captured and last or captured, last, packet)
end

local function gre(p, o, captured, wire, packet)
  if o + 4 > captured then return short(packet, o + 4, wire) end
  local version = band(p[o + 1], 7)
  if version == 0 then return version_0(p[o], p, o, captured, wire, packet) end
  if version == 1 then return version_1(p[o], p, o, captured, wire, packet) end
  return DECODED
end

graph.ip[47] = gre
