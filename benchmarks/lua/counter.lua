-- The simplecounter of the benchmark `packets`: packets by the two bytes TTL and protocol of IPv4.
local GROUP = "{2C1A6B0E-8B1B-4B4E-9C57-5D2B8E6E7F10}"

TrisulPlugin = {
  id = { name = "ttl and protocol" },
  simplecounter = {
    protocol_guid = "{0A2C724B-5B9F-4BA6-9C97-B05080558574}",
    onpacket = function(engine, layer)
      engine:update_counter(GROUP, tostring(layer:getbyte(8) * 256 + layer:getbyte(9)), 0, 1)
    end,
  },
}
