-- What flows have carried since the last time, by host, port, IP protocol and direction: the difference of each row's bytes and
-- packets, taken when a window ends and when a flow is over. Packets cost nothing here. What rows have carried is noted first,
-- and then added to one kind of sums after the other: in one loop it was too long for a trace.
local ffi = require("ffi")
local bit = require("bit")
local layouts = require("capture.layouts")
local rows = require("capture.rows")
local sums = require("capture.sums")

local M = {}

local band, tobit, min = bit.band, bit.tobit, math.min
local row_at, copy = rows.at, ffi.copy

local AT_ONCE = 4096           -- rows: about a millisecond
local ROOM = AT_ONCE + 1024    -- the latter for flows that are over, of one batch
local TCP = 6

ffi.cdef [[
// What a flow has carried since the last time, from A and from Z.
typedef struct {
  double   bytes[2];
  int32_t  packets[2], syns[2], syn_acks[2], ends[2];
  int32_t  address[8];
  int32_t  host[2];           // places in the sums of hosts
  uint16_t port;              // the lower one
  uint8_t  family, proto;
  uint8_t  home[2];           // 1 in a home network, 2 elsewhere
  uint8_t  same;              // both ends are one host
  uint8_t  where, back;       // direction of what A sent, and of what Z sent
  int8_t   fresh, change;     // 1 for a flow that is new; by how much the number of flows changes
} offpath_carried_t;
]]

local carried = ffi.new("offpath_carried_t[?]", ROOM)
local noted = 0

-- Places in the sums of a host. HOME and EXTERNAL are bytes by where the other end is; PLACE is 1 for a host of a home
-- network, 2 for another, 0 when that was not looked up.
M.host = {
  TOTAL = 0, RECEIVED = 1, SENT = 2, PACKETS = 3, ACTIVE = 4, HOME = 5, EXTERNAL = 6, SYN_SENT = 7, SYN_RECEIVED = 8,
  SYN_ACK_SENT = 9, ENDS_SENT = 10, NEW = 11, ACTIVE_TCP = 12, PLACE = 13, WIDTH = 14,
}
-- Of an application.
M.app = { TOTAL = 0, INTO_HOME = 1, OUT_OF_HOME = 2, NEW = 3, INTERNAL = 4, TRANSIT = 5, ACTIVE = 6, WIDTH = 7 }
-- Of a direction, and of an IP protocol.
M.direction = { BYTES = 0, PACKETS = 1, ACTIVE = 2, WIDTH = 3 }
M.protocol = { NEW = 0, ACTIVE = 1, WIDTH = 2 }
-- Directions; ALL are all flows.
M.ALL, M.INTO_HOME, M.OUT_OF_HOME, M.INTERNAL, M.TRANSIT = 0, 1, 2, 3, 4

local host, app, direction, protocol = M.host, M.app, M.direction, M.protocol
local ALL, INTO_HOME, OUT_OF_HOME, INTERNAL, TRANSIT = M.ALL, M.INTO_HOME, M.OUT_OF_HOME, M.INTERNAL, M.TRANSIT

local networks = {}            -- home networks: family, four words and four words of mask each
local hosts4, hosts6, apps, directions, protocols

-- From now on flows are counted. `home` are the networks: { family, address words, mask words }, as they lie in memory.
function M.configure(home, seed)
  networks = home
  hosts4, hosts6 = sums.hashed(host.WIDTH, seed), sums.hashed(host.WIDTH, seed)
  apps, directions = sums.numbered(65536, app.WIDTH), sums.numbered(5, direction.WIDTH)
  protocols = sums.numbered(256, protocol.WIDTH)
  M.hosts4, M.hosts6, M.apps, M.directions, M.protocols = hosts4, hosts6, apps, directions, protocols
end

-- Whether flows are counted.
function M.counts() return apps ~= nil end

local function is_home(family, w0, w1, w2, w3)
  for i = 1, #networks do
    local it = networks[i]
    if it[1] == family and band(w0, it[6]) == it[2] and band(w1, it[7]) == it[3] and band(w2, it[8]) == it[4]
      and band(w3, it[9]) == it[5] then
      return true
    end
  end
  return false
end

local function add(cells, at, value) cells[at] = cells[at] + value end

---- hosts ---------------------------------------------------------------------------------------------------------

-- The place of the host at one end.
local function find_host(it, side)
  local address, at, family = it.address, side * 4, it.family
  local place, cells
  if family == 4 then
    place = hosts4.place(address[at], 0, 0, 0)
    cells = hosts4.sums(place)
  else
    place = hosts6.place(address[at], address[at + 1], address[at + 2], address[at + 3])
    cells = hosts6.sums(place)
  end
  if cells[host.PLACE] == 0 then
    local home = family == 4 and is_home(4, address[at], 0, 0, 0)
      or family == 6 and is_home(6, address[at], address[at + 1], address[at + 2], address[at + 3])
    cells[host.PLACE] = home and 1 or 2
  end
  it.host[side], it.home[side] = place, cells[host.PLACE]
end

local function find_hosts(side)
  for i = 0, noted - 1 do find_host(carried[i], side) end
end

