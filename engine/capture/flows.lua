-- The flow table: one row for each 5-tuple of TCP, UDP and SCTP, both directions, from its first packet until the flow
-- is over (expiry.lua). A hash index finds the rows; it grows by doubling, a few slots at each new flow, so that no
-- packet pays for all of it.
local ffi = require("ffi")
local bit = require("bit")
local layouts = require("capture.layouts")
local hashing = require("capture.hash")
local rows = require("capture.rows")
local wheel = require("capture.wheel")
local lifetimes = require("capture.lifetimes")

local M = {}

local band, bor, bxor, bnot, bswap = bit.band, bit.bor, bit.bxor, bit.bnot, bit.bswap
local lshift, rshift, tobit = bit.lshift, bit.rshift, bit.tobit
local C, cast, gc, copy = ffi.C, ffi.cast, ffi.gc, ffi.copy
local mix, finish = hashing.mix, hashing.finish
local counters, note_segment = layouts.counters, lifetimes.note_segment

local FIRST_SLOTS = 4096
local MOVED_AT_ONCE = 16       -- old slots moved at each new flow; 4 would be enough to be done before the next growth
local FORGOTTEN_AT_ONCE = 4096 -- rows
local SLOTS_PER_ROW = 4        -- at least; so few rows are looked for in vain that three tries nearly always do

local slots_ptr_t = ffi.typeof("$ *", layouts.slot_t)
local slot_bytes = ffi.sizeof(layouts.slot_t)

local row_at = rows.at
-- The index is the pair of the table in use and, while it grows, the smaller one before it.
local slots, mask, old_slots, old_mask, moved
local live, limit, seed = 0, 0, 0

-- calloc gives untouched zero pages: even a large index costs nothing until its slots are used.
local function new_slots(number)
  local memory = C.calloc(number, slot_bytes)
  if memory == nil then error("no memory for the index of the flow table") end
  return gc(cast(slots_ptr_t, memory), C.free)
end

-- Sets the most flows there may be at once, and a number that keeps the hash from being foreseen.
function M.configure(row_limit, hash_seed)
  limit, seed = row_limit, tobit(hash_seed)
  slots, mask, old_slots, live = new_slots(FIRST_SLOTS), FIRST_SLOTS - 1, nil, 0
end

-- Equal for both directions: `a` is where the address of A begins in the packet, `z` that of Z.
local function hash_of(packet, a, z, side)
  local family, address = packet.family, packet.ip
  local hash = mix(seed, bor(lshift(packet.port[side], 16), packet.port[1 - side]))
  hash = mix(mix(mix(hash, bor(lshift(family, 8), packet.proto)), address[a]), address[z])
  if family == 6 then
    hash = mix(mix(mix(hash, address[a + 1]), address[a + 2]), address[a + 3])
    hash = mix(mix(mix(hash, address[z + 1]), address[z + 2]), address[z + 3])
  end
  return finish(hash)
end

-- Whether one address word is lower than another, both in network order. Flipping the sign bit makes a signed
-- comparison an unsigned one.
local function is_lower(word, other)
  return bxor(bswap(word), 0x80000000) < bxor(bswap(other), 0x80000000)
end

-- Which end of the key sent a packet with equal ports: the lower address is A.
local function side_by_address(packet)
  local address = packet.ip
  if address[0] ~= address[4] or packet.family == 4 then return is_lower(address[4], address[0]) and 1 or 0 end
  if address[1] ~= address[5] then return is_lower(address[5], address[1]) and 1 or 0 end
  if address[2] ~= address[6] then return is_lower(address[6], address[2]) and 1 or 0 end
  return is_lower(address[7], address[3]) and 1 or 0
end

local function matches(row, packet, a, z, side)
  local key, address, family = row.address, packet.ip, packet.family
  if key[0] ~= address[a] or key[4] ~= address[z] then return false end
  if row.port[0] ~= packet.port[side] or row.port[1] ~= packet.port[1 - side] then return false end
  if row.family ~= family or row.proto ~= packet.proto then return false end
  return family == 4
    or (key[1] == address[a + 1] and key[2] == address[a + 2] and key[3] == address[a + 3]
      and key[5] == address[z + 1] and key[6] == address[z + 2] and key[7] == address[z + 3])
