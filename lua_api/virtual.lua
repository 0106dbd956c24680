-- A state of a simulation: its time is virtual, its random numbers come from the seed of the run, and what LuaJIT leaves to chance
-- has an order. Runs before any other module is loaded.

local ffi = require("ffi")
local random = require("offpath.random")

local floor, sort, type, next, tostring = math.floor, table.sort, type, next, tostring

local M = {}

local RANKS = { number = 1, string = 2, boolean = 3 }

local function before(a, b)
  local kind, other = type(a), type(b)
  if kind ~= other then return RANKS[kind] < RANKS[other] end
  if kind == "boolean" then return a and not b end
  return a < b
end

-- `pairs` in an order of its own: numbers, then strings, then true and false, each sorted; LuaJIT gives every state another seed
-- for the hashes of strings. Keys of other types come last, as they lie.
local function sorted_pairs(t)
  local keys, others = {}, {}
  for key in next, t do
    local to = RANKS[type(key)] and keys or others
    to[#to + 1] = key
  end
  sort(keys, before)
  for at = 1, #others do keys[#keys + 1] = others[at] end
  local at = 0
  return function()
    local value
    repeat
      at = at + 1
      if keys[at] == nil then return nil end
      value = t[keys[at]]
    until value ~= nil -- what was removed meanwhile
    return keys[at], value
  end, t, nil
end

-- `host` has sim_clock, the address of two doubles: seconds since the beginning, and the epoch at the beginning; and sim_seed, a text.
function M.start(host)
  local clock = ffi.cast("const volatile double *", host.sim_clock)
  local time, date = os.time, os.date
  local stream = random.new(host.sim_seed)

  package.loaded["offpath.monotonic"] = { now = function() return clock[0] end }

  os.time = function(table)
    if table ~= nil then return time(table) end
    return floor(clock[0] + clock[1])
  end
  os.clock = function() return clock[0] end
  os.date = function(format, at) return date(format or "%c", at or floor(clock[0] + clock[1])) end

  math.random = function(first, last)
    if first == nil then return stream:uniform() end
    if last == nil then first, last = 1, first end
    if not (last >= first) then error("bad argument to 'random' (interval is empty)", 2) end
    return stream:integer(first, last)
  end
  math.randomseed = function(seed) stream = random.new(host.sim_seed .. "/" .. tostring(seed)) end

  -- Random numbers begin anew, so that those of a task depend on nothing that ran before it.
  M.reseed = function(name)
    stream = random.new(host.sim_seed .. "/" .. name)
    M.task = host.sim_seed .. "/" .. name
  end

  _G.pairs = sorted_pairs
  pairs = sorted_pairs -- for our own modules, which have an environment of their own

  if host.sim_prints == 0 then
    _G.print = function() end
    io.write = function() return io.stdout end
  end

  M.clock = clock
end

return M
