-- A worker's state: it runs onexecute functions, on a thread of its own, with T, require and the modules of a hook's state.

local ffi = require("ffi")
local ship = require("offpath.ship")
local failure = require("offpath.failure")
local prelude = require("offpath.prelude")
local async = require("offpath.async")
local now = require("offpath.monotonic").now

local type, tostring, xpcall, unpack = type, tostring, xpcall, unpack

local M = {}

local QUICK = 0.0002 -- seconds; a task over sooner is expected to be so the next time

-- How a task ended, as async.lua knows it.
local DONE, RESULT, FAILED = async.DONE, async.RESULT, async.FAILED

-- A result crosses as a string; a number becomes one. Other types have no meaning and are said so, once a task.
local function outcome(value, logwarning)
  local kind = type(value)
  if kind == "string" then return RESULT, value end
  if kind == "number" then return RESULT, tostring(value) end
  if kind ~= "nil" then logwarning("onexecute returned a " .. kind .. ", which is ignored: return a string") end
  return DONE, false
end

-- Prepares the state. `load_code(id)` gives the bytecode of a prototype, `exchange(...)` takes results and gives the next
-- tasks, `stop_flag` is the address of an integer that is not zero when a run must end. Returns the drain function.
function M.start(settings, load_code, exchange, stop_flag, directory, roots)
  local names
  T, names = prelude.build(settings)
  T.async = async.unavailable()
  local logwarning = T.logwarning
  prelude.set_path(directory, roots)
  local unpack_function = ship.unpacker(names, load_code)

  local function run(code, upvalues, data)
    local ok, fn = xpcall(unpack_function, failure.handler, code, upvalues)
    if not ok then return FAILED, failure.parts(fn) end
    local done, value = xpcall(fn, failure.handler, data)
    if not done then return FAILED, failure.parts(value) end
    local status, result = outcome(value, logwarning)
    return status, result, false
  end

  local stop = ffi.cast("const volatile int32_t *", stop_flag)
  local quick = {} -- by code: whether its last run was over in no time

  -- Runs tasks until there are none. Results go back with the request for the next chunk; before, when `hold` seconds have
  -- passed or a task may be slow, so that it does not keep the results of quick ones before it.
  return function(hold)
    local results, count, tasks = {}, 0, 0
    local chunk = { exchange(true) }
    while chunk[1] do
      local began = now()
      local held_since = began
      for at = 1, #chunk, 4 do
        local code = chunk[at + 1]
        if count > 0 and (not quick[code] or began - held_since > hold) then
          exchange(false, unpack(results, 1, count))
          results, count, held_since = {}, 0, began
        end
        local status, value, trace = run(code, chunk[at + 2], chunk[at + 3])
        results[count + 1], results[count + 2], results[count + 3], results[count + 4] = chunk[at], status, value, trace
        count, tasks = count + 4, tasks + 1
        local ended = now()
        quick[code], began = ended - began < QUICK, ended
        if stop[0] ~= 0 then
          exchange(false, unpack(results, 1, count))
          return tasks
        end
      end
      chunk = { exchange(true, unpack(results, 1, count)) }
      results, count = {}, 0
    end
    return tasks
  end
end

return M
