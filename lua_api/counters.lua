-- Sums of counters in the state that updates them: rows by key and cells by meter, aggregated by the meter's type (spec 4.2).
-- They cross to the host when a window ends or many keys are held: they leave at once, and cross some runs of keys at a time,
-- so that neither the script nor the loop waits for a million of them.
--
-- The hot path is `add`, for a key and a meter of a summing type that were met before: a look into a table of addresses, as a
-- string lies where it lies while it is held, and two doubles. `jit.attach` shows it in the trace of the script's loop, with
-- calls, allocations and all: the loop's trace ends as "loop" (tests/lua_api/test_counters.py); traces given up before it are
-- those of the places that are searched (errors 8 to 10), tried by themselves.
-- 20 to 30 ns an update while the keys fit into the caches, 80 to 200 ns with a million keys, which is what memory takes. With a
-- Lua table it took twice that for many keys, and one that grew to a million held the loop for 100 ms.

local ffi = require("ffi")
local bit = require("bit")
local effects = require("offpath.effects")
local guids = require("offpath.guids")

local tonumber, tostring, type, floor = tonumber, tostring, type, math.floor
local concat, next, ipairs, min, remove = table.concat, next, ipairs, math.min, table.remove
local new, cast, copy, text_of = ffi.new, ffi.cast, ffi.copy, ffi.string
local band, bxor, rshift, tobit = bit.band, bit.bxor, bit.rshift, bit.tobit

-- Names of our own, for scripts may declare these, too.
ffi.cdef([[
void *offpath_calloc(size_t count, size_t size) asm("calloc");
void offpath_free(void *memory) asm("free");
]])
local C = ffi.C

local M = {}

-- Keys of a state that are held before they cross.
local HELD = 2 ^ 20
-- Keys that cross at once: the host takes half a millisecond for each such run.
local RUN = 512
-- Runs that cross at the end of a batch, when something is to cross: the loop waits for them.
local RUNS = 1
-- Groups as scripts write their GUIDs, and numbers that are keys; past it they are looked up anew.
local SPELLINGS = 1024
-- Places that are moved for each new key, after a table grew; two would do.
local MOVED = 8
-- A greater number is no meter's.
M.LAST_METER = 255

local COUNTER, GAUGE, AVERAGE, DELTA, MAXIMUM, MINIMUM = 2, 5, 9, 10, 11, 12
-- Doubles of a cell as it crosses, where it is not one: sum and count; first and last sample, and what was gained between.
local WIDTH = { [AVERAGE] = 2, [DELTA] = 3 }
-- What is gained from one sample of a growing counter to the next. One that falls began anew, from 0.
local function gained(before, after) return after < before and after or after - before end

local doubles_t, words_t, memory_t = ffi.typeof("double[?]"), ffi.typeof("uint32_t[?]"), ffi.typeof("double *")
local chars_t, address_t = ffi.typeof("const char *"), ffi.typeof("uintptr_t")
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

-- So many doubles, all 0. Pages are made as they are touched, which `ffi.new` does to all at once.
local function zeros(count)
  local memory = C.offpath_calloc(count, 8)
  if memory == nil then error("not enough memory for counters", 0) end
  return ffi.gc(cast(memory_t, memory), C.offpath_free)
end

-- Where a string lies. No other is there as long as someone holds it.
local function address_of(key) return tonumber(cast(address_t, cast(chars_t, key))) end

-- Where to look for an address among places of two doubles: the address, and the row of the key. Then in those that follow.
local function first_place(address, mask)
  local low = tobit(address)
  return band(bxor(rshift(low, 4), rshift(low, 15)), mask) * 2
end

-- The place of an address, or the empty one where it belongs. There is always one, as half of the places are empty.
local function place_of(places, mask, address)
  local at = first_place(address, mask)
  while places[at] ~= address and places[at] ~= 0 do at = band(at + 2, mask * 2 + 1) end
  return at
end

