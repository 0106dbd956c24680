-- Keeps a number of tasks in flight until a number of them is done: each completion starts another.

local M = {}

-- The 99th and other percentiles by nearest rank, as harness.percentile has them.
local function percentile(values, percent)
  return values[math.max(math.ceil(#values * percent / 100), 1)]
end

-- `start(completed)` starts one task and has `completed` called when it is done; `now` is a clock in seconds. At the end
-- `report` gets a line of JSON: how long all took and, with one in flight, how long one took.
function M.run(in_flight, total, now, start, report)
  local started, done = 0, 0
  local alone = in_flight == 1
  local taken, since = {}, 0
  local began = now()

  local completed
  local function start_one()
    started = started + 1
    if alone then since = now() end
    start(completed)
  end

  function completed()
    done = done + 1
    if alone then taken[done] = now() - since end
    if started < total then return start_one() end
    if done < total then return end
    local seconds = now() - began
    table.sort(taken)
    report(('{"done": %d, "seconds": %.9f, "p50": %.9f, "p99": %.9f}'):format(
      done, seconds, percentile(taken, 50) or 0, percentile(taken, 99) or 0))
  end

  for _ = 1, math.min(in_flight, total) do start_one() end
end

return M
