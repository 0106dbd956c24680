-- A line for each window: how many seconds of stream time it had, and how long its flush took.
-- offpath run scripts/heartbeat.lua --capture FILE
local ticks, began = 0, 0

TrisulPlugin = {
  id = { name = "Heartbeat", description = "Windows and their flushes" },

  engine_monitor = {
    onmetronome = function() ticks = ticks + 1 end,

    onbeginflush = function() began = os.clock() end,

    onendflush = function(engine, timestamp)
      if engine:instanceid() ~= "0" then return end
      print(("%s: %d seconds, flushed in %.3f s"):format(os.date("!%H:%M:%S", timestamp), ticks, os.clock() - began))
      ticks = 0
    end,
  },
}
