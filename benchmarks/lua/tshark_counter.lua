-- counter.lua for tshark: tshark -q -n -r CAPTURE -X lua_script:tshark_counter.lua
local ttl, proto = Field.new("ip.ttl"), Field.new("ip.proto")
local counts = {}
local tap = Listener.new("frame", "ip")

function tap.packet()
  local key = tostring(ttl().value * 256 + proto().value)
  counts[key] = (counts[key] or 0) + 1
end

function tap.draw()
  local sum = 0
  for _, count in pairs(counts) do sum = sum + count end
  print("packets " .. sum)
end
