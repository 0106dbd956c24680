-- `require "lsqlite3"`: SQLite databases as scripts use them (spec 6.1). Failures raise. `step` is true while there is
-- a row and false when there is none left. NULL is nil; text and blobs are strings. A call on a locked database
-- fails at once, unless `busy_timeout` gives it time. All of it blocks: on the fast path only for small, local queries.
local M = {}

local host = require "offpath.host"

local error, format, getmetatable, select, setmetatable, tonumber, tostring, type, unpack =
  error, string.format, getmetatable, select, setmetatable, tonumber, tostring, type, unpack

-- Result code of a success, for scripts that compare with it.
M.OK = 0

local Database = {}
Database.__index = Database

local Statement = {}
Statement.__index = Statement

-- The handle inside an open database or statement; raises at the line of the script otherwise, which is at `level`.
local function handle_of(object, class, what, name, level)
  level = level or 3
  if type(object) ~= "table" or getmetatable(object) ~= class then
    error(format("lsqlite3: %s needs a %s, got a %s", name, what, type(object)), level)
  end
  if not object.handle then error(format("lsqlite3: %s on a %s that is closed", name, what), level) end
  if object.database and not object.database.handle then
    error(format("lsqlite3: %s on a statement of a database that is closed", name), level)
  end
  return object.handle
end

local function is_closed(object, class)
  return type(object) == "table" and getmetatable(object) == class and not object.handle
end

local function failed(name, message)
  error(format("lsqlite3: %s: %s", name, message), 3)
end

local function sql_text(sql, name)
  if type(sql) == "number" then sql = tostring(sql) end
  if type(sql) ~= "string" then error(format("lsqlite3: %s needs SQL text, got a %s", name, type(sql)), 3) end
  return sql
end

-- Opens the database in a file, which is created when absent; ":memory:" is one without a file.
function M.open(file)
  if type(file) ~= "string" then error("lsqlite3: open needs a file name, got a " .. type(file), 2) end
  if file:find("%z") then error("lsqlite3: open: there is a NUL in the file name", 2) end
  local handle, message = host.sqlite_open(file)
  if not handle then failed("cannot open " .. file, message) end
  return setmetatable({ handle = handle }, Database)
end

-- A database in memory.
function M.open_memory()
  local database = M.open(":memory:")
  return database
end

-- Whether the database can be used.
function Database:isopen()
  return self.handle ~= nil
end

-- Closes the database; its statements end with it. A second close does nothing.
function Database:close()
  if is_closed(self, Database) then return M.OK end
  local handle = handle_of(self, Database, "database", "close")
  self.handle = nil
  local ok, message = host.sqlite_close(handle)
  if not ok then failed("close", message) end
  return M.OK
end

-- Checks one SQL statement and gives it as an object; it runs when it is stepped.
function Database:prepare(sql)
  local handle = handle_of(self, Database, "database", "prepare")
  local statement, message = host.sqlite_prepare(handle, sql_text(sql, "prepare"))
  if not statement then failed("prepare", message) end
  return setmetatable({ handle = statement, database = self, width = 0 }, Statement)
end

-- Runs all statements of a text.
function Database:exec(sql)
  local handle = handle_of(self, Database, "database", "exec")
  local ok, message = host.sqlite_exec(handle, sql_text(sql, "exec"))
  if not ok then failed("exec", message) end
  return M.OK
end

-- Milliseconds to wait for a lock of somebody else.
function Database:busy_timeout(milliseconds)
  handle_of(self, Database, "database", "busy_timeout")
  return self:exec(format("PRAGMA busy_timeout = %d", tonumber(milliseconds) or 0))
end

-- Keeps what a step gave: the row, with its number of columns as NULL leaves holes.
local function keep(self, row, ...)
  self.width = row and select("#", ...) or 0
  self.row = row and { ... } or nil
  return row, (...)
end

-- Goes to the next row: true when there is one.
function Statement:step()
  local row, message = keep(self, host.sqlite_step(handle_of(self, Statement, "statement", "step")))
  if row == nil then failed("step", message) end
  return row
end

local function row_of(self, name)
  handle_of(self, Statement, "statement", name, 4)
  if not self.row then error(format("lsqlite3: %s without a row: step did not give true", name), 3) end
  return self.row
end

-- The values of the row, in order, in a new table. NULL leaves a hole.
function Statement:get_values()
  row_of(self, "get_values")
  local values = {}
  for index = 1, self.width do values[index] = self.row[index] end
  return values
end

-- The same as several results.
function Statement:get_uvalues()
  return unpack(row_of(self, "get_uvalues"), 1, self.width)
end

-- The value of a column, counted from 0.
function Statement:get_value(column)
  local row = row_of(self, "get_value")
  local index = tonumber(column)
  if not index or index < 0 or index >= self.width then
    error(format("lsqlite3: get_value: there is no column %s", tostring(column)), 2)
  end
  return row[index + 1]
end

-- Number of columns in the row.
function Statement:columns()
  handle_of(self, Statement, "statement", "columns")
  return self.width
end

-- The names of the columns, after the first step.
function Statement:get_names()
  return { host.sqlite_names(handle_of(self, Statement, "statement", "get_names")) }
end

-- The row by names of columns.
function Statement:get_named_values()
  local row, named = row_of(self, "get_named_values"), {}
  for index, name in ipairs(self:get_names()) do named[name] = row[index] end
  return named
end

-- Gives all parameters their values, in order; the statement starts over.
function Statement:bind_values(...)
  local handle = handle_of(self, Statement, "statement", "bind_values")
  for index = 1, select("#", ...) do
    local kind = type((select(index, ...)))
    if kind ~= "nil" and kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
      error(format("lsqlite3: bind_values: parameter %d is a %s", index, kind), 2)
    end
  end
  local ok, message = host.sqlite_bind(handle, ...)
  if not ok then failed("bind_values", message) end
  keep(self, false)
  return M.OK
end

-- Lets the statement run again from its first row.
function Statement:reset()
  local ok, message = host.sqlite_reset(handle_of(self, Statement, "statement", "reset"))
  if not ok then failed("reset", message) end
  keep(self, false)
  return M.OK
end

-- Ends the statement. A second call does nothing.
function Statement:finalize()
  if is_closed(self, Statement) then return M.OK end
  -- With its database closed, there is nothing to give back.
  if not is_closed(type(self) == "table" and self.database, Database) then
    host.sqlite_reset(handle_of(self, Statement, "statement", "finalize"))
  end
  self.handle = nil
  keep(self, false)
  return M.OK
end

-- An iterator over what `read` takes from each row of a query.
local function each_row(database, sql, read)
  local statement = database:prepare(sql)
  return function()
    if statement:step() then return read(statement) end
    statement:finalize()
    return nil
  end
end

-- for row in db:nrows(sql): each row by names of columns.
function Database:nrows(sql)
  return each_row(self, sql, Statement.get_named_values)
end

-- for row in db:rows(sql): each row as an array.
function Database:rows(sql)
  return each_row(self, sql, Statement.get_values)
end

-- for a, b in db:urows(sql): each row as several values.
function Database:urows(sql)
  return each_row(self, sql, Statement.get_uvalues)
end

return M
