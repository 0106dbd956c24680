-- T.ac: search for many strings at once (Aho-Corasick; spec 3.8, 4.7). The automaton is a dense table over classes
-- of bytes, so a text costs one table step a byte, whatever the number of patterns.
local M = {}

local ffi = require "ffi"

local byte, setmetatable, tostring, type = string.byte, setmetatable, tostring, type

local ints_t = ffi.typeof("int32_t[?]")

local AC = {}
AC.__index = AC

-- Distinct, non-empty patterns as strings. An empty one would be everywhere, so it is never reported.
local function distinct(patterns)
  local list, seen = {}, {}
  for _, pattern in ipairs(type(patterns) == "table" and patterns or {}) do
    if type(pattern) == "number" then pattern = tostring(pattern) end
    if type(pattern) == "string" and pattern ~= "" and not seen[pattern] then
      seen[pattern] = true
      list[#list + 1] = pattern
    end
  end
  return list
end

-- A class for each byte that occurs in a pattern, 0 for all others.
local function classify(list)
  local class, count = ffi.new(ints_t, 256), 1
  for _, pattern in ipairs(list) do
    for at = 1, #pattern do
      local value = byte(pattern, at)
      if class[value] == 0 then
        class[value] = count
        count = count + 1
      end
    end
  end
  return class, count
end

-- The trie of the patterns: its nodes' children by class, which pattern ends in a node, and the number of nodes.
local function build_trie(list, class)
  local children, ends, count = { [0] = {} }, {}, 1
  for index, pattern in ipairs(list) do
    local node = 0
    for at = 1, #pattern do
      local kind = class[byte(pattern, at)]
      local child = children[node][kind]
      if not child then
        child = count
        count = count + 1
        children[node][kind], children[child] = child, {}
      end
      node = child
    end
    ends[node] = index
  end
  return children, ends, count
end

-- The tables of the automaton. `hit[node]` is the pattern that ends at a node or 0, `link[node]` the nearest suffix of
-- the node where one ends, or 0. `step[state + class]` is the next state; a state is the row of its node in `step`, and
-- negative when a pattern ends there. Goes breadth first, so that a node's fallback, its longest proper suffix in the
-- trie, is complete before the node.
local function build_tables(list, class, classes)
  local children, ends, count = build_trie(list, class)
  local step, hit, link = ffi.new(ints_t, count * classes), ffi.new(ints_t, count), ffi.new(ints_t, count)
  local fallback = ffi.new(ints_t, count)
  local queue, head = { 0 }, 1
  while queue[head] do
    local node = queue[head]
    head = head + 1
    hit[node] = ends[node] or 0
    local back = fallback[node]
    link[node] = hit[back] ~= 0 and back or link[back]
    for kind = 0, classes - 1 do
      local child = children[node][kind]
      local other = node == 0 and 0 or step[back * classes + kind]
      step[node * classes + kind] = child or other
      if child then
        fallback[child] = other
        queue[#queue + 1] = child
      end
    end
  end
  for index = 0, count * classes - 1 do
    local node = step[index]
    step[index] = (hit[node] ~= 0 or link[node] ~= 0) and -node * classes or node * classes
  end
  return step, hit, link
end

-- An AC object for an array of strings.
function M.new(patterns)
  local list = distinct(patterns)
  local class, classes = classify(list)
  local step, hit, link = build_tables(list, class, classes)
  return setmetatable({
    list = list,
    class = class,
    classes = classes,
    step = step,
    hit = hit,
    link = link,
  }, AC)
end

-- The state and position of the next byte, from `at` on, where a pattern ends; nil when there is none.
-- Compiles to one loop without an allocation (seen in the trace events of `jit.attach`). States are rows, not nodes, as
-- a multiplication would take the index through floating point. Measured at about 2 ns a byte.
local function scan(self, text, state, at)
  local class, step = self.class, self.step
  for position = at, #text do
    state = step[state + class[byte(text, position)]]
    if state < 0 then return -state, position end
  end
  return nil, nil
end

-- The nearest node on the fallback path of a state, itself included, where a pattern ends.
local function ending_of(self, state)
  local node = state / self.classes
  return self.hit[node] ~= 0 and node or self.link[node]
end

local function subject(text)
  if type(text) == "number" then return tostring(text) end
  return type(text) == "string" and text or ""
end

-- Pattern to the 1-based position of the last byte of its first occurrence, for all patterns in the text.
function AC:match_all(text)
  text = subject(text)
  local found, wanted = {}, #self.list
  local state, position = scan(self, text, 0, 1)
  while state do
    local ending = ending_of(self, state)
    while ending ~= 0 do
      local pattern = self.list[self.hit[ending]]
      -- A pattern found before was found with all its suffixes: the rest of the links is known.
      if found[pattern] then break end
      found[pattern] = position
      wanted = wanted - 1
      ending = self.link[ending]
    end
    if wanted == 0 then break end
    state, position = scan(self, text, state, position + 1)
  end
  return found
end

-- The same for the first occurrence alone; of several patterns that end there, the longest.
function AC:match_one(text)
  local state, position = scan(self, subject(text), 0, 1)
  if not state then return {} end
  local ending = ending_of(self, state)
  return { [self.list[self.hit[ending]]] = position }
end

return M
