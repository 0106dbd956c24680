-- `local dbg = require "debugger"` (spec 6.1): dbg() stops the script and opens a console where it was called, when a
-- terminal is attached; without one it warns once and goes on. dbg(condition) stops only when the condition is false.
--
-- Frames are numbered from the bottom of the stack: unlike the levels of the debug library, such a number stays right
-- however deep the console itself has gone.
local M = {}

local host = require "offpath.host"
local loglevel = require("offpath.constants").loglevel

local debug, setmetatable, select = debug, setmetatable, select
local concat, format, match, rep = table.concat, string.format, string.match, string.rep

local SHOWN_ITEMS = 20 -- of a table
local PROMPT = "dbg> "

local HELP = [[
c         continue
w, bt     traceback
l         locals and upvalues of the frame
p EXPR    value of an expression
u, d      up to the caller, down again
q         leave the hook with an error
h         this text
Anything else is run as Lua in the frame: expressions are printed, x = 1 assigns to its locals and upvalues.
]]

-- Where the console writes; may be replaced.
function M.write(text)
  io.stdout:write(text)
  io.stdout:flush()
end

-- Number of frames up to the function that calls this one.
local function height()
  local level = 2
  while debug.getinfo(level + 1, "l") do level = level + 1 end
  return level - 1
end

-- The level of a frame, as the function sees it that calls this one.
local function level_of(frame)
  -- height() counts this function too, which is one above its caller.
  return height() - frame
end

local ESCAPES = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ['"'] = '\\"', ["\\"] = "\\\\" }

local function escape(character)
  return ESCAPES[character] or format("\\%03d", character:byte())
end

