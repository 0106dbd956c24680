-- A worker's state: it runs onexecute functions, on a thread of its own, with T, require and the modules of a hook's state.

local ffi = require("ffi")
local string_buffer = require("string.buffer")
local ship = require("offpath.ship")
local failure = require("offpath.failure")
local prelude = require("offpath.prelude")
local async = require("offpath.async")
local deadline = require("offpath.deadline")
local limits = require("offpath.limits")
local lanes = require("offpath.lane")
local durations = require("offpath.durations")
local now = require("offpath.monotonic").now

local type, tostring, xpcall, unpack, select = type, tostring, xpcall, unpack, select
local collectgarbage = collectgarbage
local copy = ffi.copy

local M = {}

-- Seconds. Tasks of a code that take less on average are expected to be over in no time. One that takes longer counts as
-- OUTLIER: a thread that was preempted in the middle of a quick task says nothing about the next one.
local QUICK, OUTLIER, WEIGHT = 0.0002, 0.0016, 1 / 16

-- How a task ended, as async.lua knows it; and what else goes back (Status in task.py): outcomes of a part of a pack, a
-- failure in one, the end of one, and whether a code is quick.
local DONE, RESULT, FAILED = async.DONE, async.RESULT, async.FAILED
local PART, FAILED_IN_PACK, PACK_END, QUICK_CODE = 4, 5, 6, 7

-- Code ids that stand for something else. A pack: its upvalues are how many to skip, its timeout how many there are. The lane
-- (lane.lua): its upvalues are the turn, its timeout is the address.
local PACK, LANE = 0, -1

local WORTH_GIVING = 16 -- outcomes, to a loop that has no others to see to

-- What the host may look at while a task runs: the place in the pack of the task that was begun last, and the outcomes of the
-- tasks before it that were not given yet. They are copied here, so that a slow task does not hold them up. And how long
-- tasks took, in all and as counts in buckets that double from 1 µs (histogram.py).
ffi.cdef([[
typedef struct {
  int32_t place; int32_t count; int32_t bytes; int32_t gives; uint8_t outcomes[65536];
  double run_seconds; double run_counts[28];
} offpath_progress_t;
]])
local progress_ptr_t = ffi.typeof("volatile offpath_progress_t *")
local ROOM = 65536

-- A result crosses as a string; a number becomes one. Other types have no meaning and are said so, once a task.
local function outcome(value, logwarning)
  local kind = type(value)
  if kind == "string" then return RESULT, value end
  if kind == "number" then return RESULT, tostring(value) end
  if kind ~= "nil" then logwarning("onexecute returned a " .. kind .. ", which is ignored: return a string") end
  return DONE, false
end

local NO_MEMORY = "not enough memory" -- as LuaJIT raises it: no handler is called, it stays a string

