-- Link, network and transport headers of one packet. Reads only below the captured length and changes only the
-- packet struct it is given. Checksums are not enforced: captures of offloading hosts are full of wrong ones.
local bit = require("bit")
local layouts = require("capture.layouts")

local M = {
  MALFORMED = 0,  -- lies about its lengths, or ends within a header
  UNDECODED = 1,  -- of a link type or protocol that is not decoded
  DECODED = 2,    -- has a readable IP header
}

-- Locals, as all of this runs once per packet.
local band, bor, lshift, rshift, bswap = bit.band, bit.bor, bit.lshift, bit.rshift, bit.bswap
local rd32, be32, be16 = layouts.rd32, layouts.be32, layouts.be16
local MALFORMED, UNDECODED, DECODED = M.MALFORMED, M.UNDECODED, M.DECODED

local TCP, UDP, SCTP = 6, 17, 132
local HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION, MOBILITY, HIP, SHIM6 = 0, 43, 44, 51, 60, 135, 139, 140
local IPV4_IN_IP, IPV6_IN_IP, GRE = 4, 41, 47

local function ports(p, o, packet)
  packet.port[0], packet.port[1], packet.has_ports = be16(p, o), be16(p, o + 2), 1
end

-- The rest of a TCP header whose ports are read. A header cut by the snap length still counts for its flow.
local function tcp(p, o, captured_end, wire_end, packet)
  if captured_end - o < 20 then return DECODED end
  local header = lshift(rshift(p[o + 12], 4), 2)
  if header < 20 or o + header > wire_end then
    packet.has_ports = 0
    return MALFORMED
  end
  local payload = o + header
  packet.seq, packet.ack, packet.flags = be32(p, o + 4), be32(p, o + 8), p[o + 13]
  packet.payload = payload
  packet.length = wire_end - payload
  packet.captured = captured_end > payload and captured_end - payload or 0
  packet.has_tcp = 1
  return DECODED
end

local function transport(p, o, captured_end, wire_end, proto, packet)
  packet.proto = proto
  if proto == TCP or proto == UDP or proto == SCTP then
    local least = proto == TCP and 20 or proto == UDP and 8 or 12
    -- The first fragment of a datagram may end within the header; its ports must still be there.
    if wire_end - o < (packet.is_fragment == 1 and 4 or least) then return MALFORMED end
    if captured_end - o < 4 then return DECODED end
    ports(p, o, packet)
    if proto == TCP and packet.is_fragment == 0 then return tcp(p, o, captured_end, wire_end, packet) end
    return DECODED
  end
  if proto == GRE or proto == IPV4_IN_IP or proto == IPV6_IN_IP then return UNDECODED end
  return DECODED
end

-- Notes a fragment whose data starts at `o`; returns whether it is the first, which alone has ports.
local function fragment(o, wire_end, offset, more, id, packet)
  packet.is_fragment = 1
  packet.fragment_id, packet.fragment_offset, packet.more_fragments = id, offset, more
  packet.fragment_length = wire_end - o
  return offset == 0
end

local function is_extension(proto)
  return proto == HOP_BY_HOP or proto == DESTINATION or proto == ROUTING or proto == FRAGMENT or proto == AH
    or proto == MOBILITY or proto == HIP or proto == SHIM6
end

-- Steps over extension headers. Each is at least 8 bytes long, so the walk ends with the packet.
local function extensions(p, o, captured_end, wire_end, proto, packet)
  while is_extension(proto) do
    if o + 8 > wire_end then return MALFORMED end
    packet.proto = proto
    if o + 8 > captured_end then return DECODED end
    local next_proto, length = p[o], lshift(p[o + 1] + 1, 3)
    if proto == AH then
      length = lshift(p[o + 1] + 2, 2)
    elseif proto == FRAGMENT then
      length = 8
      local field = be16(p, o + 2)
      -- An atomic fragment is a whole datagram.
      if band(field, 0xfff9) ~= 0 then
        packet.proto = next_proto
        if not fragment(o + 8, wire_end, band(field, 0xfff8), band(field, 1), be32(p, o + 4), packet) then
          return DECODED
        end
      end
    end
    o, proto = o + length, next_proto
    if o > wire_end then return MALFORMED end
  end
  return transport(p, o, captured_end, wire_end, proto, packet)
end

