-- IEEE 802.11 frames, with or without a radiotap header. Frames are decoded as far as they are data in the clear.
local bit = require("bit")
local protocols = require("offpath.protocols")
local layouts = require("capture.layouts")
local graph = require("capture.dissect.graph")
local llc = require("capture.dissect.link").llc

local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift
local be16 = layouts.be16
local layer, short, unknown, MALFORMED = graph.layer, graph.short, graph.unknown, graph.MALFORMED
local RADIOTAP, WLAN, AMSDU = protocols.RADIOTAP, protocols.WLAN, protocols.AMSDU

local DATA = 2                                     -- type of a frame
local NO_DATA, QOS = 4, 8                          -- bits of the subtype of data frames
local TO_DS, FROM_DS, MORE, PROTECTED, ORDER = 1, 2, 4, 0x40, 0x80
local HAS_FCS, HAS_PADDING = 0x10, 0x20            -- radiotap flags

-- The length of a data frame's header (IEEE 802.11-2020, 9.3.2).
local function header_length(subtype, flags)
  local length = band(flags, TO_DS + FROM_DS) == TO_DS + FROM_DS and 30 or 24
  if band(subtype, QOS) ~= 0 then length = length + (band(flags, ORDER) ~= 0 and 6 or 2) end
  return length
end

-- The first of the frames that were put together into one (IEEE 802.11-2020, 9.3.2.2.2).
local function aggregate(p, o, captured, wire, packet)
  if o + 14 > captured then return short(packet, o + 14, wire) end
  layer(packet, AMSDU, o, 14, captured)
  local last = o + 14 + be16(p, o + 12)
  if last > wire then return MALFORMED end
  return llc(p, o + 14, captured < last and captured or last, last, packet)
end

local function frame(p, o, captured, wire, padded, packet)
  if o + 10 > captured then return short(packet, o + 10, wire) end
  local kind, subtype, flags = band(rshift(p[o], 2), 3), rshift(p[o], 4), p[o + 1]
  if kind ~= DATA or band(subtype, NO_DATA) ~= 0 then
    layer(packet, WLAN, o, wire - o, captured)
    return unknown(packet)
  end
  local length = header_length(subtype, flags)
  if o + length > captured then return short(packet, o + length, wire) end
  local payload = o + length
  if padded then payload = o + band(length + 3, -4) end
  layer(packet, WLAN, o, payload - o, captured)
  -- Encrypted, or a part of a frame.
  if band(flags, PROTECTED + MORE) ~= 0 or band(p[o + 22], 15) ~= 0 then return unknown(packet) end
  local control = o + (band(flags, TO_DS + FROM_DS) == TO_DS + FROM_DS and 30 or 24)
  if band(subtype, QOS) ~= 0 and band(p[control], 0x80) ~= 0 then
    return aggregate(p, payload, captured, wire, packet)
  end
  return llc(p, payload, captured, wire, packet)
end

local function wlan(p, o, captured, wire, packet)
  return frame(p, o, captured, wire, false, packet)
end

-- Steps over the further words of the bitmap of fields; returns where the fields begin.
local function skip_bitmap(p, at, last)
  if at + 4 > last or band(p[at + 3], 0x80) == 0 then return at + 4 end
  return skip_bitmap(p, at + 4, last)
end

-- The flags field of a header that ends at `last`: it is second, behind eight bytes of time that are aligned.
local function radiotap_flags(p, o, last)
  local present = p[o + 4]
  if band(present, 2) == 0 then return 0 end
  local at = skip_bitmap(p, o + 4, last)
  if band(present, 1) ~= 0 then at = o + band(at - o + 7, -8) + 8 end
  return at < last and p[at] or 0
end

-- Radiotap (radiotap.org): its length, in little-endian order, then a bitmap that tells which fields are there.
local function radiotap(p, o, captured, wire, packet)
  if o + 8 > captured then return short(packet, o + 8, wire) end
  local last = o + bor(p[o + 2], lshift(p[o + 3], 8))
  if last < o + 8 or last > wire then return MALFORMED end
  if last > captured then return short(packet, last, wire) end
  layer(packet, RADIOTAP, o, last - o, captured)
  local flags = radiotap_flags(p, o, last)
  if band(flags, HAS_FCS) ~= 0 and wire - last >= 4 then
    wire = wire - 4
    if captured > wire then captured = wire end
  end
  return frame(p, last, captured, wire, band(flags, HAS_PADDING) ~= 0, packet)
end

graph.links[105], graph.links[127] = wlan, radiotap
