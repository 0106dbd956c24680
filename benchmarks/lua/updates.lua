-- Updates of counters, as many as an event asks for, over so many keys in an order that no cache likes.
local GROUP = "{2E8DB3B1-9E2F-4CC5-A5D9-6F0F1E3F8A11}"
local keys, at = {}, 0

-- The keys, in the order in which they are counted; 7919 is prime, so that all come before one comes again.
local function make(count)
  for number = 1, count do keys[number] = ("key-%08d"):format((number - 1) * 7919 % count) end
  at = 0
end

local function update(engine, count)
  local all, place, last = keys, at, #keys
  for _ = 1, count do
    place = place + 1
    if place > last then place = 1 end
    engine:update_counter(GROUP, all[place], 0, place)
  end
  at = place
end

TrisulPlugin = {
  id = { name = "updates" },
  countergroup = {
    control = { guid = GROUP, name = "Keys", bucketsize = 60 },
    meters = { { 0, T.K.vartype.COUNTER, 10, 0, "sum", "" } },
  },
  event_monitor = {
    onevent = function(engine, _, topic, event)
      if topic == "make" then make(tonumber(event)) else update(engine, tonumber(event)) end
    end,
  },
}
