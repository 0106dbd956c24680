-- Round trips through T.async:schedule; T.args is the number of workers.

local chain = require("chain")
local clock = require("clock")

local function execute(text) return text end

TrisulPlugin = {
  id = { name = "round trips", description = "Keeps tasks in flight" },
  request_async_workers = tonumber(T.args),

  event_monitor = {
    topics = { "start" },

    onevent = function(engine, timestamp, topic, wanted)
      local task = { data = "some text", onexecute = execute }
      local function start(completed)
        task.onresult = completed
        T.async:schedule(task)
      end
      chain.run(wanted.in_flight, wanted.tasks, clock, start, T.loginfo)
    end,
  },
}
