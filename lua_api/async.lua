-- T.async (spec 5): work that would block leaves the fast path here, as effects in the outbox, and what comes of it
-- re-enters here, through `complete`.
--
-- Methods take both call forms, T.async:copy(a, b) and T.async.copy(a, b). A wrong argument raises at the script's
-- line. Past the queue limit a method returns nil, "queue full".

local effects = require("offpath.effects")
local failure = require("offpath.failure")
local buffers = require("offpath.buffer")
local inflight = require("offpath.inflight")
local paths = require("offpath.paths")
local lanes = require("offpath.lane")
local string_buffer = require("string.buffer")

local xpcall = xpcall

local M = {}

-- Bits of `wants`: which callbacks a task has.
local WANTS_RESULT, WANTS_ERROR = 1, 2

-- How a task ended, as the host says it.
local DONE, RESULT, FAILED = 0, 1, 2

-- A pack is a run of scheduled tasks that cross as one value, since crossing one by one costs more than a quick task. Tasks
-- join one when runs of their code are known to be quick. It is a stream of string.buffer values: the first task's id, and per
-- task: code id, upvalues, data, wants. Outcomes come back in packs, too: task id, status, value; those nobody waits for are
-- left out. A pack goes by the lane (lane.lua) while that is open, to a worker that waits as soon as it is worth it.
local PACK_TASKS, PACK_BYTES, LANE_TASKS = 256, 24576, 16

local MAX_POSITION = 2 ^ 53 -- whole numbers are exact up to here

local function check_text(value, method, field, level)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return tostring(value) end
  error(("T.async:%s: '%s' must be a string, not %s"):format(method, field, kind == "nil" and "nil" or "a " .. kind), level + 1)
end

-- A path as the call means it, whatever the working directory is when its turn comes.
local function check_path(value, method, field, level)
  local path = paths.absolute(check_text(value, method, field, level + 1), level + 1)
  return path -- not a tail call, which would leave no frame of this one
end

local function check_function(value, field, required, level)
  if type(value) == "function" or (value == nil and not required) then return value end
  error(("T.async:schedule: '%s' must be a function, not %s"):format(field, value == nil and "nil" or "a " .. type(value)), level + 1)
end

local function check_timeout(value, level)
  if value == nil then return 0 end
  local seconds = tonumber(value)
  if seconds and seconds > 0 and seconds < math.huge then return seconds end
  error("T.async:schedule: 'timeout' must be a positive number of seconds", level + 1)
end

