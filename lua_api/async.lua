-- T.async (spec 5): work that would block leaves the fast path here, as effects in the outbox, and what comes of it
-- re-enters here, through `complete`.
--
-- Methods take both call forms, T.async:copy(a, b) and T.async.copy(a, b). A wrong argument raises at the script's
-- line. Past the queue limit a method returns nil, "queue full".

local effects = require("offpath.effects")
local failure = require("offpath.failure")
local buffers = require("offpath.buffer")

local xpcall = xpcall

local M = {}

-- Bits of `wants`: which callbacks a task has.
local WANTS_RESULT, WANTS_ERROR = 1, 2

-- How a task ended, as the host says it.
local DONE, RESULT, FAILED = 0, 1, 2

local MAX_POSITION = 2 ^ 53 -- whole numbers are exact up to here

-- What the callbacks of a task need, kept until it is complete.
local function want(task)
  return (task.onresult and WANTS_RESULT or 0) + (task.onerror and WANTS_ERROR or 0)
end

local function check_text(value, method, field, level)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return tostring(value) end
  error(("T.async:%s: '%s' must be a string, not %s"):format(method, field, kind == "nil" and "nil" or "a " .. kind), level + 1)
end

local function check_function(value, field, required, level)
  if type(value) == "function" or (value == nil and not required) then return value end
  error(("T.async:schedule: '%s' must be a function, not %s"):format(field, value == nil and "nil" or "a " .. type(value)), level + 1)
end

local function check_lua_function(value, level)
  check_function(value, "onexecute", true, level + 1)
  if debug.getinfo(value, "S").what == "C" then
    error("T.async:schedule: 'onexecute' must be a Lua function, not a C function", level + 1)
  end
  return value
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
  local tasks, last_id, pending, rejected = {}, 0, 0, 0

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
    context.put(effects.FILE_OPERATION, 6, last_id, context.lease, method, source, target, position)
  end

  local function copy(from, to)
    check_text(from, "copy", "from", 2)
    return file_operation("copy", tostring(from), check_text(to, "copy", "to", 2))
  end

  local function cat(from, to)
    check_text(from, "cat", "from", 2)
    return file_operation("cat", tostring(from), check_text(to, "cat", "to", 2))
  end

  local function rm(file)
    return file_operation("rm", "", check_text(file, "rm", "file", 2))
  end

  local function copybuffer(buffer, file, position)
    if not buffers.is_buffer(buffer) and type(buffer) ~= "string" then
      error("T.async:copybuffer: 'buffer' must be a Buffer or a string, not " .. (buffer == nil and "nil" or "a " .. type(buffer)), 2)
    end
    check_text(file, "copybuffer", "file", 2)
    local at = -1
    if position ~= nil then
      at = tonumber(position)
      if not at or at < 0 or at > MAX_POSITION or at ~= math.floor(at) then
        error("T.async:copybuffer: 'position' must be a whole number from 0 to 2^53", 2)
      end
    end
    local bytes = type(buffer) == "string" and buffer or buffer:tostring()
    return file_operation("copybuffer", bytes, tostring(file), at)
  end

  local function schedule(task)
    if type(task) ~= "table" then
      error("T.async:schedule: takes a table with 'onexecute', not " .. (task == nil and "nil" or "a " .. type(task)), 2)
    end
    local onexecute = check_lua_function(task.onexecute, 2)
    local data = task.data == nil and "" or check_text(task.data, "schedule", "data", 2)
    local entry = {
      onresult = check_function(task.onresult, "onresult", false, 2),
      onerror = check_function(task.onerror, "onerror", false, 2),
      data = data,
      lease = context.lease,
    }
    local timeout = check_timeout(task.timeout, 2)
    if not admit() then return nil, "queue full" end
    local wants = want(entry)
    if wants ~= 0 then tasks[last_id] = entry end
    local id = last_id
    local code, upvalues = pack(onexecute)
    context.put(effects.SCHEDULE, 7, id, context.lease, wants, code, upvalues, data, timeout)
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
  local function call_back(name, fn, entry, value)
    local lease = context.lease
    context.lease = entry.lease
    local ok, failed = xpcall(fn, failure.handler, context.engine, entry.data, value)
    context.lease = lease
    if not ok then context.put(effects.ERROR, 3, name, failure.parts(failed)) end
  end

  local function complete_one(id, status, value)
    local entry = tasks[id]
    tasks[id] = nil
    if entry and status == RESULT and entry.onresult then
      call_back("onresult", entry.onresult, entry, value)
    elseif entry and status == FAILED and entry.onerror then
      call_back("onerror", entry.onerror, entry, value)
    end
    pending = pending - 1
  end

  local host = {}

  -- Completions from the host: id, status, value, three by three.
  function host.complete(...)
    local values = { ... } -- not select(at, ...), which moves all values behind `at` at every turn
    for at = 1, #values, 3 do complete_one(values[at], values[at + 1], values[at + 2]) end
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
