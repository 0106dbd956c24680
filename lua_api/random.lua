-- Streams of random numbers that depend on nothing but their name: sfc32 (Chris Doty-Humphrey, PractRand), whose state is 128 bits.
-- It needs sums and shifts of 32 bits only, which are exact in LuaJIT.

local bit = require("bit")

local tobit, bxor, rshift, lshift, rol = bit.tobit, bit.bxor, bit.rshift, bit.lshift, bit.rol
local floor, log, sqrt, cos, pi = math.floor, math.log, math.sqrt, math.cos, math.pi
local error, setmetatable, type = error, setmetatable, type

local M = {}

local Stream = {}
Stream.__index = Stream

-- The next 32 bits, signed.
local function step(s)
  local t = tobit(tobit(s.a + s.b) + s.counter)
  s.counter = tobit(s.counter + 1)
  s.a = bxor(s.b, rshift(s.b, 9))
  s.b = tobit(s.c + lshift(s.c, 3))
  s.c = tobit(rol(s.c, 21) + t)
  return t
end

-- A stream by its name, any string.
function M.new(name)
  local s = setmetatable({ a = 0x2545F491, b = 0x6A09E667, c = -0x61C88647, counter = 1 }, Stream)
  for at = 1, #name do
    s.a = bxor(s.a, name:byte(at))
    step(s)
  end
  s.b = bxor(s.b, #name)
  for _ = 1, 16 do step(s) end
  return s
end

local function check(value, method, what, least)
  if type(value) ~= "number" or not (value > least) or value == math.huge then
    error(("random:%s: %s must be a number above %g"):format(method, what, least), 3)
  end
end

-- Evenly from [low, high), or from [0, 1).
function Stream:uniform(low, high)
  local high_bits, low_bits = rshift(step(self), 5), rshift(step(self), 6)
  local value = (high_bits * 67108864 + low_bits) / 9007199254740992
  if low == nil then return value end
  return low + (high - low) * value
end

-- A whole number from `first` to `last`, both included.
function Stream:integer(first, last) return first + floor(self:uniform() * (last - first + 1)) end

-- Exponential with a mean: gaps between events that know nothing of one another.
function Stream:exponential(mean)
  check(mean, "exponential", "mean", 0)
  return -mean * log(1 - self:uniform())
end

-- Pareto: at least `scale`, with a tail that is the heavier the smaller `shape` is (its mean is endless from 1 down).
function Stream:pareto(shape, scale)
  check(shape, "pareto", "shape", 0)
  return (scale or 1) / (1 - self:uniform()) ^ (1 / shape)
end

-- Normal, by Box and Muller.
function Stream:normal(mean, deviation)
  local radius = sqrt(-2 * log(1 - self:uniform()))
  return (mean or 0) + (deviation or 1) * radius * cos(2 * pi * self:uniform())
end

-- An item of an array, each as likely.
function Stream:choice(items)
  if type(items) ~= "table" or #items == 0 then error("random:choice: takes an array that is not empty", 2) end
  return items[self:integer(1, #items)]
end

return M
