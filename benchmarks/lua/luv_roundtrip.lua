-- The same round trips through libuv's thread pool, by itself: luajit luv_roundtrip.lua IN_FLIGHT TASKS
-- The size of the pool is UV_THREADPOOL_SIZE. The first run, a tenth as long, is for nothing.

package.path = arg[0]:match("^(.*/)") .. "?.lua;" .. package.path

local uv = require("luv")
local chain = require("chain")

local in_flight, tasks = tonumber(arg[1]), tonumber(arg[2])

local function now() return uv.hrtime() / 1e9 end

local after
local work = uv.new_work(function(text) return text end, function() after() end)

local function start(completed)
  after = completed
  work:queue("some text")
end

local function run(count, report)
  chain.run(in_flight, count, now, start, report)
  uv.run()
end

run(math.max(math.floor(tasks / 10), 1), function() end)
run(tasks, print)
