-- Counts TCP packets by their flags, minute by minute, and tags the flows that were reset.
-- offpath run scripts/tcp_flags.lua --capture demo/demo.pcap --db demo/flags.db
-- offpath query demo/flags.db toppers "TCP flags" Packets
local TCP = "{77E462AB-2E42-42EC-9A58-C1A6821D6B31}"
local FLAGS = "{5F3A9D6C-71C8-4C0B-9A31-40A7E9C3A5D1}" -- our own counter group: any GUID that is nobody else's

local PACKETS, BYTES = 0, 1 -- meters

TrisulPlugin = {
  id = { name = "tcp_flags", description = "TCP packets by flags" },

  -- What the group is called, and how its meters count: the ten greatest keys of each are kept as toppers.
  countergroup = {
    control = { guid = FLAGS, name = "TCP flags", description = "TCP packets by flags", bucketsize = 60 },
    meters = {
      { PACKETS, T.K.vartype.COUNTER, 10, 0, "Packets", "packets", "packets" },
      { BYTES, T.K.vartype.RATE_COUNTER, 10, 0, "Traffic", "bytes on the wire", "Bps" },
    },
  },

  simplecounter = {
    protocol_guid = TCP,

    onpacket = function(engine, layer)
      -- Bits are counted from the first of the header: byte 13 is the flags.
      local key = "data"
      if layer:testbit(109) then
        key = "RST"
        engine:tag_flow(layer:flowkey(), "reset")
      elseif layer:testbit(110) then
        key = layer:testbit(107) and "SYN ACK" or "SYN"
      elseif layer:testbit(111) then
        key = "FIN"
      end
      engine:update_counter(FLAGS, key, PACKETS, 1)
      engine:update_counter_bytes(FLAGS, key, BYTES)
    end,
  },
}
