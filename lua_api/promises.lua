-- Answers: what `engine.request` gets of a hook, T.promise() for those that come later, and T.host.call, the functions that the
-- host has exposed.
--
-- A promise is settled once, by promise:resolve(value) or promise:reject(message); what comes after is ignored. Functions given
-- to promise:onresult(function(engine, value)) and promise:onerror(function(engine, message)) run then, or at once.

local host = require("offpath.host")
local effects = require("offpath.effects")
local failure = require("offpath.failure")
local plain = require("offpath.plain")

local format, tostring, type, error, select = string.format, tostring, type, error, select
local getmetatable, setmetatable, xpcall = getmetatable, setmetatable, xpcall

local M = {}

local WAITS, RESOLVED, REJECTED = 0, 1, 2

-- `context`: put, engine, time. `end_batch` as in events.lua. Returns what scripts see and what the host calls.
function M.new(context, end_batch)
  local Promise = { __opaque = "a promise belongs to its state, resolve it in onresult" }
  Promise.__index = Promise
  local put, last_id, calls = context.put, 0, {}

  local function promise()
    return setmetatable({ status = WAITS, waiting = {} }, Promise)
  end

  local function run(name, fn, value)
    local ok, raised = xpcall(fn, failure.handler, context.engine, value)
    if not ok then put(effects.ERROR, 3, name, failure.parts(raised)) end
  end

  local function settle(self, status, value, written)
    if self.status ~= WAITS then return end
    self.status, self.value, self.written = status, value, written
    if self.asked then put(effects.ANSWER, 3, self.asked, status == RESOLVED, written) end
    local waiting = self.waiting
    self.waiting = nil
    for at = 1, #waiting do
      if waiting[at].status == status then run(waiting[at].name, waiting[at].fn, value) end
    end
  end

  local function check(self, method)
    if type(self) ~= "table" or getmetatable(self) ~= Promise then
      error(format("promise:%s: call it with a colon, on a promise", method), 3)
    end
  end

  function Promise:resolve(value)
    check(self, "resolve")
    local written, wrong = plain.write(value, "the answer")
    if not written then error("promise:resolve: " .. wrong, 2) end
    settle(self, RESOLVED, value, written)
  end

  function Promise:reject(message)
    check(self, "reject")
    settle(self, REJECTED, tostring(message), tostring(message))
  end

  local function when(name, status)
    Promise[name] = function(self, fn)
      check(self, name)
      if type(fn) ~= "function" then error(format("promise:%s: takes a function, not a %s", name, type(fn)), 2) end
      if self.status == WAITS then
        self.waiting[#self.waiting + 1] = { status = status, name = name, fn = fn }
      elseif self.status == status then
        run(name, fn, self.value)
      end
      return self
    end
  end

  when("onresult", RESOLVED)
  when("onerror", REJECTED)

  -- Calls an exposed function: its result, or a promise when it is a coroutine function.
  local function call(name, ...)
    local written, wrong = plain.write_list("argument", select("#", ...), ...)
    if not written then error(format("T.host.call.%s: %s", name, wrong), 3) end
    local status, answer = host.call(name, written)
    if status == "value" then
      local value, refused = plain.read(answer, true)
      if refused then error(format("T.host.call.%s: its result holds a number too large, or text that is no UTF-8", name), 3) end
      return value
    end
    if status ~= "later" then error(format("T.host.call.%s: %s", name, answer), 3) end
    last_id = last_id + 1
    calls[last_id] = promise()
    put(effects.CALL, 3, last_id, name, answer)
    return calls[last_id]
  end

  local script = { promise = promise }
  script.call = setmetatable({}, {
    __index = function(_, name)
      return function(...)
        local result = call(tostring(name), ...)
        return result -- not a tail call, which would leave no frame of this one
      end
    end,
    __newindex = function() error("T.host.call: functions are exposed by the host", 2) end,
  })

  local ends = {}

  -- Gives an event to onevent and asks for its answer. true for none, false when it raised, a number for a promise that is
  -- not settled yet, else the answer; with what it was rejected with as second value when that is false.
  function ends.ask(block, time, topic, event)
    context.time = time
    local ok, answer = xpcall(block.onevent, failure.handler, context.engine, time, topic, event)
    local first, second = true, nil
    if not ok then
      local message, traceback = failure.parts(answer)
      put(effects.ERROR, 3, "onevent", message, traceback)
      first, second = false, message
    elseif type(answer) == "table" and getmetatable(answer) == Promise then
      if answer.status == RESOLVED then
        first = answer.written
      elseif answer.status == REJECTED then
        first, second = false, answer.value
      else
        if not answer.asked then
          last_id = last_id + 1
          answer.asked = last_id
        end
        first = answer.asked
      end
    elseif answer ~= nil then
      local written, wrong = plain.write(answer, "the answer")
      first = written
      if not written then
        local at = debug.getinfo(block.onevent, "S")
        first, second = false, format("%s:%d: %s", at.short_src, at.linedefined, wrong)
        put(effects.ERROR, 3, "onevent", second, "")
      end
    end
    end_batch()
    return first, second
  end

  -- A coroutine function has ended: the value it returned, written, or the message of what it raised.
  function ends.answered(time, id, ok, answer)
    context.time = time
    local waiting = calls[id]
    calls[id] = nil
    if not waiting then return end
    if not ok then return settle(waiting, REJECTED, answer, answer) end
    local value, refused = plain.read(answer, true)
    if refused then return settle(waiting, REJECTED, "the result can't cross", "the result can't cross") end
    settle(waiting, RESOLVED, value, answer)
  end

  return script, ends
end

-- T.promise and T.host.call as a worker sees them.
function M.unavailable(name)
  return function() error(name .. " is not available inside onexecute: use it in onresult", 2) end
end

return M
