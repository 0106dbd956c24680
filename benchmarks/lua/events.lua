-- The event_monitor of the benchmark `events`: adds up the prices of orders, read as tables, as text, or as JSON.
local JSON = require("JSON")

local count, total = 0, 0

TrisulPlugin = {
  id = { name = "prices" },
  event_monitor = {
    topics = "*.orders",
    onevent = function(_, _, topic, event)
      if topic == "json.orders" then event = JSON.decode(event) end
      count, total = count + 1, total + (topic == "text.orders" and #event or event.price)
    end,
  },
  onunload = function() T.loginfo(("%d %.0f"):format(count, total)) end,
}