-- Makes T.async for one state, and the host's end of it. `context` has the state's outbox (`put`), the `engine` for
-- callbacks and the `lease` of the running hook; `pack` ships a function (ship.lua).
function M.new(context, pack, limit)
  local async = {}
  local last_id, pending, rejected, seen_id = 0, 0, 0, 0
  local put_entry, take_entry = inflight.new()
  local quick = {} -- by code id
  local pack_stream, pack_first, pack_count, last = string_buffer.new(), 0, 0, nil

  local lane
  local fetched = string_buffer.new() -- outcomes that came by it

  -- Puts an effect into the outbox. What is called after it must not go before it.
  local function put(...)
    if lane then lane.shut() end
    context.put(...)
  end

  -- Sends the pack off: before anything else that must not overtake it, and when the batch ends.
  local function flush_pack()
    if pack_count == 0 then return end
    local count = pack_count
    pack_count = 0
    if lane and lane.is_open() and lane.post(pack_first, count, pack_stream) then
      pack_stream:reset()
    elseif count == 1 then
      put(effects.SCHEDULE, 7, pack_first, 0, last.wants, last.code, last.upvalues, last.data, 0)
      pack_stream:reset()
    else
      put(effects.SCHEDULE_PACK, 3, pack_first, count, pack_stream:get())
    end
  end

  last = { wants = 0, code = 0, upvalues = "", data = "" } -- the last task that joined, in case it stays alone

  local function is_worth_sending()
    if pack_count == PACK_TASKS or #pack_stream > PACK_BYTES then return true end
    return lane and pack_count >= LANE_TASKS and lane.is_open() and lane.is_drained()
  end

  local function join_pack(id, wants, code, upvalues, data)
    if pack_count == 0 then
      pack_first = id
      pack_stream:encode(id)
    end
    pack_count = pack_count + 1
    last.wants, last.code, last.upvalues, last.data = wants, code, upvalues, data
    pack_stream:encode(code):encode(upvalues):encode(data):encode(wants)
    if is_worth_sending() then flush_pack() end
  end

  -- Counts a task in. False when the queue is full.
  local function admit()
    if pending >= limit then
      rejected = rejected + 1
      return false
    end
    pending, last_id = pending + 1, last_id + 1
    return true
  end

  local function file_operation(method, source, target, position)
    if not admit() then return nil, "queue full" end
    flush_pack()
    put(effects.FILE_OPERATION, 6, last_id, context.lease, method, source, target, position)
  end

  local function copy(from, to)
    local source, target = check_path(from, "copy", "from", 2), check_path(to, "copy", "to", 2)
    return file_operation("copy", source, target)
  end

  local function cat(from, to)
    local source, target = check_path(from, "cat", "from", 2), check_path(to, "cat", "to", 2)
    return file_operation("cat", source, target)
  end

  local function rm(file)
    local target = check_path(file, "rm", "file", 2)
    return file_operation("rm", "", target)
  end

  local function copybuffer(buffer, file, position)
    if not buffers.is_buffer(buffer) and type(buffer) ~= "string" then
      error("T.async:copybuffer: 'buffer' must be a Buffer or a string, not " .. (buffer == nil and "nil" or "a " .. type(buffer)), 2)
    end
    local target = check_path(file, "copybuffer", "file", 2)
    local at = -1
    if position ~= nil then
      at = tonumber(position)
      if not at or at < 0 or at > MAX_POSITION or at ~= math.floor(at) then
        error("T.async:copybuffer: 'position' must be a whole number from 0 to 2^53", 2)
      end
    end
    local bytes = type(buffer) == "string" and buffer or buffer:tostring()
    return file_operation("copybuffer", bytes, target, at)
  end

  local function schedule(task)
    if type(task) ~= "table" then
      error("T.async:schedule: takes a table with 'onexecute', not " .. (task == nil and "nil" or "a " .. type(task)), 2)
    end
    local onexecute = check_function(task.onexecute, "onexecute", true, 2)
    local data = task.data == nil and "" or check_text(task.data, "schedule", "data", 2)
    local onresult = check_function(task.onresult, "onresult", false, 2) or false
    local onerror = check_function(task.onerror, "onerror", false, 2) or false
    local timeout = check_timeout(task.timeout, 2)
    local code, upvalues = pack(onexecute)
    if not code then error("T.async:schedule: 'onexecute' must be a Lua function, not a C function", 2) end
    if not admit() then return nil, "queue full" end
    local id, wants = last_id, (onresult and WANTS_RESULT or 0) + (onerror and WANTS_ERROR or 0)
    if wants ~= 0 then put_entry(id, onresult, onerror, data, context.lease) end
    if quick[code] and timeout == 0 and context.lease == 0 then return join_pack(id, wants, code, upvalues, data) end
    flush_pack()
    put(effects.SCHEDULE, 7, id, context.lease, wants, code, upvalues, data, timeout)
  end

  -- Both call forms: the first argument is dropped when it is T.async itself. `fn` raises at level 2: a tail
  -- call leaves no frame of this one.
  local function method(name, fn)
    async[name] = function(first, ...)
      if first == async then return fn(...) end
      return fn(first, ...)
    end
  end

  method("copy", copy)
  method("cp", copy)
  method("cat", cat)
  method("rm", rm)
  method("copybuffer", copybuffer)
  method("schedule", schedule)
  method("pending_items", function() return pending end)

  -- Runs one callback with an engine and the lease of its task, so that work it starts keeps the file too.
  local function call_back(name, fn, data, lease, value)
    local before = context.lease
    context.lease = lease
    local ok, failed = xpcall(fn, failure.handler, context.engine, data, value)
    context.lease = before
    if not ok then context.put(effects.ERROR, 3, name, failure.parts(failed)) end
  end

  local function complete_one(id, status, value)
    local onresult, onerror, data, lease = take_entry(id)
    if onresult and status == RESULT then
      call_back("onresult", onresult, data, lease, value)
    elseif onerror and status == FAILED then
      call_back("onerror", onerror, data, lease, value)
    end
    pending = pending - 1
  end

  local host = {}

  -- Completions from the host: id, status, value, three by three.
  function host.complete(...)
    local values = { ... } -- not select(at, ...), which moves all values behind `at` at every turn
    for at = 1, #values, 3 do complete_one(values[at], values[at + 1], values[at + 2]) end
  end

  local function complete_all(count, input)
    local told = 0
    while #input > 0 do
      local id, status, value = input:decode(), input:decode(), input:decode()
      complete_one(id, status, value) -- counts it down
      told = told + 1
    end
    pending = pending - (count - told)
  end

  -- A pack of outcomes of `count` tasks.
  function host.complete_pack(count, outcomes)
    complete_all(count, string_buffer.new():set(outcomes))
  end

  -- What came by the lane: of how many tasks.
  function host.complete_lane()
    local count = lane.fetch(fetched)
    complete_all(count, fetched)
    return count
  end

  -- Whether runs of a code are over in no time.
  function host.note_quick(code, is_quick)
    quick[code] = is_quick or nil
  end

  host.flush_pack = flush_pack

  -- Whether nothing was called since it was last asked.
  function host.is_quiet()
    local before = seen_id
    seen_id = last_id
    return before == last_id
  end

  -- Opens the way past the host, at the address of its memory.
  function host.use_lane(address)
    lane = lanes.poster(address)
  end

  -- Puts the bytecode of a new prototype into the outbox, before a task that needs it.
  function host.put_code(id, bytecode)
    put(effects.CODE, 2, id, bytecode)
  end

  -- Allows fewer pending items than the host does.
  function host.lower_limit(own)
    limit = math.min(limit, own)
  end

  -- Completions of tasks that have no callback for how they ended.
  function host.settle(count)
    pending = pending - count
  end

  -- Tells the host how many tasks were refused since it last asked.
  function host.report_rejected()
    if rejected == 0 then return end
    context.put(effects.REJECTED, 1, rejected)
    rejected = 0
  end

  return async, host
end

M.DONE, M.RESULT, M.FAILED = DONE, RESULT, FAILED

-- T.async as a worker sees it: there is nothing to leave from there.
function M.unavailable()
  local function refuse()
    error("T.async is not available inside onexecute: schedule from onresult instead", 2)
  end
  return setmetatable({}, { __index = function() return refuse end })
end

return M
