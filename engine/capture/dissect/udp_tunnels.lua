-- Tunnels in UDP: VXLAN, GENEVE and GTP-U. A port is only a hint: where the rest does not fit, the packet counts to the
-- flow of UDP, and so it does when nothing inside has ports.
local ffi = require("ffi")
local bit = require("bit")
local frame = require("offpath.frame")
local protocols = require("offpath.protocols")
local layouts = require("capture.layouts")
local graph = require("capture.dissect.graph")
local ethernet = require("capture.dissect.link").ethernet

local band, lshift, rshift = bit.band, bit.lshift, bit.rshift
local be16 = layouts.be16
local layer, cut_layers, enter, by_ethertype = graph.layer, graph.cut_layers, graph.enter, graph.by_ethertype
local MALFORMED, DECODED = graph.MALFORMED, graph.DECODED
local VXLAN, GENEVE, GTPU = protocols.VXLAN, protocols.GENEVE, protocols.GTPU

local BRIDGED = 0x6558
local GTP_EXTENDED, GTP_OPTIONAL = 4, 7    -- flags: extension header; any of the three that make the header longer
local G_PDU = 255                          -- message type of a tunnelled packet

-- What UDP packets with a tunnel in them were before it was entered; one on top of the other.
local outer = ffi.new(ffi.typeof("$[?]", frame.frame_t), frame.LAYERS)
local depth = 0

-- Makes the packet what it was outside, but for its layers. Its bytes may lie elsewhere by now: a fragment inside
-- completed a datagram, which has the same headers before it.
local function restore(packet, before)
  local address, captured, reassembled, count = packet.address, packet.captured, packet.reassembled, packet.layer_count
  local present0, present1, too_deep = packet.present[0], packet.present[1], packet.too_deep
  ffi.copy(packet, before, frame.HEAD_BYTES)
  packet.address, packet.captured, packet.reassembled, packet.layer_count = address, captured, reassembled, count
  packet.present[0], packet.present[1], packet.too_deep = present0, present1, too_deep
  local readable = captured - packet.payload
  if packet.payload_captured > readable then packet.payload_captured = readable > 0 and readable or 0 end
end

-- Runs `dissect` on the payload of a UDP packet and decides what the packet counts as.
local function try(dissect, p, o, captured, wire, packet)
  if not enter(packet) then return DECODED end
  local before = outer[depth]
  ffi.copy(before, packet, frame.HEAD_BYTES)
  depth = depth + 1
  packet.has_ports, packet.has_tcp = 0, 0
  packet.payload, packet.payload_captured, packet.payload_length = 0, 0, 0
  local verdict = dissect(p, o, captured, wire, packet)
  depth = depth - 1
  if verdict == MALFORMED then
    cut_layers(packet, before.layer_count)
    restore(packet, before)
  elseif packet.has_ports == 0 then
    local fragment = packet.fragment
    restore(packet, before)
    packet.fragment = fragment
  end
  return DECODED
end

-- VXLAN (RFC 7348, 5); bits that are reserved there may hold a group policy, but for the last byte.
local function vxlan(p, o, captured, wire, packet)
  if o + 8 > captured or band(p[o], 0x08) == 0 or p[o + 7] ~= 0 then return DECODED end
  layer(packet, VXLAN, o, 8, captured)
  return ethernet(p, o + 8, captured, wire, packet)
end

-- GENEVE (RFC 8926, 3.4), with options.
local function geneve(p, o, captured, wire, packet)
  if o + 8 > captured or rshift(p[o], 6) ~= 0 or p[o + 7] ~= 0 then return DECODED end
  local length, kind = 8 + lshift(band(p[o], 63), 2), be16(p, o + 2)
  if o + length > captured then return DECODED end
  layer(packet, GENEVE, o, length, captured)
  if kind == BRIDGED then return ethernet(p, o + length, captured, wire, packet) end
  return by_ethertype(kind, p, o + length, captured, wire, packet)
end

-- Where the extension headers of GTP-U end, the next of which begins at `o` (3GPP TS 29.281, 5.2.1), or nil. The type
-- of each is the last byte before it, its length in units of 4 bytes its first.
local function skip_extensions(p, o, captured)
  if p[o - 1] == 0 then return o end
  if o + 1 > captured or p[o] == 0 then return nil end
  local next_one = o + lshift(p[o], 2)
  if next_one > captured then return nil end
  return skip_extensions(p, next_one, captured)
end

-- GTP-U (3GPP TS 29.281, 5.1).
local function gtpu(p, o, captured, wire, packet)
  if o + 8 > captured or rshift(p[o], 4) ~= 3 or p[o + 1] ~= G_PDU then return DECODED end
  local flags, last = p[o], o + 8 + be16(p, o + 2)
  if last > wire then return DECODED end
  if last < captured then captured = last end
  local payload = band(flags, GTP_OPTIONAL) ~= 0 and o + 12 or o + 8
  if payload > captured then return DECODED end
  if band(flags, GTP_EXTENDED) ~= 0 then payload = skip_extensions(p, payload, captured) end
  if not payload then return DECODED end
  layer(packet, GTPU, o, payload - o, captured)
  return graph.by_version(p, payload, captured, last, packet)
end

local function on_port(port, dissect)
  graph.udp[port] = function(p, o, captured, wire, packet)
    return try(dissect, p, o, captured, wire, packet)
  end
end

on_port(4789, vxlan)
on_port(8472, vxlan)       -- of Linux before the port was assigned
on_port(6081, geneve)
on_port(2152, gtpu)
