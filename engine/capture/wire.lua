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

local QUEUE = 2048             -- packets of a step
local NO_TYPE, NO_VLAN, NO_PROTOCOL = -1, -1, -1
local LONGEST_8023 = 1500      -- a type up to this is a length: the frame has no EtherType, and counts as 0

ffi.cdef [[
typedef struct {
  int32_t wire;
  int32_t ethertype, vlan, protocol;   // -1 for none
  int32_t to_low, from_low;            // first four bytes of the MAC addresses, and the last two
  uint16_t to_high, from_high;
  uint8_t is_ethernet, is_fragment;
  uint8_t cast;                        // of the IP destination: 0 none, 1 broadcast, 2 multicast, 3 unicast
  uint8_t reserved;
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
local queue = ffi.new("offpath_noted_t[?]", QUEUE)
local noted = 0
local ethertypes, vlans, by_protocol, macs, totals

function M.configure(seed)
  ethertypes, by_protocol = sums.numbered(65536, counted.WIDTH), sums.numbered(256, counted.WIDTH)
  vlans, totals = sums.numbered(4096, counted.WIDTH), sums.numbered(1, all.WIDTH)
  macs = sums.hashed(mac.WIDTH, seed)
  M.ethertypes, M.vlans, M.protocols, M.macs, M.totals = ethertypes, vlans, by_protocol, macs, totals
end

-- The kind of the address that an IP packet goes to.
local function cast_of(packet)
  if packet.family == 0 then return 0 end
  local first = packet.ip[4]
  if packet.family == 4 then
    if first == -1 then return BROADCAST end
    return rshift(bswap(first), 28) == 14 and MULTICAST or UNICAST
  end
  return rshift(bswap(first), 24) == 0xff and MULTICAST or UNICAST
end

-- The field that says what follows the link layer, or NO_TYPE.
local function type_of(p, protocol, offset, length)
  if protocol == ETHERNET and length == 14 then
    local ethertype = be16(p, offset + 12)
    return ethertype > LONGEST_8023 and ethertype or 0
  end
  if protocol == SLL and length == 16 then return (be16(p, offset + 14)) end
  if protocol == SLL2 and length == 20 then return (be16(p, offset)) end
  return NO_TYPE
end

-- Notes a packet that was dissected, whose first byte is at `p`.
function M.note(p, wire, packet)
  local it, outer, second = queue[noted], packet.layer[0], packet.layer[1]
  local layers = packet.layer_count
  noted = noted + 1
  it.wire, it.cast, it.is_fragment = wire, cast_of(packet), packet.fragment + packet.reassembled
  it.protocol = packet.family ~= 0 and packet.proto or NO_PROTOCOL
  it.ethertype, it.vlan, it.is_ethernet = NO_TYPE, NO_VLAN, 0
  if layers == 0 then return end
  it.ethertype = type_of(p, outer.protocol, outer.offset, outer.length)
  if layers > 1 and second.protocol == VLAN and second.length == 4 then
    it.vlan = band(be16(p, second.offset), 0x0fff)
  end
  if outer.protocol == ETHERNET and outer.length == 14 then
    local o = outer.offset
    it.is_ethernet = 1
    it.to_low, it.to_high = rd32(p, o), cast(u16_ptr_t, p + o + 4)[0]
    it.from_low, it.from_high = rd32(p, o + 6), cast(u16_ptr_t, p + o + 10)[0]
  end
end

local function add(cells, at, value) cells[at] = cells[at] + value end

local function add_packet(cells, wire)
  add(cells, counted.BYTES, wire)
  add(cells, counted.PACKETS, 1)
end

local function count_ethernet(it, here)
  local wire, to_low, to_high = it.wire, it.to_low, it.to_high
  add(macs.at(it.from_low, it.from_high, 0, 0), mac.SENT, wire)
  add(macs.at(to_low, to_high, 0, 0), mac.RECEIVED, wire)
  local kind = UNICAST
  if to_low == -1 and to_high == 0xffff then kind = BROADCAST
  elseif band(to_low, 1) == 1 then kind = MULTICAST end
  add(here, all.LINK + kind, wire)
end

-- Counts what was noted.
function M.count()
  for i = 0, noted - 1 do
    local it, here = queue[i], totals.at(0)
    add_packet(here, it.wire)
    if it.is_ethernet == 1 then count_ethernet(it, here) end
    if it.cast ~= 0 then add(here, all.IP + it.cast, it.wire) end
    if it.is_fragment == 1 then add(here, all.FRAGMENTS, 1) end
    if it.ethertype >= 0 then add_packet(ethertypes.at(it.ethertype), it.wire) end
    if it.vlan >= 0 then add_packet(vlans.at(it.vlan), it.wire) end
    if it.protocol >= 0 then add_packet(by_protocol.at(it.protocol), it.wire) end
  end
  noted = 0
end

-- Whether what is here must be brought out before more of it can be counted.
function M.is_full() return macs.is_full() end

return M
