-- What the platform counts of a capture, brought out for counter groups: which sums are which meters, and how keys are written
-- (spec 3.2, 8.3). Runs are as those of a script's counters (../../lua_api/counters.lua).
local ffi = require("ffi")
local bit = require("bit")
local layouts = require("capture.layouts")
local turnover = require("capture.turnover")
local wire = require("capture.wire")

local M = {}

local cast, text_of, min = ffi.cast, ffi.string, math.min
local rshift, band = bit.rshift, bit.band
local format, concat = string.format, table.concat

local RUN = 1024                           -- keys that cross at once
local COUNTER, RATE, RUNNING = 2, 4, 8     -- types of meters (spec 4.2)
local KEY_BYTES = 32                       -- of the longest key

local HEX = ffi.new("const char[16]", "0123456789ABCDEF")
local letters = ffi.new("uint8_t[?]", RUN * KEY_BYTES)
local lengths = ffi.new("uint32_t[?]", RUN)
local head, cells = ffi.new("double[2]"), ffi.new("double[?]", RUN)
local ones = ffi.new("double[?]", RUN)
for at = 0, RUN - 1 do ones[at] = 1 end

---- keys: each writes at `to` and returns how many bytes ----------------------------------------------------------

local function write_hex(to, byte)
  to[0], to[1] = HEX[rshift(byte, 4)], HEX[band(byte, 15)]
end

-- Bytes of an address, `step` letters apart; between them is `sign`.
local function write_bytes(to, words, number, step, sign)
  local bytes = cast(layouts.bytes_ptr_t, words)
  for at = 0, number - 1 do
    write_hex(to + at * step, bytes[at])
    if step == 3 and at < number - 1 then to[at * 3 + 2] = sign end
  end
  return number * step - (step == 3 and 1 or 0)
end

local function ipv4(to, words) return write_bytes(to, words, 4, 3, 46) end
local function ipv6(to, words) return write_bytes(to, words, 16, 2, 0) end

