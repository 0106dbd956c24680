-- T.log and its kin (spec 4.3), in hook states and workers alike: every line goes to the host with its level.
local M = {}

local loglevel = require("offpath.constants").loglevel

local select, tonumber, tostring = select, tonumber, tostring

-- A level as scripts give it: a number or numeric text, cut to the levels there are.
local function level_number(value)
  local level = tonumber(value)
  if not level or level ~= level then return loglevel.DEBUG end
  if level < loglevel.EMERG then return loglevel.EMERG end
  if level > loglevel.DEBUG then return loglevel.DEBUG end
  return level - level % 1
end

-- The logging functions by their names in T, over `write(level_number, text)`.
function M.build(write)
  local function at_level(level)
    return function(text)
      write(level, tostring(text))
    end
  end

  -- A single argument is the text, at level DEBUG.
  local function log(...)
    local level, text = ...
    if select("#", ...) < 2 then
      level, text = loglevel.DEBUG, level
    end
    write(level_number(level), tostring(text))
  end

  return {
    log = log,
    logerror = at_level(loglevel.ERROR),
    logwarning = at_level(loglevel.WARN),
    loginfo = at_level(loglevel.INFO),
    logdebug = at_level(loglevel.DEBUG),
  }
end

return M
