-- Events that come at random and are each worth a copy: in the hook, by T.async:copy, or by T.async:schedule. T.args is the method, the
-- events a second, and the file that is copied. Each event is told with how late it was handled. See loss.py.
local ALERTS = "{B5F1DECB-51D5-4395-B71B-6FA730B772D9}" -- User Alerts
local HOOK, COPY = 0.0002, 0.005 -- seconds that an event takes in the hook, and a copy on average

local method, rate, file = T.args:match("^(%S+) (%S+) (.+)$")

local copies = {
  inline = function() T.sim.spend(T.sim.random("copies"):exponential(COPY)) end,
  copy = function() T.async:copy(file, file .. ".copy") end,
  schedule = function() T.async:schedule({ onexecute = function() end }) end,
}
local copy_it = copies[method] or error("wants --args 'METHOD EVENTS_PER_SECOND FILE', METHOD one of inline, copy, schedule", 0)

TrisulPlugin = {
  id = { name = "loss", description = "What a copy costs those who come after it" },
  request_async_workers = 16,

  simulation = {
    onbegin = function()
      local gaps = T.sim.random("gaps")
      T.sim.workers({ latency = "exponential:" .. COPY })
      T.sim.disk({ latency = "exponential:" .. COPY })
      T.sim.every(function() return gaps:exponential(1 / rate) end, function(_, now) T.sim.emit("event", { at = now }) end)
    end,
  },

  event_monitor = {
    topics = { "event" },
    onevent = function(engine, timestamp, topic, event)
      engine:add_alert(ALERTS, nil, "late", 1, ("%.6f"):format(T.sim.now() - event.at))
      T.sim.spend(HOOK)
      copy_it()
    end,
  },
}
