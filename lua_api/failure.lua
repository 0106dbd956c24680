-- How an error in a script becomes text: the message, and the traceback without the host's own frames.

local M = {}

-- Text for whatever was raised: error(nil) and error({}) included.
local function words(raised)
  local kind = type(raised)
  if kind == "string" then return raised end
  if kind == "table" or kind == "userdata" then
    local ok, text = pcall(tostring, raised)
    if ok and type(text) == "string" then return "error object: " .. text end
    return "error object of type " .. kind
  end
  return "error object: " .. tostring(raised)
end

-- Keeps the script's frames: those of the host are noise to its author.
local function trim(traceback)
  local lines = {}
  for line in traceback:gmatch("[^\n]+") do
    if not line:find("^%s*offpath/") and not line:find("xpcall", 1, true) and not line:find("[C]: at 0x", 1, true) then
      lines[#lines + 1] = line
    end
  end
  return table.concat(lines, "\n")
end

-- Message handler for xpcall: returns one table { message, traceback }.
function M.handler(raised)
  return { words(raised), trim(debug.traceback("", 2)) }
end

-- Message and traceback of what xpcall gave. LuaJIT calls no handler when it is out of memory: that is a bare string.
function M.parts(failed)
  if type(failed) == "table" then return failed[1], failed[2] end
  return words(failed), ""
end

return M
