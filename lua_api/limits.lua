-- The memory limit of a worker's state, in force while Lua runs in it. It is lifted whenever the host may allocate in the state:
-- LuaJIT would raise out of the middle of a host function, which then keeps its lock for ever, or end the process.

local host = require("offpath.host")

local error, pcall, pairs, type = error, pcall, pairs, type

local M = {}

local put, take_away = nil, nil -- of the host, in a state that has a limit
local in_force = false -- but for the time of a host function

-- Ends the limit of the call that runs: the state will be dropped, and what is left to do in it is not the script's.
function M.retire()
  in_force = false
  if take_away then take_away() end
end

local function back(ok, ...)
  if in_force then put() end
  if ok then return ... end
  error((...), 0)
end

local function out(ok, ...)
  M.retire()
  if ok then return ... end
  error((...), 0)
end

-- Calls a function of Lua within the limit, if there is one.
function M.call(fn, ...)
  if not put then return fn(...) end
  in_force = true
  put()
  return out(pcall(fn, ...))
end

-- A function of the host as Lua may call it in a state with a limit.
function M.unlimited(fn)
  if not put then return fn end
  return function(...)
    take_away()
    return back(pcall(fn, ...))
  end
end

-- Gives the state a limit: one function puts it in force and one takes it away. Before any module keeps a host function.
function M.start(put_in_force, lift)
  put, take_away = put_in_force, lift
  for name, fn in pairs(host) do
    if type(fn) ~= "table" and type(fn) ~= "number" then host[name] = M.unlimited(fn) end
  end
end

return M
