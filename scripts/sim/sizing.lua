-- How many workers does a load need? Jobs come at random, T.args of them a second on average, and each is a task for a worker. What
-- is unfinished is looked at once a second, and told as a counter. See sizing.py.
local QUEUE = "{7E2C1D14-3B52-4E0B-9B6E-5D0F3A6C2B11}"

local rate = tonumber(T.args) or 2

TrisulPlugin = {
  id = { name = "sizing", description = "A queue of jobs for a number of workers" },

  countergroup = {
    control = { guid = QUEUE, name = "Queue", description = "Unfinished jobs", bucketsize = 60 },
    meters = { { 0, T.K.vartype.AVERAGE, 1, 0, "Unfinished", "jobs" } },
  },

  simulation = {
    onbegin = function()
      local gaps = T.sim.random("gaps")
      T.sim.every(function() return gaps:exponential(1 / rate) end, function() T.sim.emit("job", "") end)
      T.sim.every(1, function(engine) engine:update_counter(QUEUE, "all", 0, T.sim.pending()) end)
    end,
  },

  event_monitor = {
    topics = { "job" },
    onevent = function() T.async:schedule({ onexecute = function() end }) end,
  },
}
