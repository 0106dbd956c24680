-- T.sim: what a script can do with the world of a simulation. The host's end is engine/simulation/world.py.
--
-- Times are seconds since the beginning of the simulation.

local host = require("offpath.host")
local random = require("offpath.random")
local virtual = require("offpath.virtual")

local error, tonumber, tostring, type = error, tonumber, tostring, type
local huge = math.huge

local M = {}

local function seconds(value, method, what, level)
  value = tonumber(value)
  if value and value >= 0 and value < huge then return value end
  error(("T.sim.%s: %s must be a number of seconds"):format(method, what), level or 3)
end

-- What the host says is wrong, raised at the script's line.
local function check(wrong)
  if wrong then error(wrong, 3) end
end

-- What workers have, too.
function M.common()
  local sim, streams, task = {}, {}, nil

  function sim.now() return virtual.clock[0] end

  -- A stream of random numbers by name: the same in each run with the same seed, whatever other streams gave. On a worker each
  -- task has its own.
  function sim.random(name)
    name = tostring(name or "")
    if virtual.task ~= task then streams, task = {}, virtual.task end
    if not streams[name] then streams[name] = random.new((task or host.sim_run) .. "/stream/" .. name) end
    return streams[name]
  end

  -- Work that takes so long. In a hook it holds the loop, as blocking work does; on a worker it is added to the task's latency.
  function sim.spend(time) check(host.sim_spend(seconds(time, "spend", "the time"))) end

  -- Says that something must be so. A false condition fails the run, which goes on.
  function sim.check(condition, message)
    if not condition then host.sim_check(tostring(message or "a check failed")) end
    return condition
  end

  return sim
end

local function options(method, names, given)
  if type(given) ~= "table" then error("T.sim." .. method .. ": takes a table", 3) end
  for name in next, given do
    if not names[name] then error(("T.sim.%s: no option is named '%s'"):format(method, tostring(name)), 3) end
  end
  return given
end

-- Adds what only a plugin's state has. `context` has its engine and time; `guarded(name, fn, ...)` calls a function of the script.
function M.extend(sim, context, guarded)
  local function fire(fn)
    return function(now)
      local before = context.time -- of a hook that spends time meanwhile
      context.time = now
      guarded("T.sim", fn, context.engine, sim.now())
      context.time = before
    end
  end

  local function callback(fn, method)
    if type(fn) ~= "function" then error(("T.sim.%s: takes a function"):format(method), 3) end
    return fire(fn)
  end

  -- Calls f(engine, now) at a time. What lies in the past is called as soon as possible.
  function sim.at(time, fn) check(host.sim_at(seconds(time, "at", "the time"), callback(fn, "at"))) end

  -- Calls f(engine, now) after a time.
  function sim.after(time, fn) check(host.sim_at(sim.now() + seconds(time, "after", "the time"), callback(fn, "after"))) end

  -- Calls f(engine, now) again and again, until it returns false. The gap may be a function that gives the next one.
  function sim.every(gap, fn)
    if type(gap) ~= "function" then
      local fixed = seconds(gap, "every", "the gap")
      if fixed == 0 then error("T.sim.every: the gap must be above 0", 2) end
      gap = function() return fixed end
    end
    if type(fn) ~= "function" then error("T.sim.every: takes a function", 2) end
    local due = sim.now()
    local function again(engine, now)
      if fn(engine, now) == false then return end
      due = due + seconds(gap(), "every", "the gap")
      check(host.sim_at(due, fire(again)))
    end
    due = due + seconds(gap(), "every", "the gap")
    check(host.sim_at(due, fire(again)))
  end

  -- Leaves an event for event_monitor plugins; false when there was no room, or it was dropped on purpose.
  function sim.emit(topic, event)
    if type(topic) ~= "string" then error("T.sim.emit: the topic must be a string", 2) end
    local taken, wrong = host.sim_emit(topic, event)
    check(wrong)
    return taken
  end

  -- Sends a connection with HTTP exchanges over the simulated network: the engine sees its packets. See engine/README.md for the fields.
  function sim.http(given)
    if type(given) ~= "table" then error("T.sim.http: takes a table", 2) end
    check(host.sim_send("http", given))
  end

  -- The same for a connection, or datagrams, with texts of the client and the server in turn.
  function sim.flow(given)
    if type(given) ~= "table" then error("T.sim.flow: takes a table", 2) end
    check(host.sim_send("flow", given))
  end

  local WORKERS = { latency = true, slow = true, dying = true }
  local DISK = { latency = true, slow = true, failing = true }

  -- From now on workers have that latency ("exponential:0.01"), are so many times slower, or die in that share of tasks.
  function sim.workers(given)
    given = options("workers", WORKERS, given)
    check(host.sim_fault("workers", given.latency, tonumber(given.slow), tonumber(given.dying)))
  end

  -- The same for file operations, of which a share fails.
  function sim.disk(given)
    given = options("disk", DISK, given)
    check(host.sim_fault("disk", given.latency, tonumber(given.slow), tonumber(given.failing)))
  end

  -- That share of the events that `emit` is given is lost from now on.
  function sim.drop(share) check(host.sim_fault("drop", nil, nil, tonumber(share) or -1)) end

  -- Puts the clock of the day forward, or back; the time of timers goes on as before.
  function sim.jump_clock(by) check(host.sim_fault("clock", nil, tonumber(by) or huge, nil)) end

  -- Async tasks of all plugins that are not finished.
  function sim.pending() return host.sim_pending() end

  -- Every count of the run, by name, as in its summary.
  function sim.counts() return host.sim_counts() end
end

return M
