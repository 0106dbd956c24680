-- Names for values that every state has of its own: the standard library, T and host classes. A value with a name
-- crosses to another state as that name.
--
-- Must be built before a script runs, so that nothing a script stores in a library is taken for a part of it.

local M = {}

local LIBRARIES = { "string", "table", "math", "io", "os", "coroutine", "debug", "bit", "jit", "package", "ffi" }

-- What is in package.loaded and named by `build`: what a script adds to it later is not in another state's.
local OWN = { _G = true }
for _, name in ipairs(LIBRARIES) do OWN[name] = true end

-- Adds a value under a name in both directions; the first name wins.
local function add(names, name, value)
  local kind = type(value)
  if kind ~= "table" and kind ~= "function" then return end
  if names.of[value] == nil then names.of[value] = name end
  names.by[name] = value
end

local function add_members(names, prefix, members)
  for key, value in pairs(members) do
    if type(key) == "string" then add(names, prefix .. "." .. key, value) end
  end
end

-- Builds { of = value -> name, by = name -> value } over the libraries, the global functions, T and `classes`
-- (name -> method table).
function M.build(T, classes)
  local names = { of = {}, by = {} }
  add(names, "_G", _G)
  for key, value in pairs(_G) do
    if type(value) == "function" then add(names, key, value) end
  end
  for _, name in ipairs(LIBRARIES) do
    local library = name == "ffi" and require("ffi") or _G[name]
    add(names, name, library)
    add_members(names, name, library)
  end
  add(names, "T", T)
  add_members(names, "T", T)
  for _, part in ipairs({ "util", "host", "env", "K" }) do add_members(names, "T." .. part, T[part]) end
  if T.sim then add_members(names, "T.sim", T.sim) end
  for name, class in pairs(classes) do add(names, "class:" .. name, class) end
  return names
end

-- The modules that scripts loaded, value -> name, and the functions in them, function -> { module, key }. Built anew
-- at need, since `require` adds to package.loaded at any time.
function M.modules()
  local modules, members = {}, {}
  for name, value in pairs(package.loaded) do
    local hidden = OWN[name] or name:sub(1, 8) == "offpath."
    if not hidden and (type(value) == "table" or type(value) == "function") then
      modules[value] = name
      if type(value) == "table" then
        for key, member in pairs(value) do
          if type(member) == "function" and type(key) == "string" then members[member] = { name, key } end
        end
      end
    end
  end
  return modules, members
end

return M
