-- What a declarative block says (countergroup, alertgroup, resourcegroup; spec 2.3, 2.18), in a shape that the host can judge:
-- each value as { kind = type, value = scalar }.

local ipairs, pairs, type = ipairs, pairs, type

local M = {}

local SCALAR = { string = true, number = true, boolean = true }
-- Columns of a row that are looked at; the longest row of the spec has 7.
local COLUMNS = 8

local function cell(value)
  local kind = type(value)
  if kind == "number" and value - value ~= 0 then return { kind = kind } end -- JSON has no such number
  if SCALAR[kind] then return { kind = kind, value = value } end
  return { kind = kind }
end

-- The rows of an array: each an array of cells, or one cell for what is no table. nil when it is none itself.
local function rows(value)
  if type(value) ~= "table" then return nil end
  local found = {}
  for at, row in ipairs(value) do
    local cells = { kind = type(row) }
    if type(row) == "table" then
      cells.cells = {}
      for column = 1, COLUMNS do cells.cells[column] = cell(row[column]) end
    end
    found[at] = cells
  end
  return found
end

function M.read(block)
  local control = {}
  if type(block.control) == "table" then
    for name, value in pairs(block.control) do
      if type(name) == "string" then control[name] = cell(value) end
    end
  end
  return { control = control, meters = rows(block.meters), keyinfo = rows(block.keyinfo) }
end

return M
