-- Sums of counters in the state that updates them: rows by key and cells by meter, aggregated by the meter's type (spec 4.2).
-- They cross to the host when a window ends or many keys are held, a run of keys and doubles at a time.
--
-- The hot path is `add`, for a key and a meter of a summing type that were met before: two table look-ups and one double, no
-- garbage. In a loop over packets it is part of the loop's trace, as `jit.v` shows; all else goes through `add_slowly`.

local ffi = require("ffi")
local effects = require("offpath.effects")
local guids = require("offpath.guids")
local has_clear, clear = pcall(require, "table.clear")

local tonumber, tostring, type, floor = tonumber, tostring, type, math.floor
local concat, next, ipairs, min = table.concat, next, ipairs, math.min
local new, copy, text_of = ffi.new, ffi.copy, ffi.string

local M = {}

-- Keys of a group that are held before they cross; those that come again and again cross once a window.
local HELD = 32768
-- Keys that cross at once: the host takes some milliseconds for each such run.
local RUN = 1024
-- Groups as scripts write their GUIDs; past it they are looked up anew.
local SPELLINGS = 1024
-- A greater number is no meter's.
M.LAST_METER = 255

local COUNTER, GAUGE, AVERAGE, DELTA, MAXIMUM, MINIMUM = 2, 5, 9, 10, 11, 12
-- Doubles of a cell where it is not one: sum and count; first and last sample, and what was gained between.
local WIDTH = { [AVERAGE] = 2, [DELTA] = 3 }
-- What is gained from one sample of a growing counter to the next. One that falls began anew, from 0.
local function gained(before, after) return after < before and after or after - before end

local doubles_t, words_t = ffi.typeof("double[?]"), ffi.typeof("uint32_t[?]")
local NOTHING = 0 / 0

