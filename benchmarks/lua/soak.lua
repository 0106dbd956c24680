-- One of everything, chosen by the topic of the event. T.args is a folder with `source` in it.

local made = 0

local function execute_quick(text) return text end
local function execute_slow(seconds) require("nap")(tonumber(seconds)) return "done" end
local function execute_failing(text) error("meant to fail: " .. text) end
local function ignore() end

local work = {}

function work.quick()
  T.async:schedule({ data = "some text", onexecute = execute_quick, onresult = ignore })
end

function work.slow()
  T.async:schedule({ data = "0.003", onexecute = execute_slow, onresult = ignore })
end

-- Goes on long after its time is over, in a thread that is left to it.
function work.late()
  T.async:schedule({ data = "0.25", timeout = 0.02, onexecute = execute_slow, onerror = ignore })
end

function work.failing()
  T.async:schedule({ data = "soak", onexecute = execute_failing, onerror = ignore })
end

function work.copy()
  made = made + 1
  T.async:copy(T.args .. "/source", ("%s/copy%d"):format(T.args, made % 16))
end

function work.cat()
  T.async:cat(T.args .. "/source", T.args .. "/joined")
end

function work.message(engine)
  engine:post_message_frontend("a message to everybody")
end

TrisulPlugin = {
  id = { name = "soak", description = "One of everything" },
  request_async_workers = 2,
  onmessage = ignore,

  event_monitor = {
    topics = { "work.*" },
    onevent = function(engine, timestamp, topic) work[topic:match("[^.]+$")](engine) end,
  },
}