-- One line of text for a value. Tables show their first items.
local function show(value, inside)
  local kind = type(value)
  if kind == "string" then return '"' .. value:gsub('["\\%c]', escape) .. '"' end
  if kind ~= "table" or inside then return tostring(value) end
  local items, more = {}, false
  for key, item in next, value do
    if #items >= SHOWN_ITEMS then
      more = true
      break
    end
    local name = type(key) == "string" and match(key, "^[%a_][%w_]*$") or "[" .. show(key, true) .. "]"
    items[#items + 1] = name .. " = " .. show(item, true)
  end
  table.sort(items)
  if more then items[#items + 1] = "..." end
  return tostring(value) .. " { " .. concat(items, ", ") .. " }"
end

-- The locals of a frame in order of declaration; of two of one name the later is the visible one.
local function each_local(frame, visit)
  local index = 1
  while true do
    local name, value = debug.getlocal(level_of(frame), index)
    if not name then return end
    if name:sub(1, 1) ~= "(" then visit(name, value, index) end
    index = index + 1
  end
end

local function each_upvalue(func, visit)
  local index = 1
  while true do
    local name, value = debug.getupvalue(func, index)
    if not name then return end
    if name ~= "" then visit(name, value, index) end
    index = index + 1
  end
end

-- Where a name of the frame lives: "local" or "upvalue", its index, its value; nil for a global.
local function lookup(frame, func, wanted)
  local kind, at, found
  each_upvalue(func, function(name, value, index)
    if name == wanted then kind, at, found = "upvalue", index, value end
  end)
  each_local(frame, function(name, value, index)
    if name == wanted then kind, at, found = "local", index, value end
  end)
  return kind, at, found
end

-- The environment of code typed at the console: locals, then upvalues, then the globals of the function.
local function environment(frame, func)
  local globals = getfenv(func)
  return setmetatable({}, {
    __index = function(_, name)
      local kind, _, value = lookup(frame, func, name)
      if kind then return value end
      return globals[name]
    end,
    __newindex = function(_, name, value)
      local kind, index = lookup(frame, func, name)
      if kind == "local" then
        debug.setlocal(level_of(frame), index, value)
      elseif kind == "upvalue" then
        debug.setupvalue(func, index, value)
      else
        globals[name] = value
      end
    end,
  })
end

local function print_results(ok, ...)
  if not ok then return M.write("error: " .. tostring((...)) .. "\n") end
  local count = select("#", ...)
  if count == 0 then return nil end
  local texts = {}
  for index = 1, count do texts[index] = show((select(index, ...))) end
  M.write(concat(texts, "\t") .. "\n")
end

-- Runs text as an expression, or else as a statement, in a frame.
local function evaluate(frame, text)
  local chunk = loadstring("return " .. text, "=console")
  local message
  if not chunk then chunk, message = loadstring(text, "=console") end
  if not chunk then return M.write("error: " .. message .. "\n") end
  local func = debug.getinfo(level_of(frame), "f").func
  setfenv(chunk, environment(frame, func))
  print_results(pcall(chunk))
end

local function describe(info)
  local name = info.what == "main" and "main chunk" or info.name or "function of line " .. info.linedefined
  return format("%s:%d in %s", info.short_src, info.currentline, name)
end

-- The text of a source line, when its file can be read.
local function source_line(info)
  if info.source:sub(1, 1) ~= "@" then return nil end
  local file = io.open(info.source:sub(2), "r")
  if not file then return nil end
  local found
  local number = 0
  for line in file:lines() do
    number = number + 1
    if number == info.currentline then
      found = line
      break
    end
  end
  file:close()
  return found
end

local function print_place(frame)
  local info = debug.getinfo(level_of(frame), "nSl")
  M.write(describe(info) .. "\n")
  local line = source_line(info)
  if line then M.write(rep(" ", 2) .. line .. "\n") end
end

local function print_traceback(frame, top)
  for each = top, 1, -1 do
    local info = debug.getinfo(level_of(each), "nSl")
    M.write((each == frame and "=> " or "   ") .. describe(info) .. "\n")
  end
end

local function print_locals(frame)
  each_local(frame, function(name, value) M.write(format("%s = %s\n", name, show(value))) end)
  local func = debug.getinfo(level_of(frame), "f").func
  each_upvalue(func, function(name, value) M.write(format("%s = %s  (upvalue)\n", name, show(value))) end)
end

-- The nearest Lua frame from `frame` in a direction, or `frame` itself.
local function move(frame, top, step)
  local to = frame + step
  while to >= 1 and to <= top do
    if debug.getinfo(level_of(to), "S").what ~= "C" then return to end
    to = to + step
  end
  M.write(step < 0 and "at the bottom of the stack\n" or "at the top of the stack\n")
  return frame
end

-- Each command takes the frame, the top frame and its argument. It gives the frame to go on with, or nil and true to
-- leave, with an error when the third is true.
local COMMANDS = {
  c = function() return nil, true, false end,
  q = function() return nil, true, true end,
  h = function() M.write(HELP) end,
  w = function(frame, top) print_traceback(frame, top) end,
  l = function(frame) print_locals(frame) end,
  p = function(frame, _, argument) evaluate(frame, argument) end,
  u = function(frame, top)
    local to = move(frame, top, -1)
    if to ~= frame then print_place(to) end
    return to
  end,
  d = function(frame, top)
    local to = move(frame, top, 1)
    if to ~= frame then print_place(to) end
    return to
  end,
}
COMMANDS.bt, COMMANDS.where, COMMANDS.help = COMMANDS.w, COMMANDS.w, COMMANDS.h
COMMANDS.continue, COMMANDS.locals, COMMANDS.quit = COMMANDS.c, COMMANDS.l, COMMANDS.q

-- The console over a frame; gives whether the hook is to be left with an error. The end of input continues.
local function console(top)
  local frame = top
  print_place(frame)
  while true do
    local line = host.console_read(PROMPT)
    if line == nil then return false end
    line = match(line, "^%s*(.-)%s*$")
    local name, argument = match(line, "^(%a+)%s*(.*)$")
    local command = name and COMMANDS[name]
    if command and (argument == "" or name == "p") then
      local to, leave, with_error = command(frame, top, argument)
      if leave then return with_error end
      frame = to or frame
    elseif line ~= "" then
      evaluate(frame, line)
    end
  end
end

local warned = false

-- Whether someone can answer; the first time that nobody can is logged.
local function attached()
  if host.console_attached() then return true end
  if not warned then
    warned = true
    host.log(loglevel.WARN, "debugger: no terminal attached, breaks are passed over")
  end
  return false
end

-- Opens the console at a level, as the function sees it that calls this one.
local function stop_at(level)
  if not attached() then return end
  -- height() counts this function, which is one above the caller.
  local leave = console(height() - level)
  if leave then error("left from the debugger", 0) end
end

-- Opens the console where an error was raised: at the nearest Lua frame. The error goes on anyway.
local function handle(message)
  if attached() then
    M.write("error: " .. tostring(message) .. "\n")
    local level = 2
    while debug.getinfo(level, "S").what == "C" do level = level + 1 end
    console(height() - level + 1)
  end
  return message
end

-- Runs a function; an error opens the console where it was raised. Gives what pcall would.
function M.call(func, ...)
  local count, arguments = select("#", ...), { ... }
  return xpcall(function() return func(unpack(arguments, 1, count)) end, handle)
end

-- Opens the console, then raises the error.
function M.error(message, level)
  if attached() then
    M.write("error: " .. tostring(message) .. "\n")
    stop_at(2)
  end
  level = level or 1
  error(message, level > 0 and level + 1 or 0)
end

-- Gives its arguments back when the first is true; else opens the console, then raises the message.
function M.assert(condition, ...)
  if condition then return condition, ... end
  local message = select("#", ...) > 0 and (...) or "assertion failed!"
  if attached() then
    M.write("error: " .. tostring(message) .. "\n")
    stop_at(2)
  end
  error(message, 0)
end

return setmetatable(M, {
  __call = function(_, ...)
    if select("#", ...) > 0 and (...) then return end
    stop_at(2)
  end,
})