local function write_text(to, text)
  ffi.copy(to, text, #text)
  return #text
end

-- The low word has the first four bytes, the next one the last two.
local function mac(to, words)
  local length = write_bytes(to, words, 4, 3, 58)
  to[length] = 58
  return length + 1 + write_bytes(to + length + 1, words + 1, 2, 3, 58)
end

local function port(to, number) return write_text(to, format("p-%04X", number)) end
local function byte(to, number) return write_text(to, format("%02X", number)) end
local function ethertype(to, number) return write_text(to, format("%04X", number)) end
local function decimal(to, number) return write_text(to, format("%d", number)) end

local DIRECTIONS = {
  [turnover.ALL] = "TOTALBW", [turnover.INTO_HOME] = "DIR_INTOHOME", [turnover.OUT_OF_HOME] = "DIR_OUTOFHOME",
  [turnover.INTERNAL] = "DIR_INTERNAL", [turnover.TRANSIT] = "DIR_TRANSIT",
}
local function direction(to, number) return write_text(to, DIRECTIONS[number]) end
local function total(to) return write_text(to, DIRECTIONS[turnover.ALL]) end

---- meters: number, type, place in the sums -----------------------------------------------------------------------

local host, app, way, flows_of = turnover.host, turnover.app, turnover.direction, turnover.protocol
local counted, all = wire.counted, wire.all

local HOST_METERS = {
  { 0, RATE, host.TOTAL }, { 1, RATE, host.RECEIVED }, { 2, RATE, host.SENT }, { 3, RATE, host.PACKETS },
  { 4, RUNNING, host.ACTIVE }, { 6, RATE, host.HOME }, { 7, RATE, host.EXTERNAL }, { 8, COUNTER, host.SYN_SENT },
  { 9, COUNTER, host.SYN_RECEIVED }, { 10, COUNTER, host.SYN_ACK_SENT }, { 13, COUNTER, host.NEW },
}
local HOST6_METERS = {
  { 0, RATE, host.TOTAL }, { 1, RATE, host.RECEIVED }, { 2, RATE, host.SENT }, { 3, RATE, host.PACKETS },
  { 4, RUNNING, host.ACTIVE_TCP }, { 6, RATE, host.HOME }, { 7, RATE, host.EXTERNAL },
  { 8, COUNTER, host.SYN_SENT }, { 9, COUNTER, host.SYN_RECEIVED }, { 10, COUNTER, host.SYN_ACK_SENT },
  { 11, COUNTER, host.ENDS_SENT },
}
local APP_METERS = {
  { 0, RATE, app.TOTAL }, { 2, RATE, app.INTO_HOME }, { 3, RATE, app.OUT_OF_HOME }, { 4, COUNTER, app.NEW },
  { 5, RATE, app.INTERNAL }, { 6, RATE, app.TRANSIT }, { 7, RUNNING, app.ACTIVE },
}
local DIRECTION_METERS = { { 0, RATE, way.BYTES }, { 1, RATE, way.PACKETS }, { 2, RUNNING, way.ACTIVE } }
local SESSION_METERS = { { 2, RUNNING, way.ACTIVE } }
local WIRE_METERS = {
  { 0, RATE, all.BYTES }, { 1, RATE, all.PACKETS }, { 3, RATE, all.LINK + 1 }, { 4, RATE, all.LINK + 2 },
  { 5, RATE, all.LINK + 3 }, { 6, RATE, all.IP + 1 }, { 7, RATE, all.IP + 2 }, { 8, RATE, all.IP + 3 },
  { 9, RATE, all.FRAGMENTS },
}
local PROTOCOL_METERS = { { 0, RATE, counted.BYTES }, { 1, COUNTER, counted.PACKETS } }
local PROTOCOL_FLOW_METERS = { { 2, RUNNING, flows_of.ACTIVE }, { 3, COUNTER, flows_of.NEW } }
local TYPE_METERS = { { 0, RATE, counted.BYTES }, { 1, RATE, counted.PACKETS } }
local VLAN_METERS = { { 0, RATE, counted.BYTES } }
local MAC_METERS = { { 0, RATE, wire.mac.SENT }, { 1, RATE, wire.mac.RECEIVED } }

---- groups --------------------------------------------------------------------------------------------------------

local function at_home(sums) return sums[host.PLACE] == 1 end
local function outside(sums) return sums[host.PLACE] == 2 end

local function is_all(_, number) return number == turnover.ALL end
local function is_direction(_, number) return number ~= turnover.ALL end

-- Where keys of a group come from, in the order of their coming out: table, key, meters, and which of the keys.
local function sources_of(group)
  local from = {
    ["Hosts"] = { { turnover.hosts4, ipv4, HOST_METERS } },
    ["Internal Hosts"] = { { turnover.hosts4, ipv4, HOST_METERS, at_home } },
    ["External Hosts"] = { { turnover.hosts4, ipv4, HOST_METERS, outside } },
    ["HostsIPv6"] = { { turnover.hosts6, ipv6, HOST6_METERS } },
    ["HostsIPv6 (scripts)"] = { { turnover.hosts6, ipv6, HOST6_METERS } },
    ["Apps"] = { { turnover.apps, port, APP_METERS } },
    ["Aggregates"] = {
      { wire.totals, total, WIRE_METERS }, { turnover.directions, direction, SESSION_METERS, is_all },
      { turnover.directions, direction, DIRECTION_METERS, is_direction },
    },
    ["NetworkLayerStats"] = {
      { wire.protocols, byte, PROTOCOL_METERS }, { turnover.protocols, byte, PROTOCOL_FLOW_METERS },
    },
    ["LinkLayerStats"] = { { wire.ethertypes, ethertype, TYPE_METERS } },
    ["VLANStats"] = { { wire.vlans, decimal, VLAN_METERS } },
    ["Mac"] = { { wire.macs, mac, MAC_METERS } },
  }
  return from[group] or error("nothing is counted for " .. tostring(group))
end

local tables, groups, at_source, at_place = {}, {}, 1, 0

-- From now on what these groups need is counted, as flows go on from here. Returns nothing; without groups nothing is counted.
function M.configure(names, home, seed)
  if #names == 0 then return end
  turnover.configure(home, seed)
  wire.configure(seed)
  tables = {
    turnover.hosts4, turnover.hosts6, turnover.apps, turnover.directions, turnover.protocols,
    wire.ethertypes, wire.vlans, wire.protocols, wire.macs, wire.totals,
  }
  for _, name in ipairs(names) do
    for _, source in ipairs(sources_of(name)) do groups[#groups + 1] = { name, unpack(source, 1, 4) } end
  end
end

-- Whether what was counted must be brought out now.
function M.is_full() return turnover.counts() and (turnover.is_full() or wire.is_full()) or false end

local places = ffi.new("int32_t[?]", RUN)

-- The places of keys that are to cross next, from `place` on. Returns how many, and the place to go on with.
local function choose(from, place, accepts)
  local count, last = 0, min(from.count, place + RUN)
  for at = place, last - 1 do
    if not accepts or accepts(from.sums(at), from.key(at)) then
      places[count] = at
      count = count + 1
    end
  end
  return count, last
end

local function write_keys(from, write, count)
  local used = 0
  for at = 0, count - 1 do
    local length = write(letters + used, from.key(places[at]))
    lengths[at], used = length, used + length
  end
  return text_of(letters, used)
end

local function write_column(from, meter, count)
  local place = meter[3]
  head[0], head[1] = meter[1], meter[2]
  for at = 0, count - 1 do cells[at] = from.sums(places[at])[place] end
  return text_of(head, 16) .. text_of(cells, count * 8)
end

-- What comes out next: the group, its keys in one text, their lengths, numbers of updates, and meters. After the last run
-- it returns nothing, and all sums begin anew.
function M.next()
  while at_source <= #groups do
    local name, from, write, meters, accepts = unpack(groups[at_source], 1, 5)
    if at_place >= from.count then
      at_source, at_place = at_source + 1, 0
    else
      local count
      count, at_place = choose(from, at_place, accepts)
      if count > 0 then
        local columns = {}
        for i, meter in ipairs(meters) do columns[i] = write_column(from, meter, count) end
        local keys = write_keys(from, write, count)
        return name, keys, text_of(lengths, count * 4), text_of(ones, count * 8), concat(columns)
      end
    end
  end
  at_source, at_place = 1, 0
  for _, each in ipairs(tables) do each.clear() end
  return nil
end

M.fold = turnover.fold

return M