end

-- Whether a packet whose side is known is of the flow of a row.
function M.is_of(row, packet)
  local side = packet.side
  return matches(row, packet, side * 4, 4 - side * 4, side)
end

-- The row a slot leads to: 0 when the slot is empty, -1 when the row is of another flow.
local function look(table, i, hash, packet, a, z, side)
  local index = table[i].row
  if index == 0 then return 0 end
  if table[i].hash == hash and matches(row_at(index), packet, a, z, side) then return index end
  return -1
end

local function probe_on(table, table_mask, i, hash, packet, a, z, side)
  while true do
    local index = look(table, i, hash, packet, a, z, side)
    if index >= 0 then return index end
    i = band(i + 1, table_mask)
  end
end

-- The row in one of the two tables, or 0. The first slots are looked at one by one: a loop inside the packet loop
-- would be compiled by itself and leave the rest of each packet to the interpreter.
local function probe(table, table_mask, hash, packet, a, z, side)
  local i = band(hash, table_mask)
  local index = look(table, i, hash, packet, a, z, side)
  if index >= 0 then return index end
  index = look(table, band(i + 1, table_mask), hash, packet, a, z, side)
  if index >= 0 then return index end
  index = look(table, band(i + 2, table_mask), hash, packet, a, z, side)
  if index >= 0 then return index end
  return probe_on(table, table_mask, band(i + 3, table_mask), hash, packet, a, z, side)
end

local function put(hash, index)
  local i = band(hash, mask)
  while slots[i].row ~= 0 do i = band(i + 1, mask) end
  slots[i].hash, slots[i].row = hash, index
end

-- Moves a few slots out of the old table, but for those whose flow is over; it is dropped when all are moved.
local function move_some()
  local last = moved + MOVED_AT_ONCE
  if last > old_mask + 1 then last = old_mask + 1 end
  for i = moved, last - 1 do
    local hash, index = old_slots[i].hash, old_slots[i].row
    if index ~= 0 and row_at(index).hash == hash then put(hash, index) end
  end
  moved = last
  if moved > old_mask then old_slots = nil end
end

local function grow()
  old_slots, old_mask, moved = slots, mask, 0
  mask = mask * 2 + 1
  slots = new_slots(mask + 1)
end

local function add_row(hash, packet, a, z, side, now)
  if live >= limit then return 0 end
  if old_slots then
    move_some()
  elseif (live + 1) * SLOTS_PER_ROW > mask then
    grow()
  end
  live = live + 1
  local index = rows.take()
  local row = row_at(index)
  local words = packet.family == 4 and 1 or 4
  copy(row.address, packet.ip + a, words * 4)
  copy(row.address + 4, packet.ip + z, words * 4)
  row.port[0], row.port[1] = packet.port[side], packet.port[1 - side]
  row.family, row.proto, row.hash = packet.family, packet.proto, hash
  put(hash, index)
  wheel.add(index, row, now + lifetimes.of(row))
  counters.flows, counters.flows_live = counters.flows + 1, live
  return index
end

---- removing ----------------------------------------------------------------------------------------------------

-- The slot in a table that leads to a row, or nil.
local function slot_of(table, table_mask, row, index)
  local i = band(row.hash, table_mask)
  while table[i].row ~= 0 do
    if table[i].row == index and table[i].hash == row.hash then return i end
    i = band(i + 1, table_mask)
  end
end

-- Empties a slot and closes up the chain behind it.
local function empty(i)
  local j = i
  while true do
    j = band(j + 1, mask)
    if slots[j].row == 0 then break end
    local home = band(slots[j].hash, mask)
    if band(j - home, mask) >= band(j - i, mask) then
      slots[i].hash, slots[i].row = slots[j].hash, slots[j].row
      i = j
    end
  end
  slots[i].row = 0
