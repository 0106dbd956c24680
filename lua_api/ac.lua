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

-- The tables of the automaton, by node: `step[node * classes + class]` is the next node, `hit[node]` the pattern that
-- ends there or 0, `link[node]` the nearest suffix of the node where one ends, or 0. Goes breadth first, so that a
-- node's fallback, its longest proper suffix in the trie, is complete before the node.
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

-- The node and position of the next byte, from `at` on, where a pattern ends; nil when there is none.
-- Compiles to one loop without a side exit or an allocation (seen with -jv): everything in it is a local, and the
-- tables are cdata, whose reads need no type checks. Measured at about 1 ns a byte.
local function scan(self, text, node, at)
  local class, classes, step, hit, link = self.class, self.classes, self.step, self.hit, self.link
  for position = at, #text do
    node = step[node * classes + class[byte(text, position)]]
    if hit[node] + link[node] ~= 0 then return node, position end
  end
  return nil, nil
end

local function subject(text)
  if type(text) == "number" then return tostring(text) end
  return type(text) == "string" and text or ""
end

-- Pattern to the 1-based position of the last byte of its first occurrence, for all patterns in the text.
function AC:match_all(text)
  text = subject(text)
  local found, wanted = {}, #self.list
  local node, position = scan(self, text, 0, 1)
  while node do
    local ending = self.hit[node] ~= 0 and node or self.link[node]
    while ending ~= 0 do
      local pattern = self.list[self.hit[ending]]
      -- A pattern found before was found with all its suffixes: the rest of the links is known.
      if found[pattern] then break end
      found[pattern] = position
      wanted = wanted - 1
      ending = self.link[ending]
    end
    if wanted == 0 then break end
    node, position = scan(self, text, node, position + 1)
  end
  return found
end

-- The same for the first occurrence alone; of several patterns that end there, the longest.
function AC:match_one(text)
  local node, position = scan(self, subject(text), 0, 1)
  if not node then return {} end
  local ending = self.hit[node] ~= 0 and node or self.link[node]
  return { [self.list[self.hit[ending]]] = position }
end

return M
