-- HTTPHeader: one header block of a request or response, as it was on the wire (spec 3.7). Parsed at the first
-- question. Bare line feeds and folded lines are accepted, lines without a colon are passed over.
--
-- A repeated header: `get_value` and `match_value` see its first value; `get_all_headers` has one entry, under the
-- first spelling, with all values joined by ", " in wire order (RFC 9110 section 5.3).
local M = {}

local byte, find, lower, match, sub, upper =
  string.byte, string.find, string.lower, string.match, string.sub, string.upper
local concat, setmetatable, tonumber, tostring, type = table.concat, setmetatable, tonumber, tostring, type

local PATTERN_LIMIT = 256 -- compiled patterns kept; past it all are dropped, as a script has few

local HTTPHeader = {}
HTTPHeader.__index = HTTPHeader

local patterns, pattern_count = {}, 0

-- The compiled form of a pattern, from the cache.
local function compiled(pattern)
  local found = patterns[pattern]
  if found then return found end
  if pattern_count >= PATTERN_LIMIT then
    patterns, pattern_count = {}, 0
  end
  found = require("offpath.re2").new(pattern)
  patterns[pattern], pattern_count = found, pattern_count + 1
  return found
end

-- The line that starts at `from`, without its end, and where the next one starts; nil after the last.
local function next_line(raw, from)
  if from > #raw then return nil end
  local stop = find(raw, "\n", from, true)
  if not stop then return sub(raw, from), #raw + 1 end
  local last = stop - 1
  if last >= from and byte(raw, last) == 13 then last = last - 1 end
  return sub(raw, from, last), stop + 1
end

local function parse_start(self, line)
  local status = match(line, "^HTTP/%d[%d%.]*%s+(%d%d%d)")
  if status or find(line, "^HTTP/%d") then
    self.response, self.status = true, tonumber(status) or 0
    return
  end
  local method, path = match(line, "^([%w!#$%%&'*+.^_`|~-]+)%s+(%S+)")
  if method then
    self.request, self.method, self.path = true, method, path
  end
end

-- A text without the blanks around it. By bytes: a pattern would look at a run of blanks once for each of them.
local function trim(text)
  local from, to = 1, #text
  local b = byte(text, from)
  while b == 32 or b == 9 do
    from = from + 1
    b = byte(text, from)
  end
  b = byte(text, to)
  while to >= from and (b == 32 or b == 9) do
    to = to - 1
    b = byte(text, to)
  end
  return sub(text, from, to)
end

-- Adds the header that was read as `parts`, a line and those folded under it, to the names, in order, and the values.
local function add(self, parts)
  local line = concat(parts, " ")
  local colon = find(line, ":", 1, true)
  local name = colon and trim(sub(line, 1, colon - 1)) or ""
  if name == "" then return end
  local key, value = lower(name), trim(sub(line, colon + 1))
  local values = self.values[key]
  if values then
    values[#values + 1] = value
  else
    self.values[key] = { value }
    self.names[#self.names + 1] = name
  end
end

local function parse(self)
  local raw = self.raw
  self.parsed, self.raw = true, nil
  self.method, self.path, self.status, self.names, self.values = "", "", 0, {}, {}
  local line, from = next_line(raw, 1)
  while line == "" do line, from = next_line(raw, from) end
  if not line then return end
  parse_start(self, line)
  local parts
  line, from = next_line(raw, from)
  while line and line ~= "" do
    local first = byte(line, 1)
    if parts and (first == 32 or first == 9) then
      parts[#parts + 1] = trim(line)
    else
      if parts then add(self, parts) end
      parts = { trim(line) }
    end
    line, from = next_line(raw, from)
  end
  if parts then add(self, parts) end
end

-- A HTTPHeader over a raw header block: start line and headers; what follows an empty line is not looked at.
function M.from_block(raw)
  return setmetatable({ raw = raw, parsed = false, request = false, response = false }, HTTPHeader)
end

-- Defines a method that sees a parsed object.
local function method(name, body)
  HTTPHeader[name] = function(self, ...)
    if not self.parsed then parse(self) end
    return body(self, ...)
  end
end

local function first_value(self, name)
  if type(name) ~= "string" then return nil end
  local values = self.values[lower(name)]
  return values and values[1]
end

-- Whether the start line is one of a request.
method("is_request", function(self) return self.request end)

-- Whether the start line is one of a response.
method("is_response", function(self) return self.response end)

-- The request target as sent, query included; "" on a response.
method("get_path", function(self) return self.path end)

-- The request method as sent; "" on a response.
method("get_method", function(self) return self.method end)

-- The status of a response; 0 on a request.
method("get_status", function(self) return self.status end)

-- Whether the request has this method, in any letter case.
method("is_method", function(self, name)
  return self.request and upper(self.method) == upper(tostring(name))
end)

-- The first value of a header, in any letter case of its name, or nil.
method("get_value", first_value)

-- A new table of name to value.
method("get_all_headers", function(self)
  local all = {}
  for _, name in ipairs(self.names) do all[name] = concat(self.values[lower(name)], ", ") end
  return all
end)

-- Whether a RE2 pattern occurs in the first value of a header; false when there is no such header.
method("match_value", function(self, name, pattern)
  local value = first_value(self, name)
  if not value or pattern == nil then return false end
  return compiled(tostring(pattern)):partial_match(value)
end)

return M
