-- Schedules arithmetic on two workers, all at once, and tells how long it took.

local clock = require("clock")

TrisulPlugin = {
  id = { name = "arithmetic", description = "Keeps two workers busy" },
  request_async_workers = 2,

  event_monitor = {
    topics = { "start" },

    onevent = function(engine, timestamp, topic, wanted)
      local done, began = 0, clock()
      local task = {
        data = ("%d"):format(wanted.rounds),
        onexecute = function(rounds) return require("spin")(tonumber(rounds)) end,
        onresult = function(_, _, value)
          done = done + 1
          assert(tonumber(value) == wanted.value, "the arithmetic came out wrong")
          if done == wanted.tasks then T.loginfo(("%.9f"):format(clock() - began)) end
        end,
      }
      for _ = 1, wanted.tasks do T.async:schedule(task) end
    end,
  },
}
