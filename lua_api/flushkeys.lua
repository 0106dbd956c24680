-- Runs hooks of a counter group monitor over many keys in one crossing (spec 2.4). Keys come as one text with their lengths, and
-- values, votes and flags lie in memory of the host, which is written to in place.

local ffi = require("ffi")
local effects = require("offpath.effects")
local failure = require("offpath.failure")
local now = require("offpath.monotonic").now

local cast, floor, sub, tonumber, type, xpcall = ffi.cast, math.floor, string.sub, tonumber, type, xpcall
local handler = failure.handler

local M = {}

local lengths_t, values_t, bytes_t = ffi.typeof("uint32_t *"), ffi.typeof("double *"), ffi.typeof("uint8_t *")

-- How each hook is called: with a key's place `at` among the values, of which there are `meters` for each key.
local function metrics_at(values, at, meters)
  local metrics = {}
  for meter = 1, meters do metrics[meter] = values[at * meters + meter - 1] end
  return metrics
end

local CALLS = {
  metrics = function(fn, engine, time, key, values, at, meters)
    return xpcall(fn, handler, engine, time, key, metrics_at(values, at, meters))
  end,
  metric = function(fn, engine, _, key, values, at)
    return xpcall(fn, handler, engine, key, values[at])
  end,
  key = function(fn, engine, time, key)
    return xpcall(fn, handler, engine, time, key)
  end,
}

local SHAPES = {
  onflushfilter = "metrics", onflush = "metrics", onupdate = "metrics",
  ontopperflushfilter = "metric", ontopperflush = "metric",
  onnewkey = "key",
}

-- Puts the values in place that a filter gave: -1 leaves one as it is. Whether there were any.
local function override(values, at, meters, overrides)
  local changed = false
  for meter = 1, meters do
    local value = tonumber(overrides[meter])
    if value and value >= 0 and value < math.huge then
      values[at * meters + meter - 1], changed = value, true
    end
  end
  return changed
end

-- Returns run(filter, hook, time, seconds, keys, lengths, values, votes, changes, first, count, meters), which calls the hook
-- named `filter`, if any, for each key, and marks the vote of those kept; and the hook named `hook`, if any, for those whose vote is
-- marked. It ends when all are done or so many seconds are over: how often the filter was called, how often the hook, and
-- where it came to, counted from 0. Keys before `first` are passed over. With `changes` a filter may override values, and the
-- byte of such a key is set.
function M.start(context, block, complain)
  local function failed(name, what) context.put(effects.ERROR, 3, name, failure.parts(what)) end

  return function(filter, hook, time, seconds, keys, lengths, values, votes, changes, first, count, meters)
    local engine = context.engine
    local filtering, flushing = filter and block[filter], hook and block[hook]
    local call_filter, call_hook = CALLS[SHAPES[filter]], CALLS[SHAPES[hook]]
    lengths, values, votes = cast(lengths_t, lengths), cast(values_t, values), cast(bytes_t, votes)
    changes = changes ~= 0 and cast(bytes_t, changes) or nil
    context.time, time = time, floor(time)
    local offset = 0
    for at = 0, first - 1 do offset = offset + lengths[at] end
    local asked, called, at, until_ = 0, 0, first, now() + seconds
    while at < count do
      local key = sub(keys, offset + 1, offset + lengths[at])
      offset = offset + lengths[at]
      if filtering then
        asked = asked + 1
        local ok, keep, overrides = call_filter(filtering, engine, time, key, values, at, meters)
        if not ok then
          failed(filter, keep)
          votes[at] = 1
        elseif keep ~= false then
          if keep ~= true then complain(filter) end
          votes[at] = 1
          if changes and type(overrides) == "table" and override(values, at, meters, overrides) then changes[at] = 1 end
        end
      end
      if flushing and votes[at] ~= 0 then
        called = called + 1
        local ok, wrong = call_hook(flushing, engine, time, key, values, at, meters)
        if not ok then failed(hook, wrong) end
      end
      at = at + 1
      if now() > until_ then break end
    end
    return asked, called, at
  end
end

return M
