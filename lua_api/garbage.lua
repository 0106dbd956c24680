-- How often the collector of a plugin's state looks through the heap.
--
-- Most states hold little, half a megabyte, and events and packets make much garbage: by default the collector would mark that
-- half megabyte again for each half megabyte of it, which took a third of the time of an event that is a string.

local collectgarbage, newproxy, getmetatable = collectgarbage, newproxy, getmetatable

local M = {}

local SMALL = 8192                 -- kilobytes
local SELDOM, DEFAULT = 400, 200   -- per cent of what is in use that the heap grows to before more is collected

-- Has a small heap collected seldom, and a large one as often as Lua has it. What a script sets stays, until the heap passes
-- from one to the other.
function M.tune()
  local pause = SELDOM
  collectgarbage("setpause", pause)
  -- An object that nobody has is finalized at the end of each cycle.
  local function watch()
    local sentinel = newproxy(true)
    getmetatable(sentinel).__gc = function()
      local wanted = collectgarbage("count") < SMALL and SELDOM or DEFAULT
      if wanted ~= pause then
        pause = wanted
        collectgarbage("setpause", pause)
      end
      watch()
    end
  end
  watch()
end

return M
