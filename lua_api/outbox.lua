-- The outbox of a state: what a batch of hook calls leaves behind, as one flat run of values.
--
-- An effect is its code followed by a fixed number of values (see effects.lua); the host takes the run when the
-- batch ends and walks it. nil is stored as false, so that the run has no holes.

local unpack = unpack

local M = {}

-- Values per crossing: below the C stack limit of LuaJIT (8000), with room for the host's own.
local TAKE = 4000

function M.new()
  local values, length, taken = {}, 0, 0
  local box = {}

  -- Appends an effect with `count` values (at most 8). Written out instead of a vararg loop, which LuaJIT won't compile.
  function box.put(code, count, a, b, c, d, e, f, g, h)
    local v, n = values, length
    v[n + 1] = code
    if count > 0 then v[n + 2] = a or false end
    if count > 1 then v[n + 3] = b or false end
    if count > 2 then v[n + 4] = c or false end
    if count > 3 then v[n + 5] = d or false end
    if count > 4 then v[n + 6] = e or false end
    if count > 5 then v[n + 7] = f or false end
    if count > 6 then v[n + 8] = g or false end
    if count > 7 then v[n + 9] = h or false end
    length = n + 1 + count
  end

  function box.is_empty() return length == 0 end

  -- The next values of the run, as many results; none when it is empty. Called until it returns none.
  function box.take()
    if taken == length then
      values, length, taken = {}, 0, 0
      return
    end
    local first, last = taken + 1, math.min(taken + TAKE, length)
    taken = last
    return unpack(values, first, last)
  end

  return box
end

return M