-- The direction of a flow is that of A, whose port is the higher one: it asked.
local function find_directions()
  for i = 0, noted - 1 do
    local it = carried[i]
    it.same = it.host[0] == it.host[1] and 1 or 0
    local a_home, z_home = it.home[0] == 1, it.home[1] == 1
    if a_home then
      it.where, it.back = z_home and INTERNAL or OUT_OF_HOME, z_home and INTERNAL or INTO_HOME
    else
      it.where, it.back = z_home and INTO_HOME or TRANSIT, z_home and OUT_OF_HOME or TRANSIT
    end
  end
end

-- What both ends of a flow have in common; a host that talks to itself has it once.
local function add_shared(cells, it, peer)
  local bytes = it.bytes[0] + it.bytes[1]
  add(cells, host.TOTAL, bytes)
  add(cells, host.PACKETS, it.packets[0] + it.packets[1])
  add(cells, it.home[peer] == 1 and host.HOME or host.EXTERNAL, bytes)
  add(cells, host.NEW, it.fresh)
  add(cells, host.ACTIVE, it.change)
  if it.proto == TCP then add(cells, host.ACTIVE_TCP, it.change) end
end

local function add_own(cells, it, side)
  add(cells, host.SENT, it.bytes[side])
  add(cells, host.RECEIVED, it.bytes[1 - side])
  add(cells, host.SYN_SENT, it.syns[side])
  add(cells, host.SYN_RECEIVED, it.syns[1 - side])
  add(cells, host.SYN_ACK_SENT, it.syn_acks[side])
  add(cells, host.ENDS_SENT, it.ends[side])
end

local function add_to_hosts()
  for i = 0, noted - 1 do
    local it = carried[i]
    local hosts = it.family == 4 and hosts4 or hosts6
    local a, z = hosts.sums(it.host[0]), hosts.sums(it.host[1])
    add_own(a, it, 0)
    add_own(z, it, 1)
    add_shared(a, it, 1)
    if it.same == 0 then add_shared(z, it, 0) end
  end
end

---- the others ----------------------------------------------------------------------------------------------------

-- By direction, the place in the sums of an application.
local APP_PLACE = ffi.new("int32_t[5]")
APP_PLACE[INTO_HOME], APP_PLACE[OUT_OF_HOME] = app.INTO_HOME, app.OUT_OF_HOME
APP_PLACE[INTERNAL], APP_PLACE[TRANSIT] = app.INTERNAL, app.TRANSIT

local function add_to_apps()
  for i = 0, noted - 1 do
    local it = carried[i]
    local cells = apps.at(it.port)
    add(cells, app.TOTAL, it.bytes[0] + it.bytes[1])
    add(cells, APP_PLACE[it.where], it.bytes[0])
    add(cells, APP_PLACE[it.back], it.bytes[1])
    add(cells, app.NEW, it.fresh)
    add(cells, app.ACTIVE, it.change)
  end
end

local function add_to_rest()
  for i = 0, noted - 1 do
    local it = carried[i]
    local where, back, of_protocol = directions.at(it.where), directions.at(it.back), protocols.at(it.proto)
    add(where, direction.BYTES, it.bytes[0])
    add(where, direction.PACKETS, it.packets[0])
    add(where, direction.ACTIVE, it.change)
    add(back, direction.BYTES, it.bytes[1])
    add(back, direction.PACKETS, it.packets[1])
    add(directions.at(ALL), direction.ACTIVE, it.change)
    add(of_protocol, protocol.NEW, it.fresh)
    add(of_protocol, protocol.ACTIVE, it.change)
  end
end

-- Adds what was noted to all sums.
function M.add()
  if noted == 0 then return end
  find_hosts(0)
  find_hosts(1)
  find_directions()
  add_to_hosts()
  add_to_apps()
  add_to_rest()
  noted = 0
end

---- rows ----------------------------------------------------------------------------------------------------------

local function note_side(it, row, side)
  local packets = tobit(row.packets[side])
  it.bytes[side], it.packets[side] = row.bytes[side] - row.counted_bytes[side], tobit(packets - row.counted_packets[side])
  it.syns[side], it.syn_acks[side], it.ends[side] = row.syns[side], row.syn_acks[side], row.ends[side]
  row.counted_bytes[side], row.counted_packets[side] = row.bytes[side], packets
  row.syns[side], row.syn_acks[side], row.ends[side] = 0, 0, 0
end

-- Notes what a flow has carried; `change` is -1 when it is over.
local function note(row, change)
  local it = carried[noted]
  noted = noted + 1
  note_side(it, row, 0)
  note_side(it, row, 1)
  copy(it.address, row.address, 32)
  it.port, it.family, it.proto = row.port[1], row.family, row.proto
  it.fresh = 1 - row.told
  it.change = it.fresh + change
  row.told = 1
end

-- Notes a flow that is over; `add` is to follow before the next batch.
function M.close(row) note(row, -1) end

local function has_more(row)
  return tobit(row.packets[0]) ~= row.counted_packets[0] or tobit(row.packets[1]) ~= row.counted_packets[1]
end

-- Whether what is here must be brought out before more of it can be taken.
function M.is_full()
  return hosts4.is_full() or hosts6.is_full()
end

-- Takes what the flows have carried, from a row on. Returns the row to go on with, 0 past the last one; the same one when
-- there is no room.
function M.fold(index)
  if M.is_full() then return index end
  local last = min(rows.made(), index + AT_ONCE - 1)
  for at = index, last do
    local row = row_at(at)
    if row.number ~= 0 and has_more(row) then note(row, 0) end
  end
  M.add()
  return last < rows.made() and last + 1 or 0
end

return M