local function text(value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return tostring(value) end
  return nil
end

-- A group's GUID as registries key it. A text of another shape is kept, in upper case: it may name a group all the same.
local function group_of(value)
  local guid = text(value)
  return guid and (guids.canonical(guid) or guid:upper())
end

local function empty(cells, from, to)
  for at = from, to - 1 do cells[at] = NOTHING end
end

-- One sample into the cell of a meter that is no plain sum.
local function take_sample(kind, cells, row, value)
  if kind == AVERAGE then
    local at, sum = row * 2, cells[row * 2]
    if sum == sum then
      cells[at], cells[at + 1] = sum + value, cells[at + 1] + 1
    else
      cells[at], cells[at + 1] = value, 1
    end
  elseif kind == DELTA then
    local at, last = row * 3, cells[row * 3 + 1]
    if last == last then
      cells[at + 1], cells[at + 2] = value, cells[at + 2] + gained(last, value)
    else
      cells[at], cells[at + 1], cells[at + 2] = value, value, 0
    end
  else
    local old = cells[row]
    local stays = old == old and (kind == MAXIMUM and old >= value or kind == MINIMUM and old <= value)
    if not stays then cells[row] = value end
  end
end

local function is_sum(kind) return kind ~= GAUGE and not WIDTH[kind] and kind ~= MAXIMUM and kind ~= MINIMUM end

-- The counters of a state. `types` has, by GUID, a byte for the type of each meter of a group; a group that is not in it has
-- meters of type COUNTER. `put` as in outbox.lua.
function M.new(types, put)
  local groups, spellings = {}, 0 -- by GUID, as it is written
  local by_guid = {}
  local counters = {}

  local function make_group(guid)
    local room = 64
    local group = {
      guid = guid, types = types[guid] or "", rows = {}, names = {}, count = 0, room = room,
      columns = {}, list = {}, sums = {}, updates = new(doubles_t, room),
    }
    by_guid[guid] = group
    return group
  end

  local function find_group(written)
    local guid = group_of(written)
    if not guid then return nil end
    local group = by_guid[guid] or make_group(guid)
    if spellings == SPELLINGS then groups, spellings = {}, 0 end
    if written == written then groups[written], spellings = group, spellings + 1 end
    return group
  end

  local function grow(group)
    local room = group.room * 2
    local updates = new(doubles_t, room)
    copy(updates, group.updates, group.room * 8)
    group.updates = updates
    for _, column in ipairs(group.list) do
      local width = column.width
      local cells = new(doubles_t, room * width)
      copy(cells, column.cells, group.room * width * 8)
      empty(cells, group.room * width, room * width)
      column.cells = cells
      if column.is_sum then group.sums[column.meter] = cells end
    end
    group.room = room
  end

  local function add_row(group, key)
    if group.count == HELD then counters.cross(group) end
    if group.count == group.room then grow(group) end
    local row = group.count
    group.count, group.names[row + 1], group.rows[key] = row + 1, key, row
    return row
  end

  local function add_column(group, meter)
    local kind = group.types:byte(meter + 1) or COUNTER
    local width = WIDTH[kind] or 1
    local column = {
      meter = meter, kind = kind, width = width, is_sum = is_sum(kind), cells = new(doubles_t, group.room * width),
    }
    empty(column.cells, 0, group.room * width)
    group.columns[meter], group.list[#group.list + 1] = column, column
    if column.is_sum then group.sums[meter] = column.cells end
    return column
  end

  -- True, or false when one of these is nothing that can be counted.
  local function add_slowly(guid, key, meter, value)
    local name = text(key)
    meter, value = tonumber(meter), tonumber(value)
    if not (name and meter and value) or value - value ~= 0 then return false end
    if not (meter >= 0 and meter <= M.LAST_METER and floor(meter) == meter) then return false end
    local group = groups[guid] or find_group(guid)
    if not group then return false end
    local row = group.rows[name] or add_row(group, name)
    if key ~= name and key == key then group.rows[key] = row end
    local column = group.columns[meter] or add_column(group, meter)
    local cells = column.cells
    if column.is_sum then
      local sum = cells[row]
      cells[row] = sum == sum and sum + value or value
    else
      take_sample(column.kind, cells, row, value)
    end
    group.updates[row] = group.updates[row] + 1
    return true
  end

  -- Counts one update. True, or false when it can't be.
  function counters.add(guid, key, meter, value)
    local group = groups[guid]
    if group and type(value) == "number" and value - value == 0 then
      local row, cells = group.rows[key], group.sums[meter]
      if row and cells then
        local sum, updates = cells[row], group.updates
        cells[row] = sum == sum and sum + value or value -- what is not equal to itself is no sum yet
        updates[row] = updates[row] + 1
        return true
      end
    end
    if guid == nil or key == nil or meter == nil then return false end
    return add_slowly(guid, key, meter, value)
  end

  -- Rows `from` to `to` of a group, into the outbox.
  local function put_run(group, from, to)
    local names, lengths, columns = group.names, new(words_t, to - from), {}
    for at = from, to - 1 do lengths[at - from] = #names[at + 1] end
    local head = new(doubles_t, 2)
    for _, column in ipairs(group.list) do
      head[0], head[1] = column.meter, column.kind
      columns[#columns + 1] = text_of(head, 16)
      columns[#columns + 1] = text_of(column.cells + from * column.width, (to - from) * column.width * 8)
    end
    put(
      effects.COUNTERS, 5, group.guid, concat(names, "", from + 1, to), text_of(lengths, (to - from) * 4),
      text_of(group.updates + from, (to - from) * 8), concat(columns)
    )
  end

  -- Everything that is held of a group goes into the outbox; the group starts anew.
  function counters.cross(group)
    local count = group.count
    for from = 0, count - 1, RUN do put_run(group, from, min(from + RUN, count)) end
    if not has_clear or count > HELD / 4 then
      group.rows, group.names = {}, {}
    else
      clear(group.rows)
      clear(group.names)
    end
    ffi.fill(group.updates, count * 8)
    group.count, group.columns, group.list, group.sums = 0, {}, {}, {}
    group.types = types[group.guid] or ""
  end

  -- All that is held goes into the outbox, in no fixed order of groups.
  function counters.flush()
    for _, group in next, by_guid do
      if group.count > 0 then counters.cross(group) end
    end
    groups, spellings, by_guid = {}, 0, {}
  end

  -- Makes a group's meters known; what is held of it keeps the types it has until it crosses.
  function counters.learn(guid, meter_types)
    types[guid] = meter_types
    local group = by_guid[guid]
    if group and group.count == 0 then group.types = meter_types end
  end

  return counters
end

M.group_of, M.text = group_of, text

return M
