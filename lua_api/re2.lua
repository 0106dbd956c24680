-- T.re2: RE2 patterns (spec 3.9, 4.7). The pattern lives on the host side; each match crosses once, there and back.
-- Texts are bytes, of any value. A pattern that does not compile is logged and never matches.
local M = {}

local host = require "offpath.host"
local loglevel = require("offpath.constants").loglevel

local concat, format = table.concat, string.format
local setmetatable, tostring, type = setmetatable, tostring, type

-- Options and their defaults, in the order in which they are given to the host.
local OPTIONS = {
  { "utf8", true },
  { "posix_syntax", false },
  { "longest_match", false },
  { "literal", false },
  { "never_nl", false },
  { "never_capture", false },
  { "case_sensitive", true },
}

local ALL_GROUPS = -1

local RE2 = {}
RE2.__index = RE2

-- The names of the options that are on, separated by commas.
local function option_names(options)
  local names = {}
  for _, option in ipairs(OPTIONS) do
    local value = options[option[1]]
    if value == nil then value = option[2] end
    if value then names[#names + 1] = option[1] end
  end
  return concat(names, ",")
end

local function never_matches()
  return false
end

-- A RE2 object for a pattern. `options` is a table of booleans; `log_errors = false` keeps a bad pattern quiet.
function M.new(pattern, options)
  if type(options) ~= "table" then options = {} end
  local matcher, message
  if type(pattern) == "string" or type(pattern) == "number" then
    matcher, message = host.re2_compile(tostring(pattern), option_names(options))
  else
    message = "a pattern must be a string, not " .. type(pattern)
  end
  if not matcher and options.log_errors ~= false then
    host.log(loglevel.ERROR, format("T.re2(%q): %s", tostring(pattern), message))
  end
  return setmetatable({ matcher = matcher or never_matches }, RE2)
end

-- Matches with the number of groups wanted; no text, no match.
local function run(self, text, full, groups)
  if type(text) == "number" then text = tostring(text) end
  if type(text) ~= "string" then return false end
  return self.matcher(text, full, groups)
end

-- Whether the pattern occurs in the text.
function RE2:partial_match(text)
  return (run(self, text, false, 0))
end

-- Whether the pattern is the whole text.
function RE2:full_match(text)
  return (run(self, text, true, 0))
end

-- true and the first group, or false, nil. A pattern without groups does not match, as in RE2 itself.
function RE2:partial_match_c1(text)
  local matched, first = run(self, text, false, 1)
  return matched, first
end

-- true and the first two groups, or false.
function RE2:partial_match_c2(text)
  local matched, first, second = run(self, text, false, 2)
  return matched, first, second
end

-- true and all groups, "" for those that took no part, or false.
function RE2:partial_match_n(text)
  return run(self, text, false, ALL_GROUPS)
end

-- The same for a pattern that must be the whole text.
function RE2:full_match_n(text)
  return run(self, text, true, ALL_GROUPS)
end

return M
