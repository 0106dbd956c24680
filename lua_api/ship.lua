-- Ships a function to another state: its bytecode once per prototype, its upvalues by value, every time.
--
-- Cross by value: nil, boolean, number, string, tables (deep, with metatables, cycles and sharing kept), Lua functions with
-- their own upvalues (cells shared by two functions stay shared). Cross by name: what names.lua lists, and modules of
-- package.loaded. All else arrives as a value that raises when it is used, naming the upvalue and the reason.
--
-- The graph of an upvalue set is a stream of string.buffer values:
--   node count, then per node: kind and what makes an empty one of it;
--   cell count, then per cell: a value;
--   per table node: metatable, pair count, pairs; per function node: upvalue count, cell numbers.
-- A value is 0 and the scalar itself, or the number of a node. Node 1 is the function.

local buffer = require("string.buffer")
local funcinfo = require("jit.util").funcinfo
local names_of = require("offpath.names")

local type, rawget, next = type, rawget, next
local getupvalue, setupvalue = debug.getupvalue, debug.setupvalue
local upvalueid, upvaluejoin = debug.upvalueid, debug.upvaluejoin
local getmetatable = debug.getmetatable

local M = {}

local TABLE, FUNCTION, NAMED, MODULE, MEMBER, REFUSED = 1, 2, 3, 4, 5, 6

local SCALAR = { ["nil"] = true, boolean = true, number = true, string = true }

-- Steps of a path that are no key of a table and no upvalue.
local METATABLE, KEY = "'s metatable", "'s key"

local SHOWN_STEPS = 8 -- at either end of a path

local REASONS = {
  userdata = "a userdata belongs to the state that made it",
  cdata = "an FFI object belongs to the state that made it",
  thread = "a coroutine belongs to the state that made it",
  proto = "a prototype belongs to the state that made it",
}

