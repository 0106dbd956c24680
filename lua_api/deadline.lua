-- Ends a call that is over its time, wherever in Lua it is. For states that run without the compiler only: compiled code calls
-- no hooks. C functions are not interrupted, and a recursion that catches its own stack overflow leaves a hook no room.

local failure = require("offpath.failure")
local now = require("offpath.monotonic").now

local error, xpcall = error, xpcall
local sethook, getinfo = debug.sethook, debug.getinfo

local M = {}

local EVERY = 1000 -- instructions between two looks at the clock: a look costs about as much as 50 of them

-- Prepares the state, before `names` looks at the libraries. Returns call(seconds, fn, ...): true and a result, or false and
-- what the handler of failure.lua gave; and whether the time was over, which holds whatever the function made of it.
function M.start()
  local deadline, over = 0, false
  local call

  -- Once the time is over, at every instruction: a pcall can catch an error, but not go on. Whoever is back in `call` is out.
  local function expire()
    if getinfo(2, "f").func == call then
      sethook()
      return
    end
    error("timeout", 0)
  end

  local function watch()
    if now() < deadline or getinfo(2, "f").func == call then return end
    over = true
    sethook(expire, "", 1)
    error("timeout", 0)
  end

  function call(seconds, fn, ...)
    deadline, over = now() + seconds, false
    sethook(watch, "", EVERY)
    local done, value = xpcall(fn, failure.handler, ...)
    sethook()
    return done, value, over
  end

  jit.on = function() end
  debug.sethook = function() error("debug.sethook is not available in a worker with async_strict_timeout", 2) end

  -- No hook runs in a handler that is called for an error of a hook: a script's handler could then go on for ever.
  _G.xpcall = function(fn, handler, ...)
    return xpcall(fn, function(raised)
      if over then return raised end
      return handler(raised)
    end, ...)
  end

  return call
end

return M
