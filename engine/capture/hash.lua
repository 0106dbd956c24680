-- A hash of 32-bit words (Jenkins' one-at-a-time, a word instead of a byte at a time), seeded so that nobody can
-- foresee which keys collide.
local bit = require("bit")

local M = {}

local bxor, lshift, rshift, tobit = bit.bxor, bit.lshift, bit.rshift, bit.tobit

-- Adds a word to a hash, which begins as the seed. In parentheses it is no tail call: a trace has room for few.
function M.mix(hash, word)
  hash = bxor(hash, word)
  hash = tobit(hash + lshift(hash, 10))
  return (bxor(hash, rshift(hash, 6)))
end

-- To be called when all words are in.
function M.finish(hash)
  hash = tobit(hash + lshift(hash, 3))
  hash = bxor(hash, rshift(hash, 11))
  return (tobit(hash + lshift(hash, 15)))
end

return M
