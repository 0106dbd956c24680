-- The headers of one packet, from the link layer to the innermost transport, in one pass: fills the packet's layers and
-- what a flow key is made of. Reads only below the captured length. What each protocol is, is in its file of `dissect`.
local graph = require("capture.dissect.graph")

for _, family in ipairs { "link", "wireless", "ppp", "mpls", "network", "ipv6", "tunnels", "udp_tunnels" } do
  require("capture.dissect." .. family)
end
require("capture.dissect.transport").open_ports()

local M = { MALFORMED = graph.MALFORMED, UNDECODED = graph.UNDECODED, DECODED = graph.DECODED }

local links, UNDECODED, ethernet = graph.links, graph.UNDECODED, graph.links[1]

-- Dissects `captured` bytes at `p` of a packet that had `wire` bytes; returns one of the three verdicts. The caller has
-- set the packet's time and address.
function M.dissect(p, captured, wire, link, packet)
  packet.captured, packet.wire, packet.link = captured, wire, link
  packet.present[0], packet.present[1], packet.layer_count = 0, 0, 0
  packet.has_ports, packet.has_tcp, packet.family = 0, 0, 0
  packet.payload, packet.payload_captured, packet.payload_length = 0, 0, 0
  packet.fragment, packet.reassembled, packet.tunnels, packet.too_deep = 0, 0, 0, 0
  -- Ethernet first: a link type is a key that must be hashed.
  if link == 1 then return ethernet(p, 0, captured, wire, packet) end
  local dissect = links[link]
  if dissect then return dissect(p, 0, captured, wire, packet) end
  return UNDECODED
end

return M
