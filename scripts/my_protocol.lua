-- A protocol of one's own, and a counter of its packets: the heads of HTTP requests, by method and host. Other scripts find
-- the layer by its GUID as they find TCP.
-- offpath run scripts/my_protocol.lua --capture demo/demo.pcap --records demo/records.jsonl
local TCP = "{77E462AB-2E42-42EC-9A58-C1A6821D6B31}"
local HEAD = "{0D7E3C52-6B1F-4C39-8C55-2F0E5A1D9B47}"
local REQUESTS = "{9C1F6E88-3D0B-4E6E-A5B7-63A1D1F0C2E4}"

local METHODS = { GET = true, HEAD = true, POST = true, PUT = true }

TrisulPlugin = {
  id = { name = "my_protocol", description = "Heads of HTTP requests as a layer" },

  protocol_handler = {
    control = { guid = HEAD, name = "HTTP request", host_protocol_guid = TCP, host_protocol_ports = { 80, 8080 } },

    -- How many bytes are ours; nothing when they are none of ours. A second result may be the GUID of what follows.
    parselayer = function(layer)
      local text = layer:rawbytes():tostring()
      if not METHODS[text:match("^%u+")] then return end
      local _, last = text:find("\r\n\r\n", 1, true)
      return last or layer:layer_bytes()
    end,
  },

  simplecounter = {
    protocol_guid = HEAD,

    onpacket = function(engine, layer)
      local head = layer:rawbytes():tostring()
      local method, host = head:match("^%u+"), head:match("[Hh]ost: *([^\r\n]+)") or "none"
      engine:update_counter(REQUESTS, method .. " " .. host, 0, 1)
    end,
  },
}