end

-- Takes a row out of the table. In an old table its slot stays, so that chains hold: with a hash that leads nobody there,
-- or when it was moved already, to a row that is of no flow or of another.
function M.remove(index, row)
  local i = slot_of(slots, mask, row, index)
  if i then
    empty(i)
  else
    i = slot_of(old_slots, old_mask, row, index)
    old_slots[i].hash = bnot(row.hash)
  end
  rows.free(index)
  live = live - 1
  counters.flows_live = live
end

---- packets -----------------------------------------------------------------------------------------------------

-- The row of the packet's 5-tuple. When there is none it is made at stream time `now`, and only looked for without. 0 for none, as
-- when the table is full. Sets the packet's side.
local function find(packet, now)
  -- The lower port is Z: 0 when the source port is the higher one. Without a branch, as either way is as common.
  local difference = packet.port[0] - packet.port[1]
  local side = rshift(difference, 31)
  if difference == 0 then side = side_by_address(packet) end
  packet.side = side
  local a, z = side * 4, 4 - side * 4
  local hash = hash_of(packet, a, z, side)
  local index = probe(slots, mask, hash, packet, a, z, side)
  if index ~= 0 then return index end
  if old_slots then
    index = probe(old_slots, old_mask, hash, packet, a, z, side)
    if index ~= 0 then return index end
  end
  if not now then return 0 end
  return add_row(hash, packet, a, z, side, now)
end

-- Reads an address of a flow key into four words in network order; false when it is none.
local function read_address(text, family, words)
  local digits = family == 4 and text:gsub("%.", "") or text
  if #digits ~= (family == 4 and 8 or 32) or digits:find("%X") then return false end
  local bytes = cast(layouts.bytes_ptr_t, words)
  for at = 0, #digits / 2 - 1 do bytes[at] = tonumber(digits:sub(at * 2 + 1, at * 2 + 2), 16) end
  return true
end

-- The row of a flow key, 0 when there is none, and a packet from A of the key to Z of it: its side is 1 when A of the key is Z of
-- the row.
function M.find_key(key)
  local proto, letter, a, port_a, z, port_z = key:match("^(%x%x)([AB]):([%x.]+):p%-(%x%x%x%x)_([%x.]+):p%-(%x%x%x%x)$")
  local family = letter == "A" and 4 or 6
  local packet = layouts.packet_t()
  if not proto or not read_address(a, family, packet.ip) or not read_address(z, family, packet.ip + 4) then return 0 end
  packet.family, packet.proto = family, tonumber(proto, 16)
  packet.port[0], packet.port[1] = tonumber(port_a, 16), tonumber(port_z, 16)
  return find(packet), packet
end

-- Counts a packet of `wire` bytes to its flow and returns the row, or 0 when the table is full. `time` is that of the
-- packet, `now` stream time.
function M.count(packet, wire, time, now)
  local index = find(packet, now)
  if index == 0 then
    counters.flows_rejected = counters.flows_rejected + 1
    return 0
  end
  local row, side = row_at(index), packet.side
  if row.packets[0] + row.packets[1] == 0 then row.first, row.last = time, time end
  row.packets[side] = row.packets[side] + 1
  row.bytes[side] = row.bytes[side] + wire
  if time < row.first then row.first = time end
  if time > row.last then row.last = time end
  row.seen = now
  if packet.has_tcp == 1 and note_segment(row, packet, side) then
    wheel.move(index, row, now + lifetimes.of(row))
  end
  return index
end

M.at = row_at

-- Of some rows from `index` on nothing is known any more but their counts: what comes next are new connections. To be
-- called when no stream is left. Returns how many rows those were, 0 past the last one.
function M.forget(index)
  local number = math.min(FORGOTTEN_AT_ONCE, rows.made() - index + 1)
  for i = index, index + number - 1 do
    local row = row_at(i)
    row.stream, row.client, row.quiet_until = 0, 0, 0
  end
  return math.max(number, 0)
end

return M
