-- Sums by key, as they are counted in the windows: so many doubles for each key, in the order in which keys came. All that
-- counts into them is compiled; what it takes is bounded, and is brought out (measures.lua) before it is full.
local ffi = require("ffi")
local bit = require("bit")
local layouts = require("capture.layouts")
local hashing = require("capture.hash")

local M = {}

local band = bit.band
local cast, fill = ffi.cast, ffi.fill
local mix, finish = hashing.mix, hashing.finish

local doubles_ptr_t, words_ptr_t = ffi.typeof("double *"), ffi.typeof("int32_t *")
local slots_ptr_t = ffi.typeof("$ *", layouts.slot_t)
local slot_bytes = ffi.sizeof(layouts.slot_t)

local MOST = 65536
local SPARE = 10240
local MASK = MOST * 4 - 1

local function zeroed(element_ptr_t, bytes)
  local memory = layouts.allocate_zeroed(bytes)
  return cast(element_ptr_t, memory), memory
end

-- Sums by a number below `size`. `at(number)` are its doubles, `key(place)` the number at a place in the order.
function M.numbered(size, width)
  local table = { width = width, count = 0 }
  local cells, cells_memory = zeroed(doubles_ptr_t, size * width * 8)
  local order, order_memory = zeroed(words_ptr_t, size * 4)
  local seen = layouts.allocate_zeroed(size)
  table.memory = { cells_memory, order_memory }   -- the pointers alone do not keep it

  function table.at(number)
    if seen[number] == 0 then
      seen[number] = 1
      order[table.count] = number
      table.count = table.count + 1
    end
    return cells + number * width
  end

  function table.key(place) return order[place] end
  function table.sums(place) return cells + order[place] * width end

  function table.clear()
    for place = 0, table.count - 1 do
      seen[order[place]] = 0
      fill(cells + order[place] * width, width * 8)
    end
    table.count = 0
  end

  return table
end

-- Sums by four words, up to MOST keys, of which SPARE are for what one batch may bring: how many there are is looked at
-- between batches. `place(w0, w1, w2, w3)` is that of a key, `sums(place)` its doubles, `key(place)` its words.
function M.hashed(width, seed)
  local table = { width = width, count = 0 }
  local cells, cells_memory = zeroed(doubles_ptr_t, MOST * width * 8)
  local keys, keys_memory = zeroed(words_ptr_t, MOST * 16)
  local slots, slots_memory = zeroed(slots_ptr_t, (MASK + 1) * slot_bytes)
  local homes, homes_memory = zeroed(words_ptr_t, MOST * 4)    -- the slot of each place
  table.memory = { cells_memory, keys_memory, slots_memory, homes_memory }

  -- The place of a key in a slot, -1 when the slot is empty, -2 when another key is in it.
  local function look(i, hash, w0, w1, w2, w3)
    local place = slots[i].row - 1
    if place < 0 then return -1 end
    if slots[i].hash ~= hash then return -2 end
    local key = keys + place * 4
    return key[0] == w0 and key[1] == w1 and key[2] == w2 and key[3] == w3 and place or -2
  end

  local function look_on(i, hash, w0, w1, w2, w3)
    while true do
      i = band(i + 1, MASK)
      local place = look(i, hash, w0, w1, w2, w3)
      if place ~= -2 then return place, i end
    end
  end

  local function add(i, hash, w0, w1, w2, w3)
    local place = table.count
    if place == MOST then error("no room for sums") end    -- a fault of ours: nobody brought them out
    slots[i].hash, slots[i].row, homes[place] = hash, place + 1, i
    local key = keys + place * 4
    key[0], key[1], key[2], key[3] = w0, w1, w2, w3
    table.count = place + 1
    return place
  end

  -- The place of a key. The first slots are looked at one by one, as in flows.lua.
  function table.place(w0, w1, w2, w3)
    local hash = finish(mix(mix(mix(mix(seed, w0), w1), w2), w3))
    local i = band(hash, MASK)
    local place = look(i, hash, w0, w1, w2, w3)
    if place == -2 then
      i = band(i + 1, MASK)
      place = look(i, hash, w0, w1, w2, w3)
      if place == -2 then place, i = look_on(i, hash, w0, w1, w2, w3) end
    end
    if place == -1 then place = add(i, hash, w0, w1, w2, w3) end
    return place
  end

  function table.key(place) return keys + place * 4 end
  function table.sums(place) return cells + place * width end
  function table.is_full() return table.count > MOST - SPARE end

  function table.clear()
    fill(cells, table.count * width * 8)
    for place = 0, table.count - 1 do slots[homes[place]].row = 0 end
    table.count = 0
  end

  return table
end

return M