-- Makes a packer for the state that `names` describes. `new_code(id, bytecode)` is called once per prototype.
function M.packer(names, new_code)
  local code_ids, code_count = {}, 0
  local modules, members -- looked up once a call, and only when it meets a table or function without a name

  -- The id of a prototype; a closure made anew at every call of a hook has the same one.
  local function code_of(proto, fn)
    local id = code_ids[proto]
    if id then return id end
    code_count = code_count + 1
    code_ids[proto] = code_count
    new_code(code_count, string.dump(fn))
    return code_count
  end

  -- What kind of node a value is, and what the other side needs to make an empty one.
  local function classify(value)
    local name = names.of[value]
    if name then return NAMED, name end
    if not modules then modules, members = names_of.modules() end
    if modules[value] then return MODULE, modules[value] end
    local kind = type(value)
    if kind == "table" then
      local metatable = getmetatable(value)
      local opaque = type(metatable) == "table" and rawget(metatable, "__opaque")
      if opaque then return REFUSED, opaque end
      return TABLE
    end
    if kind == "function" then
      if members[value] then return MEMBER, members[value] end
      local proto = funcinfo(value).proto
      if proto then return FUNCTION, code_of(proto, value) end
      return REFUSED, "a C function belongs to the state that made it"
    end
    return REFUSED, REASONS[kind] or ("a " .. kind .. " cannot cross")
  end

  local function pack(fn)
    local out = buffer.new()
    local index, nodes, kinds, details, count = {}, {}, {}, {}, 0
    local parents, steps = {}, {} -- the way to each node, put together only for one that is refused
    local cell_index, cells, cell_count = {}, {}, 0

    local function visit(value, parent, step)
      if SCALAR[type(value)] or index[value] then return end
      count = count + 1
      index[value], nodes[count], parents[count], steps[count] = count, value, parent, step
      kinds[count], details[count] = classify(value)
    end

    local function visit_table(value, node)
      local metatable = getmetatable(value)
      if metatable then visit(metatable, node, METATABLE) end
      for key, item in next, value do
        visit(key, node, KEY)
        visit(item, node, key)
      end
    end

    local function visit_function(value, node)
      local slot = 1
      while true do
        local name, item = getupvalue(value, slot)
        if not name then return end
        local id = upvalueid(value, slot)
        if not cell_index[id] then
          cell_count = cell_count + 1
          cell_index[id], cells[cell_count] = cell_count, item
          visit(item, node, name)
        end
        slot = slot + 1
      end
    end

    -- The path of a node from the upvalue on, as a script would write it. The middle of a long one is left out.
    local function path_of(node)
      local parts = {}
      while node ~= 1 do
        local parent, step = parents[node], steps[node]
        local text
        if kinds[parent] == FUNCTION then
          text = parent == 1 and step or "'s " .. step
        elseif step == METATABLE or step == KEY then
          text = step
        elseif type(step) == "string" then
          text = "." .. step
        else
          text = "[" .. (SCALAR[type(step)] and tostring(step) or "a " .. type(step)) .. "]"
        end
        parts[#parts + 1] = text
        node = parent
      end
      local shown = {}
      for at = #parts, 1, -1 do
        if at > #parts - SHOWN_STEPS or at <= SHOWN_STEPS then
          shown[#shown + 1] = parts[at]
        elseif at == SHOWN_STEPS + 1 then
          shown[#shown + 1] = "..."
        end
      end
      return table.concat(shown)
    end

    local function put(value)
      local node = index[value]
      if node then
        out:encode(node)
      else
        out:encode(0)
        out:encode(value)
      end
    end

    local function put_node(node)
      out:encode(kinds[node])
      if kinds[node] == REFUSED then
        out:encode(("upvalue '%s' cannot cross to a worker: %s"):format(path_of(node), details[node]))
      elseif kinds[node] == MEMBER then
        out:encode(details[node][1])
        out:encode(details[node][2])
      elseif kinds[node] ~= TABLE then
        out:encode(details[node])
      end
    end

    local function put_table(value)
      put(getmetatable(value))
      local pair_count = 0
      for _ in next, value do pair_count = pair_count + 1 end
      out:encode(pair_count)
      for key, item in next, value do
        put(key)
        put(item)
      end
    end

    local function put_function(value)
      local ids, slot = {}, 1
      while getupvalue(value, slot) do
        ids[slot] = cell_index[upvalueid(value, slot)]
        slot = slot + 1
      end
      out:encode(#ids)
      for _, id in ipairs(ids) do out:encode(id) end
    end

    visit(fn)
    local done = 0
    while done < count do -- a worklist, not recursion: a long linked list must not exhaust the stack
      done = done + 1
      if kinds[done] == TABLE then
        visit_table(nodes[done], done)
      elseif kinds[done] == FUNCTION then
        visit_function(nodes[done], done)
      end
    end

    out:encode(count)
    for node = 1, count do put_node(node) end
    out:encode(cell_count)
    for cell = 1, cell_count do put(cells[cell]) end
    for node = 1, count do
      if kinds[node] == TABLE then
        put_table(nodes[node])
      elseif kinds[node] == FUNCTION then
        put_function(nodes[node])
      end
    end
    return out:get()
  end

  -- The upvalues that a code was last packed with, when all of them were scalars, and what came of it: a closure whose
  -- upvalues are unchanged is not packed again.
  local seen = {}

  local function unchanged(known, fn, upvalue_count)
    for slot = 1, upvalue_count do
      local _, value = getupvalue(fn, slot)
      if value ~= known[slot] or not SCALAR[type(value)] then return false end
    end
    return true
  end

  local function remember(code, fn, upvalue_count, packed)
    local known = { packed = packed }
    for slot = 1, upvalue_count do
      local _, value = getupvalue(fn, slot)
      if not SCALAR[type(value)] then return end
      known[slot] = value
    end
    seen[code] = known
  end

  -- The function asked for last: to ask LuaJIT for a prototype costs about a microsecond, as it makes a table.
  local last_fn, last_code, last_upvalue_count

  local function look_up(fn)
    local info = funcinfo(fn)
    if not info.proto then return nil end
    last_fn, last_upvalue_count = fn, info.upvalues
    last_code = code_ids[info.proto] or code_of(info.proto, fn)
    return last_code
  end

  -- Packs a Lua function. Returns the id of its code and its upvalues as a string ("" when it has none); nil for a C function.
  return function(fn)
    if fn ~= last_fn and not look_up(fn) then return nil end
    local code, upvalue_count = last_code, last_upvalue_count
    if upvalue_count == 0 then return code, "" end
    local known = seen[code]
    if known and unchanged(known, fn, upvalue_count) then return code, known.packed end
    modules, members = nil, nil
    local packed = pack(fn)
    remember(code, fn, upvalue_count, packed)
    return code, packed
  end
end

-- A value that raises `message` whatever is done with it.
local function refused(message)
  local value = newproxy(true)
  local metatable = getmetatable(value)
  local function raise() error(message, 2) end
  for _, event in ipairs({
    "index", "newindex", "call", "concat", "len", "unm", "add", "sub", "mul", "div", "mod", "pow", "lt", "le", "eq",
  }) do
    metatable["__" .. event] = raise
  end
  metatable.__tostring = function() return "<" .. message .. ">" end
  return value
end

-- Makes an unpacker for the state that `names` describes. `load_code(id)` gives the bytecode of a prototype.
function M.unpacker(names, load_code)
  local bytecode = {}

  -- A new closure each time: upvalues belong to one task, and functions of one graph may share a prototype.
  local function instantiate(id)
    local code = bytecode[id]
    if not code then
      code = load_code(id)
      bytecode[id] = code
    end
    return assert(loadstring(code))
  end

  local function make(kind, detail, key)
    if kind == TABLE then return {} end
    if kind == FUNCTION then return instantiate(detail) end
    if kind == REFUSED then return refused(detail) end
    if kind == NAMED then
      local value = names.by[detail]
      if value == nil then return refused(("'%s' does not exist in a worker"):format(detail)) end
      return value
    end
    local ok, module = pcall(require, detail)
    if not ok then return refused(("module '%s' cannot be loaded in a worker: %s"):format(detail, tostring(module))) end
    if kind == MODULE then return module end
    local member = type(module) == "table" and module[key]
    if type(member) == "function" then return member end
    return refused(("module '%s' has no function '%s' in a worker"):format(detail, key))
  end

  -- By code: the function that was made last, what it was made of, and its upvalues when all are scalars.
  local made = {}

  -- The function made last, as new: its upvalues may have been assigned to.
  local function again(known, upvalues)
    if not known or known.upvalues ~= upvalues then return nil end
    for slot = 1, known.count do setupvalue(known.fn, slot, known[slot]) end
    return known.fn
  end

  local function keep(code, upvalues, fn)
    local known, slot = { upvalues = upvalues, fn = fn, count = 0 }, 1
    while true do
      local name, value = getupvalue(fn, slot)
      if not name then break end
      if not SCALAR[type(value)] then return end
      known[slot], known.count, slot = value, slot, slot + 1
    end
    made[code] = known
  end

  local function build(code, upvalues)
    if upvalues == "" then
      local fn = instantiate(code)
      keep(code, upvalues, fn)
      return fn
    end
    local input = buffer.new():set(upvalues)
    local nodes, kinds = {}, {}

    local function get()
      local node = input:decode()
      if node == 0 then return input:decode() end
      return nodes[node]
    end

    local function fill_table(value)
      local metatable = get()
      for _ = 1, input:decode() do
        local key = get()
        value[key] = get()
      end
      if metatable ~= nil then debug.setmetatable(value, metatable) end
    end

    local first_user = {}
    local function fill_function(value, cells)
      for slot = 1, input:decode() do
        local cell = input:decode()
        local user = first_user[cell]
        if user then
          upvaluejoin(value, slot, user[1], user[2])
        else
          first_user[cell] = { value, slot }
          setupvalue(value, slot, cells[cell])
        end
      end
    end

    for node = 1, input:decode() do
      local kind = input:decode()
      local detail, key
      if kind ~= TABLE then detail = input:decode() end
      if kind == MEMBER then key = input:decode() end
      kinds[node], nodes[node] = kind, make(kind, detail, key)
    end
    local cells = {}
    for cell = 1, input:decode() do cells[cell] = get() end
    for node = 1, #kinds do
      if kinds[node] == TABLE then
        fill_table(nodes[node])
      elseif kinds[node] == FUNCTION then
        fill_function(nodes[node], cells)
      end
    end
    if #nodes == 1 then keep(code, upvalues, nodes[1]) end
    return nodes[1]
  end

  -- The function that `code` and `upvalues` describe. No closures are made here: LuaJIT compiles no function that makes some.
  return function(code, upvalues)
    return again(made[code], upvalues) or build(code, upvalues)
  end
end

return M
