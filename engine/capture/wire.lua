-- What was on the wire, packet by packet, where flows don't know it: by MAC address, VLAN, EtherType, IP protocol, and all of
-- it. The packet loop notes a few numbers of each packet; a loop of its own counts them, for the reason in decoder.lua.
local ffi = require("ffi")
local bit = require("bit")
local protocols = require("offpath.protocols")
local layouts = require("capture.layouts")
local sums = require("capture.sums")

local M = {}

local band, bswap, rshift = bit.band, bit.bswap, bit.rshift
local be16, rd32 = layouts.be16, layouts.rd32
local ETHERNET, VLAN, SLL, SLL2 = protocols.ETHERNET, protocols.VLAN, protocols.SLL, protocols.SLL2

local LONGEST_8023 = 1500      -- a type up to this is a length: the frame has no EtherType, and counts as 0

ffi.cdef [[
typedef struct {
  double   address;
  int32_t  wire, target;               // bytes; the first four of the IP address that it goes to
  offpath_layer_t outer, second;       // the first two layers
  uint8_t  layers, family, proto, fragment;
} offpath_noted_t;
]]

-- Places in the sums of each, and of all packets; the latter are bytes by kind of destination, but for FRAGMENTS.
M.counted = { BYTES = 0, PACKETS = 1, WIDTH = 2 }
M.mac = { SENT = 0, RECEIVED = 1, WIDTH = 2 }
M.all = { BYTES = 0, PACKETS = 1, LINK = 1, IP = 4, FRAGMENTS = 8, WIDTH = 9 }   -- LINK + 1 is broadcast, and so on

local counted, mac, all = M.counted, M.mac, M.all
local BROADCAST, MULTICAST, UNICAST = 1, 2, 3
local u16_ptr_t = ffi.typeof("const uint16_t *")
local cast = ffi.cast
local queue = ffi.new("offpath_noted_t[?]", layouts.STEP)
local noted = 0
local ethertypes, vlans, by_protocol, macs, totals

function M.configure(seed)
  ethertypes, by_protocol = sums.numbered(65536, counted.WIDTH), sums.numbered(256, counted.WIDTH)
  vlans, totals = sums.numbered(4096, counted.WIDTH), sums.numbered(1, all.WIDTH)
  macs = sums.hashed(mac.WIDTH, seed)
  M.ethertypes, M.vlans, M.protocols, M.macs, M.totals = ethertypes, vlans, by_protocol, macs, totals
end

-- The kind of the address that an IP packet goes to.
local function cast_of(family, first)
  if family == 4 then
    if first == -1 then return BROADCAST end
    return rshift(bswap(first), 28) == 14 and MULTICAST or UNICAST
  end
  return rshift(bswap(first), 24) == 0xff and MULTICAST or UNICAST
end

-- The field that says what follows the link layer, or nil.
local function type_of(p, layer)
  local protocol, offset, length = layer.protocol, layer.offset, layer.length
  if protocol == ETHERNET and length == 14 then
    local ethertype = be16(p, offset + 12)
    return ethertype > LONGEST_8023 and ethertype or 0
  end
  if protocol == SLL and length == 16 then return (be16(p, offset + 14)) end
  if protocol == SLL2 and length == 20 then return (be16(p, offset)) end
  return nil
end

-- Notes a packet that was dissected, whose first byte is at `address`. Without a branch: the packet loop has enough of them.
function M.note(address, wire, packet)
  local it, outer, second = queue[noted], packet.layer[0], packet.layer[1]
  noted = noted + 1
  it.address, it.wire, it.target = address, wire, packet.ip[4]
  it.outer.protocol, it.outer.offset, it.outer.length = outer.protocol, outer.offset, outer.length
  it.second.protocol, it.second.offset, it.second.length = second.protocol, second.offset, second.length
  it.layers, it.family, it.proto = packet.layer_count, packet.family, packet.proto
  it.fragment = packet.fragment + packet.reassembled
end

local function add(cells, at, value) cells[at] = cells[at] + value end

local function add_packet(cells, wire)
  add(cells, counted.BYTES, wire)
  add(cells, counted.PACKETS, 1)
end

local function is_ethernet(it)
  return it.layers > 0 and it.outer.protocol == ETHERNET and it.outer.length == 14
end

local function bytes_of(it) return cast(layouts.bytes_ptr_t, it.address) end

-- Each of these is a loop of its own, with one look into a table: with two, LuaJIT gave up most of the side traces.
local function count_senders()
  for i = 0, noted - 1 do
    local it = queue[i]
    if is_ethernet(it) then
      local p = bytes_of(it) + it.outer.offset
      add(macs.sums(macs.place(rd32(p, 6), cast(u16_ptr_t, p + 10)[0], 0, 0)), mac.SENT, it.wire)
    end
  end
end

local function count_receivers()
  local here = totals.at(0)
  for i = 0, noted - 1 do
    local it = queue[i]
    if is_ethernet(it) then
      local p, wire = bytes_of(it) + it.outer.offset, it.wire
      local low, high, kind = rd32(p, 0), cast(u16_ptr_t, p + 4)[0], UNICAST
      if low == -1 and high == 0xffff then kind = BROADCAST elseif band(low, 1) == 1 then kind = MULTICAST end
      add(here, all.LINK + kind, wire)
      add(macs.sums(macs.place(low, high, 0, 0)), mac.RECEIVED, wire)
    end
  end
end

local function count_links()
  for i = 0, noted - 1 do
    local it = queue[i]
    if it.layers > 0 then
      local p, second = bytes_of(it), it.second
      local ethertype = type_of(p, it.outer)
      if ethertype then add_packet(ethertypes.at(ethertype), it.wire) end
      if it.layers > 1 and second.protocol == VLAN and second.length == 4 then
        add_packet(vlans.at(band(be16(p, second.offset), 0x0fff)), it.wire)
      end
    end
  end
end

local function count_all()
  local here = totals.at(0)
  for i = 0, noted - 1 do
    local it = queue[i]
    add_packet(here, it.wire)
    if it.family ~= 0 then
      add_packet(by_protocol.at(it.proto), it.wire)
      add(here, all.IP + cast_of(it.family, it.target), it.wire)
    end
    if it.fragment ~= 0 then add(here, all.FRAGMENTS, 1) end
  end
end

-- Counts what was noted. The bytes of the packets are where they were.
function M.count()
  if noted == 0 then return end
  count_all()
  count_links()
  count_senders()
  count_receivers()
  noted = 0
end

-- Whether what is here must be brought out before more of it can be counted.
function M.is_full() return macs.is_full() end

return M
