-- What flows have carried since the last time, by host, port, IP protocol and direction: the difference of each row's bytes and
-- packets, taken when a window ends and when a flow is over. Packets cost nothing here.
local bit = require("bit")
local rows = require("capture.rows")
local sums = require("capture.sums")

local M = {}

local band, tobit, min = bit.band, bit.tobit, math.min
local row_at = rows.at

local AT_ONCE = 4096           -- rows: about a millisecond
local TCP = 6

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

-- The sums of the host at one end of a row.
local function host_of(row, at)
  local address, found = row.address, nil
  local w0, w1, w2, w3 = address[at], 0, 0, 0
  if row.family == 4 then
    found = hosts4.at(w0, 0, 0, 0)
  else
    w1, w2, w3 = address[at + 1], address[at + 2], address[at + 3]
    found = hosts6.at(w0, w1, w2, w3)
  end
  if found[host.PLACE] == 0 then found[host.PLACE] = is_home(row.family, w0, w1, w2, w3) and 1 or 2 end
  return found
end

local function add(cells, at, value) cells[at] = cells[at] + value end

local function add_host(cells, row, side, sent, received)
  add(cells, host.RECEIVED, received)
  add(cells, host.SENT, sent)
  if row.proto ~= TCP then return end
  add(cells, host.SYN_SENT, row.syns[side])
  add(cells, host.SYN_RECEIVED, row.syns[1 - side])
  add(cells, host.SYN_ACK_SENT, row.syn_acks[side])
  add(cells, host.ENDS_SENT, row.ends[side])
end

-- What both ends of a flow have in common; a host that talks to itself has it once.
local function add_totals(cells, bytes, packets, peer_place)
  add(cells, host.TOTAL, bytes)
  add(cells, host.PACKETS, packets)
  add(cells, peer_place == 1 and host.HOME or host.EXTERNAL, bytes)
end

-- The direction of a flow is that of A, whose port is the higher one: it asked.
local function direction_of(a_place, z_place)
  if a_place == 1 then return z_place == 1 and INTERNAL or OUT_OF_HOME end
  return z_place == 1 and INTO_HOME or TRANSIT
end

local function add_direction(where, back, a_bytes, z_bytes, a_packets, z_packets)
  local there = directions.at(where)
  add(there, direction.BYTES, a_bytes)
  add(there, direction.PACKETS, a_packets)
  local other = directions.at(back)
  add(other, direction.BYTES, z_bytes)
  add(other, direction.PACKETS, z_packets)
end

-- The place in the sums of an application.
local function app_place(where)
  if where == INTO_HOME then return app.INTO_HOME end
  if where == OUT_OF_HOME then return app.OUT_OF_HOME end
  return where == INTERNAL and app.INTERNAL or app.TRANSIT
end

-- The direction of what Z sent.
local function opposite(where)
  if where == INTO_HOME then return OUT_OF_HOME end
  return where == OUT_OF_HOME and INTO_HOME or where
end

-- Counts that a flow begins (1) or is over (-1).
local function add_active(row, a, z, where, change)
  add(a, host.ACTIVE, change)
  if a ~= z then add(z, host.ACTIVE, change) end
  if row.proto == TCP then
    add(a, host.ACTIVE_TCP, change)
    if a ~= z then add(z, host.ACTIVE_TCP, change) end
  end
  add(apps.at(row.port[1]), app.ACTIVE, change)
  add(protocols.at(row.proto), protocol.ACTIVE, change)
  add(directions.at(where), direction.ACTIVE, change)
  add(directions.at(ALL), direction.ACTIVE, change)
end

local function begin(row, a, z, where)
  row.told = 1
  add(a, host.NEW, 1)
  if a ~= z then add(z, host.NEW, 1) end
  add(apps.at(row.port[1]), app.NEW, 1)
  add(protocols.at(row.proto), protocol.NEW, 1)
  add_active(row, a, z, where, 1)
end

local function packets_since(row, side)
  local packets = tobit(row.packets[side])
  local since = tobit(packets - row.counted_packets[side])
  row.counted_packets[side] = packets
  return since
end

local function bytes_since(row, side)
  local since = row.bytes[side] - row.counted_bytes[side]
  row.counted_bytes[side] = row.bytes[side]
  return since
end

local function take(row)
  local a, z = host_of(row, 0), host_of(row, 4)
  local a_bytes, z_bytes = bytes_since(row, 0), bytes_since(row, 1)
  local a_packets, z_packets = packets_since(row, 0), packets_since(row, 1)
  local bytes, packets = a_bytes + z_bytes, a_packets + z_packets
  local where = direction_of(a[host.PLACE], z[host.PLACE])
  local back = opposite(where)
  add_totals(a, bytes, packets, z[host.PLACE])
  if a ~= z then add_totals(z, bytes, packets, a[host.PLACE]) end
  add_host(a, row, 0, a_bytes, z_bytes)
  add_host(z, row, 1, z_bytes, a_bytes)
  row.syns[0], row.syns[1], row.syn_acks[0], row.syn_acks[1], row.ends[0], row.ends[1] = 0, 0, 0, 0, 0, 0
  local of_app = apps.at(row.port[1])
  add(of_app, app.TOTAL, bytes)
  add(of_app, app_place(where), a_bytes)
  add(of_app, app_place(back), z_bytes)
  add_direction(where, back, a_bytes, z_bytes, a_packets, z_packets)
  if row.told == 0 then begin(row, a, z, where) end
end

local function has_more(row)
  return tobit(row.packets[0]) ~= row.counted_packets[0] or tobit(row.packets[1]) ~= row.counted_packets[1]
end

-- A flow is over.
function M.close(row)
  if has_more(row) then take(row) end
  local a, z = host_of(row, 0), host_of(row, 4)
  add_active(row, a, z, direction_of(a[host.PLACE], z[host.PLACE]), -1)
end

-- Whether what is here must be brought out before more of it can be taken.
function M.is_full()
  return hosts4.is_full() or hosts6.is_full()
end

-- Takes what the flows have carried, from a row on. Returns the row to go on with, 0 past the last one; the same one when
-- there is no room.
function M.fold(index)
  local last = min(rows.made(), index + AT_ONCE - 1)
  for at = index, last do
    local row = row_at(at)
    if row.number ~= 0 and has_more(row) then
      if hosts4.is_full() or hosts6.is_full() then return at end
      take(row)
    end
  end
  return last < rows.made() and last + 1 or 0
end

return M