-- One sample into the cell of a meter that is no plain sum. A cell has the number of its samples before all else.
local function take_sample(kind, cells, at, value)
  local is_first = cells[at] == 0
  if kind == AVERAGE then
    cells[at + 1], cells[at + 2] = cells[at + 1] + value, cells[at + 2] + 1
  elseif kind == DELTA then
    if is_first then
      cells[at + 1] = value
    else
      cells[at + 3] = cells[at + 3] + gained(cells[at + 2], value)
    end
    cells[at + 2] = value
  else
    local old = cells[at + 1]
    local stays = not is_first and (kind == MAXIMUM and old >= value or kind == MINIMUM and old <= value)
    if not stays then cells[at + 1] = value end
  end
end

local function is_sum(kind) return kind ~= GAUGE and not WIDTH[kind] and kind ~= MAXIMUM and kind ~= MINIMUM end

-- The counters of a state. `types` has, by GUID, a byte for the type of each meter of a group; a group that is not in it has
-- meters of type COUNTER. `put` as in outbox.lua.
function M.new(types, put)
  local groups, spellings = {}, 0 -- by GUID, as it is written
  local spelled, numbers = {}, 0 -- keys that are numbers, as text
  local by_guid, held = {}, 0
  local leaving = {} -- groups that are to cross, the oldest first
  local counters = {}

  local function make_group(guid)
    local room = 64
    local group = {
      guid = guid, types = types[guid] or "", names = {}, count = 0, room = room, crossed = 0,
      columns = {}, list = {}, sums = {},
      places = zeros(room * 4), mask = room * 2 - 1, old = nil, old_mask = -1, moved = 0,
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

  -- Moves places of the table that was too small. Not all at once: half a million of them take 20 ms.
  local function move(group, count)
    local old, places, mask = group.old, group.places, group.mask
    local last = min(group.moved + count, group.old_mask + 1)
    for at = group.moved * 2, last * 2 - 2, 2 do
      if old[at] ~= 0 then
        local to = place_of(places, mask, old[at])
        places[to], places[to + 1] = old[at], old[at + 1]
      end
    end
    group.moved = last
    if last > group.old_mask then group.old = nil end
  end

  local function grow(group)
    if group.old then move(group, group.old_mask + 1) end
    local room = group.room
    for _, column in ipairs(group.list) do
      local cells = zeros(room * 2 * column.stride)
      copy(cells, column.cells, room * column.stride * 8)
      column.cells = cells
      if column.is_sum then group.sums[column.meter] = cells end
    end
    group.old, group.old_mask, group.moved = group.places, group.mask, 0
    group.room, group.places, group.mask = room * 2, zeros(room * 8), room * 4 - 1
  end

  -- The row of a key that has one.
  local function find_row(group, address)
    local at = place_of(group.places, group.mask, address)
    if group.places[at] == address then return group.places[at + 1] end
    local old = group.old
    if not old then return nil end
    local before = place_of(old, group.old_mask, address)
    if old[before] ~= address then return nil end
    group.places[at], group.places[at + 1] = address, old[before + 1]
    return old[before + 1]
  end

  local function add_row(group, key, address)
    if group.count == group.room then grow(group) end
    if group.old then move(group, MOVED) end
    local row, names = group.count, group.names
    local at = place_of(group.places, group.mask, address)
    group.places[at], group.places[at + 1] = address, row
    if row % RUN == 0 then names[#names + 1] = {} end
    names[#names][row % RUN + 1] = key
    group.count, held = row + 1, held + 1
    return row
  end

  local function add_column(group, meter)
    local kind = group.types:byte(meter + 1) or COUNTER
    local width = WIDTH[kind] or 1
    local column = {
      meter = meter, kind = kind, width = width, stride = width + 1, is_sum = is_sum(kind),
      cells = zeros(group.room * (width + 1)),
    }
    group.columns[meter], group.list[#group.list + 1] = column, column
    if column.is_sum then group.sums[meter] = column.cells end
    return column
  end

  -- A key as text, nil when it is none. Numbers are made text once, while there are few.
  local function name_of(key)
    local name = text(key)
    if type(key) == "number" and key == key then
      if numbers == SPELLINGS then spelled, numbers = {}, 0 end
      spelled[key], numbers = name, numbers + 1
    end
    return name
  end

  -- True, or false when one of these is nothing that can be counted.
  local function add_slowly(guid, key, meter, value)
    local name = name_of(key)
    meter, value = tonumber(meter), tonumber(value)
    if not (name and meter and value) or value - value ~= 0 then return false end
    if not (meter >= 0 and meter <= M.LAST_METER and floor(meter) == meter) then return false end
    local group = groups[guid] or find_group(guid)
    if not group then return false end
    local address = address_of(name)
    local row = find_row(group, address)
    if not row then
      if held >= HELD then
        counters.cross(1 / 0) -- as many again came before the host took all of them
        counters.leave()
        return add_slowly(guid, name, meter, value)
      end
      row = add_row(group, name, address)
    end
    local column = group.columns[meter] or add_column(group, meter)
    local cells, at = column.cells, row * column.stride
    if column.is_sum then
      cells[at + 1] = cells[at + 1] + value
    else
      take_sample(column.kind, cells, at, value)
    end
    cells[at] = cells[at] + 1
    return true
  end

  -- Counts one update. True, or false when it can't be.
  function counters.add(guid, key, meter, value)
    local group = groups[guid]
    if type(key) == "number" then key = spelled[key] or key end
    if group and type(key) == "string" and type(value) == "number" and value - value == 0 then
      local cells = group.sums[meter]
      if cells then
        local address, places, mask = address_of(key), group.places, group.mask
        local at = first_place(address, mask)
        while places[at] ~= address do
          if places[at] == 0 then return add_slowly(guid, key, meter, value) end
          at = band(at + 2, mask * 2 + 1)
        end
        local cell = places[at + 1] * 2
        cells[cell], cells[cell + 1] = cells[cell] + 1, cells[cell + 1] + value
        return true
      end
    end
    if guid == nil or key == nil or meter == nil then return false end
    return add_slowly(guid, key, meter, value)
  end

  -- The cells of some rows as they cross, NaN where nothing was counted; how many samples there were is added to `updates`.
  local function pack(column, from, count, updates)
    local width, stride = column.width, column.stride
    local cells, packed = column.cells + from * stride, new(doubles_t, count * width)
    for row = 0, count - 1 do
      local samples = cells[row * stride]
      updates[row] = updates[row] + samples
      for part = 0, width - 1 do
        packed[row * width + part] = samples == 0 and NOTHING or cells[row * stride + 1 + part]
      end
    end
    return text_of(packed, count * width * 8)
  end

  -- The next run of rows of a group, into the outbox.
  local function put_run(group)
    local from = group.crossed
    local count = min(RUN, group.count - from)
    local names, lengths, updates = group.names[from / RUN + 1], new(words_t, count), new(doubles_t, count)
    for at = 0, count - 1 do lengths[at] = #names[at + 1] end
    local head, columns = new(doubles_t, 2), {}
    for _, column in ipairs(group.list) do
      head[0], head[1] = column.meter, column.kind
      columns[#columns + 1] = text_of(head, 16)
      columns[#columns + 1] = pack(column, from, count, updates)
    end
    put(
      effects.COUNTERS, 5, group.guid, concat(names), text_of(lengths, count * 4), text_of(updates, count * 8),
      concat(columns)
    )
    group.crossed = from + count
  end

  -- Puts so many runs of what leaves into the outbox; RUNS without a number. Whether some are left.
  function counters.cross(runs)
    for _ = 1, runs or RUNS do
      local group = leaving[1]
      if not group then return false end
      put_run(group)
      if group.crossed == group.count then remove(leaving, 1) end
    end
    return leaving[1] ~= nil
  end

  -- All that is held is to cross, in no fixed order of groups; all groups start anew.
  function counters.leave()
    for _, group in next, by_guid do
      if group.count > 0 then leaving[#leaving + 1] = group end
    end
    groups, spellings, by_guid, held = {}, 0, {}, 0
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
