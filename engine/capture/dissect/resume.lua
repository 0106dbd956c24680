-- Dissects a packet further whose last layer, made by a script, names one of our protocols as what comes next.
local ffi = require("ffi")
local frame = require("offpath.frame")
local protocols = require("offpath.protocols")
local memory = require("capture.memory")
local graph = require("capture.dissect.graph")
local link = require("capture.dissect.link")

local copy, max = ffi.copy, math.max
local HEAD_BYTES, LAYER_BYTES = frame.HEAD_BYTES, frame.LAYER_BYTES

-- Dissectors by the number of the protocol. IP is entered as a tunnel.
local DISSECTORS = {
  [protocols.ETHERNET] = link.ethernet, [protocols.LLC] = link.llc, [protocols.VLAN] = graph.ethertypes[0x8100],
  [protocols.SLL] = graph.links[113], [protocols.SLL2] = graph.links[276], [protocols.LOOPBACK] = graph.links[0],
  [protocols.PPP] = graph.links[9],
  [protocols.MPLS] = graph.ethertypes[0x8847], [protocols.PPPOE] = graph.ethertypes[0x8864],
  [protocols.ARP] = graph.ethertypes[0x0806], [protocols.IPV4] = graph.ip[4], [protocols.IPV6] = graph.ip[41],
  [protocols.ICMP] = graph.ip[1], [protocols.IGMP] = graph.ip[2], [protocols.TCP] = graph.ip[6],
  [protocols.UDP] = graph.ip[17], [protocols.GRE] = graph.ip[47], [protocols.ESP] = graph.ip[50],
  [protocols.AH] = graph.ip[51], [protocols.ICMPV6] = graph.ip[58], [protocols.SCTP] = graph.ip[132],
}

local function copy_frame(to, from)
  copy(to, from, HEAD_BYTES + from.layer_count * LAYER_BYTES)
end

-- `packet` is where dissectors put what they find.
return function(kept, packet)
  kept.resumed = 0
  if kept.layer_count == 0 then return end
  local last = kept.layer[kept.layer_count - 1]
  local dissect = DISSECTORS[last.reserved]
  if not dissect then return end
  last.reserved = 0
  local from, captured, wire = last.offset + last.length, kept.captured, max(kept.wire, kept.captured)
  if kept.has_ports == 1 then
    captured, wire = kept.payload + kept.payload_captured, kept.payload + kept.payload_length
  end
  copy_frame(packet, kept)
  dissect(memory.at(kept.address, kept.captured), from, captured, wire, packet)
  packet.row, packet.flow, packet.resumed = 0, 0, 1
  copy_frame(kept, packet)
  packet.resumed, packet.store = 0, 0   -- no dissector sets these: the next packet would have them
end
