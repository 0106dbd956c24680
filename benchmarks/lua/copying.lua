-- The two blocking ways to copy a file that scripts use, and where a copy goes.

local M = {}

-- In Lua: read everything, write everything.
function M.read_write(from, to)
  local source = assert(io.open(from, "rb"))
  local data = source:read("*a")
  source:close()
  local target = assert(io.open(to, "wb"))
  assert(target:write(data))
  assert(target:close())
end

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- With the command.
function M.cp(from, to)
  local status = os.execute("cp " .. quoted(from) .. " " .. quoted(to))
  if status ~= 0 and status ~= true then error("cp " .. from .. " ended with " .. tostring(status)) end
end

-- The same name in the output directory, which T.args tells.
function M.target(path)
  return T.args .. "/" .. path:match("^.+/(.+)$")
end

return M