local function ipv4(p, o, captured, wire, packet)
  if o + 20 > captured or rshift(p[o], 4) ~= 4 then return MALFORMED end
  local header, total = lshift(band(p[o], 15), 2), be16(p, o + 2)
  -- Segmentation offload leaves the total length zero.
  if total == 0 then total = wire - o end
  local wire_end = o + total
  if header < 20 or total < header or wire_end > wire then return MALFORMED end
  packet.family, packet.proto = 4, p[o + 9]
  local address = packet.address
  address[0], address[4] = rd32(p, o + 12), rd32(p, o + 16)
  local captured_end = wire_end < captured and wire_end or captured
  local field = be16(p, o + 6)
  o = o + header
  if o > captured_end then return DECODED end
  if band(field, 0x3fff) ~= 0 then
    local id, offset = be16(p, o - header + 4), lshift(band(field, 0x1fff), 3)
    if not fragment(o, wire_end, offset, band(rshift(field, 13), 1), id, packet) then return DECODED end
  end
  local proto = packet.proto
  if proto == AH then return extensions(p, o, captured_end, wire_end, proto, packet) end
  return transport(p, o, captured_end, wire_end, proto, packet)
end

local function ipv6(p, o, captured, wire, packet)
  if o + 40 > captured or rshift(p[o], 4) ~= 6 then return MALFORMED end
  local length, proto = be16(p, o + 4), p[o + 6]
  -- Zero: a jumbogram, or segmentation offload.
  local wire_end = length == 0 and wire or o + 40 + length
  if wire_end > wire then return MALFORMED end
  packet.family, packet.proto = 6, proto
  local address = packet.address
  -- No loop: the compiler would take it for one of its own and leave the packet loop here.
  address[0], address[1], address[2], address[3] = rd32(p, o + 8), rd32(p, o + 12), rd32(p, o + 16), rd32(p, o + 20)
  address[4], address[5], address[6], address[7] = rd32(p, o + 24), rd32(p, o + 28), rd32(p, o + 32), rd32(p, o + 36)
  return extensions(p, o + 40, wire_end < captured and wire_end or captured, wire_end, proto, packet)
end

-- What an EtherType announces at `o`, behind any number of VLAN tags.
local function network(p, o, captured, wire, ethertype, packet)
  while ethertype == 0x8100 or ethertype == 0x88a8 or ethertype == 0x9100 do
    if o + 4 > captured then return MALFORMED end
    ethertype, o = be16(p, o + 2), o + 4
  end
  if ethertype == 0x0800 then return ipv4(p, o, captured, wire, packet) end
  if ethertype == 0x86dd then return ipv6(p, o, captured, wire, packet) end
  return UNDECODED
end

local function raw(p, o, captured, wire, packet)
  if o + 1 > captured then return MALFORMED end
  local version = rshift(p[o], 4)
  if version == 4 then return ipv4(p, o, captured, wire, packet) end
  if version == 6 then return ipv6(p, o, captured, wire, packet) end
  return UNDECODED
end

-- Four bytes of address family, in the byte order of the host that captured.
local function loopback(p, captured, wire, packet)
  if captured < 4 then return MALFORMED end
  local family = be32(p, 0)
  if band(family, 0xffff) == 0 then family = bswap(family) end
  if family == 2 then return ipv4(p, 4, captured, wire, packet) end
  -- IPv6 has another number on each BSD.
  if family == 24 or family == 28 or family == 30 or family == 10 then return ipv6(p, 4, captured, wire, packet) end
  return UNDECODED
end

local ETHERNET, SLL, SLL2, NULL, LOOP = 1, 113, 276, 0, 108
local RAW = { [12] = true, [14] = true, [101] = true, [228] = true, [229] = true }

-- Dissects `captured` bytes at `p` of a packet that had `wire` bytes; returns one of the three verdicts.
function M.dissect(p, captured, wire, link, packet)
  packet.has_ports, packet.has_tcp, packet.is_fragment, packet.family = 0, 0, 0, 0
  if link == ETHERNET then
    if captured < 14 then return MALFORMED end
    return network(p, 14, captured, wire, be16(p, 12), packet)
  elseif RAW[link] then
    return raw(p, 0, captured, wire, packet)
  elseif link == NULL or link == LOOP then
    return loopback(p, captured, wire, packet)
  elseif link == SLL then
    if captured < 16 then return MALFORMED end
    return network(p, 16, captured, wire, be16(p, 14), packet)
  elseif link == SLL2 then
    if captured < 20 then return MALFORMED end
    return network(p, 20, captured, wire, be16(p, 0), packet)
  end
  return UNDECODED
end

return M
