-- Stores DNS in full, of HTTP the headers of its packets, and nothing else.
-- offpath run scripts/store_dns_only.lua --capture demo/demo.pcap --store demo/packets
local FULL, HEADERS, SKIP = 1, 2, 0

TrisulPlugin = {
  id = { name = "store_dns_only", description = "Chooses the packets that --store writes" },

  packet_storage = {
    -- Asked once for each new flow, before anything of it is stored.
    filter = function(engine, timestamp, flow)
      local port = flow:portz_readable()
      return (port == "53" or port == "5353") and FULL or SKIP
    end,

    -- Asked for the first bytes of each direction, whatever the port. The more liberal answer holds.
    filter_payload = function(engine, timestamp, flow, direction, seekpos, buffer)
      return buffer:tostring(0, 8):find("^HTTP/1%.") and HEADERS or SKIP
    end,
  },
}
