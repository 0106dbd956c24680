-- The protocol graph: dissectors hang on what announces them (a link type, an EtherType, an IP protocol, a PPP
-- protocol, a UDP port) and call the next one through these tables, so that no family of protocols knows another.
--
-- A dissector is `f(p, o, captured, wire, packet)`. Its header begins at `o` of `p`; the protocol around it ends at
-- `captured` as far as it is in the file and at `wire` as it was sent. It adds its layer and returns the verdict of the
-- next dissector, as a tail call: LuaJIT inlines the whole stack into the trace of the packet loop, where the number
-- of layers so far is known and folds away. Loops are avoided for the same reason: they would be traces of their own.
local ffi = require("ffi")
local bit = require("bit")
local frame = require("offpath.frame")
local protocols = require("offpath.protocols")
local layouts = require("capture.layouts")

local M = {
  MALFORMED = 0,  -- lies about its lengths, or ends within a header
  UNDECODED = 1,  -- of a link type or network protocol that is not decoded
  DECODED = 2,    -- has a readable network header: IP or ARP

  links = {},       -- dissectors by link type,
  ethertypes = {},  -- by EtherType,
  ip = {},          -- by IP protocol; all 256 are set below,
  ppp = {},         -- by PPP protocol,
  udp = {},         -- by UDP destination port.
}

local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift
local MALFORMED, UNDECODED, DECODED = M.MALFORMED, M.UNDECODED, M.DECODED
local LAYERS = frame.LAYERS
local counters = layouts.counters
local ethertypes, ip = M.ethertypes, M.ip
local most_tunnels = 0

-- Packets in which each protocol is a layer, by its number.
local layer_packets = ffi.new("double[?]", protocols.MOST + 1)
M.layer_packets = layer_packets

-- Sets how many tunnels are followed into one another; more of them than a frame has layers are never listed.
function M.configure(tunnels)
  most_tunnels = math.min(tunnels, LAYERS)
end

local function mark_too_deep(packet)
  if packet.too_deep == 1 then return end
  packet.too_deep = 1
  counters.too_deep = counters.too_deep + 1
end

-- Adds a layer of `length` bytes, of which those before `captured` can be read. Past the last place it is not listed.
function M.layer(packet, protocol, offset, length, captured)
  if offset + length > captured then length = captured - offset end
  if length <= 0 then return end
  local n = packet.layer_count
  if n == LAYERS then return mark_too_deep(packet) end
  local layer = packet.layer[n]
  layer.protocol, layer.offset, layer.length = protocol, offset, length
  packet.layer_count = n + 1
  local word, mask = rshift(protocol, 5), lshift(1, band(protocol, 31))
  if band(packet.present[word], mask) == 0 then
    packet.present[word] = bor(packet.present[word], mask)
    layer_packets[protocol] = layer_packets[protocol] + 1
  end
end

-- Takes back the layers from `number` on: they turned out to be none.
function M.cut_layers(packet, number)
  local word0, word1 = packet.present[0], packet.present[1]
  packet.present[0], packet.present[1] = 0, 0
  for i = 0, number - 1 do
    local protocol = packet.layer[i].protocol
    local word = rshift(protocol, 5)
    packet.present[word] = bor(packet.present[word], lshift(1, band(protocol, 31)))
  end
  local gone0, gone1 = band(word0, bit.bnot(packet.present[0])), band(word1, bit.bnot(packet.present[1]))
  for protocol = 0, protocols.MOST do
    if band(protocol < 32 and gone0 or gone1, lshift(1, band(protocol, 31))) ~= 0 then
      layer_packets[protocol] = layer_packets[protocol] - 1
    end
  end
  packet.layer_count = number
end

-- Whether one more tunnel may be entered. Where not, what is outside of it stands.
function M.enter(packet)
  if packet.tunnels >= most_tunnels then
    mark_too_deep(packet)
    return false
  end
  packet.tunnels = packet.tunnels + 1
  return true
end

-- The verdict on a packet that goes on with something that is not decoded.
local function unknown(packet)
  return packet.family ~= 0 and DECODED or UNDECODED
end
M.unknown = unknown

-- The verdict on a packet in which a header that ends at `needed` is not whole: a lie when it was not sent either.
-- Inside of an IP packet whose rest the snap length cut, what came before stands.
function M.short(packet, needed, wire)
  return (needed > wire or packet.family == 0) and MALFORMED or DECODED
end

-- Goes on with what an EtherType announces. IPv4 first: its constant key is found without hashing.
function M.by_ethertype(ethertype, p, o, captured, wire, packet)
  if ethertype == 0x0800 then return ethertypes[0x0800](p, o, captured, wire, packet) end
  local dissect = ethertypes[ethertype]
  if dissect then return dissect(p, o, captured, wire, packet) end
  return unknown(packet)
end

-- Goes on with what an IP protocol number announces.
function M.by_protocol(proto, p, o, captured, wire, packet)
  packet.proto = proto
  return ip[proto](p, o, captured, wire, packet)
end

-- Goes on with IPv4 or IPv6, as the version in the first four bits says.
function M.by_version(p, o, captured, wire, packet)
  if o + 1 > captured then return M.short(packet, o + 1, wire) end
  local version = rshift(p[o], 4)
  if version == 4 then return ethertypes[0x0800](p, o, captured, wire, packet) end
  if version == 6 then return ethertypes[0x86dd](p, o, captured, wire, packet) end
  return unknown(packet)
end

local function opaque()
  return DECODED
end

for proto = 0, 255 do ip[proto] = opaque end

return M