-- Prepares the state. `load_code(id)` gives the bytecode of a prototype, `exchange(...)` takes results and gives the next
-- tasks, `stop_flag` is the address of an integer that is not zero when a run must end, `report_place` that of a double
-- for the bytes that the state has at the end of a run. `options`: strict, max_tasks, memory_mb (install.py).
-- Returns drain(hold): how many tasks were run, and whether the state must not be used again, though there may be more;
-- and call_hook(code, upvalues, limited): nothing, or message and traceback.
function M.start(settings, load_code, exchange, stop_flag, progress_place, directory, roots, report_place, options)
  local call_within = options.strict and deadline.start()
  load_code, exchange = limits.unlimited(load_code), limits.unlimited(exchange)
  local names
  T, names = prelude.build(settings)
  T.async = async.unavailable()
  local logwarning = T.logwarning
  prelude.set_path(directory, roots)
  local unpack_function = ship.unpacker(names, load_code)

  local max_tasks = options.max_tasks or math.huge
  local tasks_run, spent = 0, false
  local no_memory = options.memory_mb and ("out of memory: the worker's limit is %d MiB"):format(options.memory_mb)
  local pack_end = ffi.cast("volatile int32_t *", stop_flag)

  -- Before the next task of a pack: the host puts the rest back, for the next state.
  local function leave_pack()
    if pack_end[0] == 0 then pack_end[0] = 2 end
  end

  -- Message and traceback of what xpcall gave. A state that has come to its limit runs nothing more.
  local function parts(failed)
    if failed ~= NO_MEMORY or not no_memory then return failure.parts(failed) end
    spent = true
    limits.retire()
    leave_pack()
    return no_memory, ""
  end

  local function run(code, upvalues, data, timeout)
    if spent then return FAILED, no_memory, "" end
    tasks_run = tasks_run + 1
    if tasks_run >= max_tasks then leave_pack() end
    local ok, fn = xpcall(unpack_function, failure.handler, code, upvalues)
    if not ok then return FAILED, parts(fn) end
    local done, value, over
    if call_within and timeout > 0 then
      done, value, over = call_within(timeout, fn, data)
      if over then return FAILED, "timeout", not done and select(2, parts(value)) or "" end
    else
      done, value = xpcall(fn, failure.handler, data)
    end
    if not done then return FAILED, parts(value) end
    local status, result = outcome(value, logwarning)
    return status, result, false
  end

  -- Gives the state no more tasks when it is spent.
  if no_memory or options.max_tasks then
    local hand_over = exchange
    exchange = function(more, ...)
      spent = spent or (more and tasks_run >= max_tasks)
      if not (more and spent) then return hand_over(more, ...) end
      if select("#", ...) > 0 then hand_over(false, ...) end
    end
  end

  -- Runs async_onload or async_onunload.
  local function call_hook(code, upvalues, limited)
    local function call()
      local ok, result = xpcall(unpack_function, failure.handler, code, upvalues)
      if ok then
        ok, result = xpcall(result, failure.handler)
      end
      if not ok then return parts(result) end
    end
    if limited then return limits.call(call) end
    return call()
  end

  local stop = ffi.cast("const volatile int32_t *", stop_flag)
  local progress = ffi.cast(progress_ptr_t, progress_place)
  local hold_seconds = 0
  local quick, average = {}, {} -- by code: whether its tasks are over in no time, and the seconds that they take

  -- What goes back next: task id, status, value, traceback, four by four.
  local results, count, since = {}, 0, 0

  local function add(id, status, value, trace)
    results[count + 1], results[count + 2], results[count + 3], results[count + 4] = id, status, value, trace
    count = count + 4
  end

  local function give(more)
    local given, given_count = results, count
    results, count, since = {}, 0, now()
    return exchange(more, unpack(given, 1, given_count))
  end

  -- Counts how long a task took.
  local function count_run(seconds)
    local bucket = durations.bucket(seconds)
    progress.run_counts[bucket] = progress.run_counts[bucket] + 1
    progress.run_seconds = progress.run_seconds + seconds
  end

  -- Notes how long a run of a code took, and tells the host when that changes what is expected of it.
  local function learn(code, seconds)
    count_run(seconds)
    if seconds > OUTLIER then seconds = OUTLIER end
    local before = average[code] or seconds
    local expected = before + (seconds - before) * WEIGHT
    average[code] = expected
    local is_quick = expected < QUICK
    if quick[code] == is_quick then return end
    quick[code] = is_quick
    add(code, QUICK_CODE, is_quick, false)
  end

  -- Results of tasks before it are given at once: nobody can take them away while it runs.
  local function run_one(id, code, upvalues, data, timeout, began)
    if count > 0 then
      give(false)
      began = now()
    end
    add(id, run(code, upvalues, data, timeout))
    local ended = now()
    learn(code, ended - began)
    return ended
  end

  -- Outcomes of the pack that is run, until they are given as a part of it: by the lane that it came by, if there is one.
  local outcomes, part, shown = string_buffer.new(), 0, 0
  local lane

  -- Before outcomes are given, nothing of them is shown any more: nobody may take them twice. Who reads them just now sees
  -- that they were given.
  local function hide()
    progress.gives = progress.gives + 1
    progress.count, progress.bytes = 0, 0
    shown = 0
  end

  local function add_part(id)
    hide()
    add(id, PART, outcomes:get(), part)
    part = 0
  end

  -- Through the lane nothing else is given, so that nothing overtakes.
  local function give_by_lane(ends)
    hide()
    if count > 0 or not lane.give(outcomes, part, ends) then return false end
    outcomes:reset()
    part, since = 0, now()
    return true
  end

  local function give_part(id)
    if lane and give_by_lane(false) then return end
    add_part(id)
    give(false)
  end

  -- Gives the last part. Without a lane it waits for other results, and it is said that the pack is at its end.
  local function end_pack(id, done)
    if lane then
      progress.place = -1
      if give_by_lane(true) then return end
      give_part(id)
      if lane.give(outcomes, 0, true) then return end
    else
      add_part(id)
    end
    add(id, PACK_END, done, false)
  end

  -- Shows what is new in the outcomes to the host: bytes first, then how many there are.
  local function show()
    local from, length = outcomes:ref()
    if length > shown then copy(ffi.cast("uint8_t *", progress.outcomes) + shown, from + shown, length - shown) end
    shown = length
    progress.bytes, progress.count = length, part
  end

  -- Whether what was done so far had better go now.
  local function must_give(waited)
    if part == 0 then return false end
    return waited > hold_seconds or shown > ROOM / 2 or (lane and part >= WORTH_GIVING and lane.is_awaited())
  end

  -- Runs the tasks of a pack (async.lua) from place `skip` on, `size` of them at most. Outcomes go back in parts. The place that
  -- was begun is shown before it is looked at how many may be, so that whoever takes the rest of a pack away knows what is
  -- left; what is not run is said at the end.
  local function run_pack(id, skip, input, size, began)
    local first, done = input:decode() + skip, 0
    for _ = 1, skip * 4 do input:decode() end
    for place = 0, size - 1 do
      progress.place = place
      if stop[0] ~= 0 and place + 1 >= stop[0] then break end
      local code, upvalues, data, wants = input:decode(), input:decode(), input:decode(), input:decode()
      if must_give(began - since) or (part > 0 and not quick[code]) then
        give_part(id)
        began = now()
      end
      local status, value, trace = run(code, upvalues, data, 0)
      if wants ~= 0 then outcomes:encode(first + place):encode(status):encode(value) end
      if status == FAILED then add(id, FAILED_IN_PACK, value, trace) end
      part, done = part + 1, done + 1
      local ended = now()
      learn(code, ended - began)
      began = ended
      if #outcomes <= ROOM then
        show()
      else -- a large result: it goes at once
        give_part(id)
        began = now()
      end
    end
    end_pack(id, done)
    return began, done
  end

  local report = ffi.cast("double *", report_place)

  local function report_memory() report[0] = collectgarbage("count") * 1024 end

  -- Runs the packs that come by the lane, until it is taken away. How many tasks were run.
  local function serve(address, turn)
    local input, tasks = string_buffer.new(), 0
    lane = lanes.server(address, turn)
    while true do
      report_memory()
      local id, size = lane.take(input)
      if not id then break end
      local _, done = run_pack(id, 0, input, size, now())
      tasks = tasks + done
    end
    lane = nil
    return tasks
  end

  -- Runs tasks until there are none. Results go back with the request for the next chunk, or before a task that may be slow.
  local function drain(hold)
    hold_seconds, since = hold, now()
    local tasks, chunk = 0, { exchange(true) }
    while chunk[1] do
      local began = now()
      since = began
      for at = 1, #chunk, 5 do
        local id, code = chunk[at], chunk[at + 1]
        if code == PACK then
          local done
          began, done = run_pack(id, chunk[at + 2], string_buffer.new():set(chunk[at + 3]), chunk[at + 4], began)
          tasks = tasks + done
        elseif code == LANE then
          tasks = tasks + serve(chunk[at + 4], chunk[at + 2])
        else
          began, tasks = run_one(id, code, chunk[at + 2], chunk[at + 3], chunk[at + 4], began), tasks + 1
        end
        if stop[0] == 1 then
          give(false)
          return tasks
        end
      end
      chunk = { give(true) }
    end
    return tasks
  end

  return function(hold)
    local tasks = limits.call(drain, hold)
    report_memory()
    return tasks, spent
  end, call_hook
end

return M
