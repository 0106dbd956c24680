-- Walks the records of pcap, the blocks of pcapng, or the packets in a block of a ring that the kernel fills. Nothing is
-- read past the end of the memory, and no packet is handed out whose bytes are not all there.
--
-- A capture that comes through a pipe is in memory in parts: `extend` goes on with the next, which begins with what was
-- not read of the one before.
local ffi = require("ffi")
local bit = require("bit")
local layouts = require("capture.layouts")

local M = {
  PACKET = 1,     -- `record` holds the next packet
  BROKEN = 2,     -- a record or block whose lengths lie
  SKIPPED = 3,    -- a block that is no packet
  END = 4,
  LATER = 5,      -- the next packet is of a later batch: it stays
  HUNGRY = 6,     -- the rest of the next record or block is still to come: it stays
  TICK = 7,       -- with the next packet stream time comes to another second: it stays until `tick` is called
}

local band, bor, bswap, lshift = bit.band, bit.bor, bit.bswap, bit.lshift
local rd32, be16, floor = layouts.rd32, layouts.be16, math.floor
local PACKET, BROKEN, SKIPPED, END, LATER, HUNGRY = M.PACKET, M.BROKEN, M.SKIPPED, M.END, M.LATER, M.HUNGRY
local TICK = M.TICK
local LONGEST_CAPTURED, LONGEST_WIRE = 262144, 2 ^ 24    -- bytes; a record that says more lies (libpcap's own bound)
local LONGEST_BLOCK = 2 ^ 24                             -- of pcapng, where its end is still to come
local RING_HEADER = 48                                   -- bytes of a struct tpacket3_hdr

local record = layouts.record_t()
M.record = record

local cast, u16_ptr_t = ffi.cast, ffi.typeof("const uint16_t *")

local base, size, position                  -- the memory, and where in it the next record lies
local is_pcapng = false
local partial = false                       -- whether more of the capture comes when this is read
local swapped, ticks, link                  -- of a pcap file; `swapped` of the current pcapng section too
local shift = 0                             -- seconds that are added to all times
local span = math.huge                      -- seconds from the first packet of a batch to the last
local batch_end, is_first = 0, true         -- time that belongs to a later batch; whether the batch has no packet yet
local next_second, coming = math.huge, 0    -- when it begins; time of the packet that waits for it
local window_end, turn = math.huge, math.huge -- time from which packets are of a later window; that of such a packet
local ring_left = 0                         -- packets in the block of a ring
local interfaces, interface_count = layouts.pool(layouts.interface_t, 6), 0

-- Four bytes in the byte order of the file.
local function word(p, offset)
  local value = rd32(p, offset)
  if swapped then value = bswap(value) end
  return value
end

local function unsigned(value)
  return value < 0 and value + 2 ^ 32 or value
end

local function half_word(p, offset)
  if swapped then return be16(p, offset) end
  return bor(p[offset], lshift(p[offset + 1], 8))
end

-- Fills `record` unless its lengths lie; `left` bytes of the file are there for it.
local function take_record(offset, captured, wire, left, link_type, time)
  if captured < 0 or captured > left or captured > LONGEST_CAPTURED or wire < 0 or wire > LONGEST_WIRE then
    return partial and captured > left and captured <= LONGEST_CAPTURED and HUNGRY or BROKEN
  end
  time = time + shift
  if time >= next_second then
    coming = time
    return TICK
  end
  if time >= window_end then
    turn = time
    return LATER
  end
  if is_first then
    is_first, batch_end = false, time + span
  elseif time > batch_end then
    return LATER
  end
  record.offset, record.captured, record.wire = offset, captured, wire > captured and wire or captured
  record.link, record.time = link_type, time
  return PACKET
end

-- After a broken record nothing tells where the next one begins, so the file ends there.
local function next_pcap()
  local left = size - position
  if left < 16 then
    if partial then return HUNGRY end
    position = size
    return left > 0 and BROKEN or END
  end
  local p = base + position
  local seconds, fraction = unsigned(word(p, 0)), unsigned(word(p, 4))
  local time, captured = seconds + fraction / ticks, word(p, 8)
  record.precise = ticks > 1e6 and 1 or 0
  if ticks > 1e6 then record.seconds, record.nanos = seconds, fraction end
  local result = take_record(position + 16, captured, word(p, 12), left - 16, link, time)
  if result == PACKET then
    position = position + 16 + captured
  elseif result == BROKEN then
    position, partial = size, false
  end
  return result
end

local function read_section(p, length)
  if length < 28 then return BROKEN end
  interface_count = 0
  return SKIPPED
end

-- The options if_tsresol and if_tsoffset, of which the time stamps of an interface are made.
local function read_interface(p, length)
  if length < 20 then return BROKEN end
  local interface = { ticks = 1e6, shift = 0, link = half_word(p, 8), snaplen = unsigned(word(p, 12)) }
  local o, last = 16, length - 4
  while o + 4 <= last do
    local code, bytes = half_word(p, o), half_word(p, o + 2)
    if code == 0 or o + 4 + bytes > last then break end
    if code == 9 and bytes == 1 then
      local exponent = band(p[o + 4], 0x7f)
      interface.ticks = p[o + 4] < 0x80 and 10 ^ exponent or 2 ^ exponent
    elseif code == 14 and bytes == 8 then
      local low, high = word(p, o + 4), word(p, o + 8)
      if swapped then low, high = high, low end
      interface.shift = high * 2 ^ 32 + unsigned(low)
    end
    o = o + 4 + band(bytes + 3, -4)
  end
  interface_count = interface_count + 1
  interfaces.reserve(interface_count)
  local target = interfaces.at(interface_count)
  target.ticks, target.shift, target.link = interface.ticks, interface.shift, interface.link
  target.snaplen = math.min(interface.snaplen, LONGEST_CAPTURED)
  return SKIPPED
end

-- Keeps a time stamp that is finer than microseconds, as no double holds it.
local function keep_exact(high, low, ticks_per_second, shift)
  record.precise = 1
  local stamp, second = ffi.cast("uint64_t", high) * 4294967296ULL + ffi.cast("uint64_t", low), ffi.cast("uint64_t", ticks_per_second)
  record.seconds = tonumber(stamp / second) + shift
  record.nanos = math.floor(tonumber(stamp % second) * 1e9 / ticks_per_second)
end

local function read_enhanced(p, length)
  if length < 32 then return BROKEN end
  local index = unsigned(word(p, 8)) + 1
  if index > interface_count then return BROKEN end
  local interface = interfaces.at(index)
  local high, low = unsigned(word(p, 12)), unsigned(word(p, 16))
  local time = (high * 2 ^ 32 + low) / interface.ticks + interface.shift
  record.precise = 0
  if interface.ticks > 1e6 and interface.ticks < 1e18 then keep_exact(high, low, interface.ticks, interface.shift) end
  return take_record(position + 28, word(p, 20), word(p, 24), length - 32, interface.link, time)
end

-- A simple packet has no time stamp: it gets that of the record before. Its captured length is the shortest of three.
local function read_simple(p, length)
  if length < 16 or interface_count == 0 then return BROKEN end
  local interface, wire = interfaces.at(1), word(p, 8)
  local captured = math.min(wire, length - 16)
  if interface.snaplen > 0 and captured > interface.snaplen then captured = interface.snaplen end
  return take_record(position + 12, captured, wire, length - 16, interface.link, record.time - shift)
end

local function read_block(p, kind, length)
  if kind == 6 then return read_enhanced(p, length) end
  if kind == 1 then return read_interface(p, length) end
  if kind == 3 then return read_simple(p, length) end
  if kind == 0x0a0d0d0a then return read_section(p, length) end
  return SKIPPED
end

-- A block whose own length holds may lie inside: reading goes on behind it. Otherwise the file ends there.
local function next_pcapng()
  local left = size - position
  if left < 12 then
    if partial then return HUNGRY end
    position = size
    return left > 0 and BROKEN or END
  end
  local p = base + position
  -- The type of a section header reads the same in both byte orders, and tells the order of all that follows.
  if rd32(p, 0) == 0x0a0d0d0a then swapped = rd32(p, 8) ~= 0x1a2b3c4d end
  local length = word(p, 4)
  if length < 12 or length > left or band(length, 3) ~= 0 then
    if partial and length > left and length <= LONGEST_BLOCK and band(length, 3) == 0 then return HUNGRY end
    position, partial = size, false
    return BROKEN
  end
  local result = read_block(p, word(p, 0), length)
  if result == HUNGRY then result = BROKEN end             -- the block is here, so its packet should be
  if result < END then position = position + length end
  return result
end

-- The packets of one block are linked by offsets. The kernel gives the payload of a packet where `mac` says.
local function next_ring()
  if ring_left == 0 then return END end
  if size - position < RING_HEADER then
    ring_left = 0
    return BROKEN
  end
  local p = base + position
  local ahead, captured, mac = unsigned(rd32(p, 0)), rd32(p, 12), cast(u16_ptr_t, p + 24)[0]
  local time = unsigned(rd32(p, 4)) + unsigned(rd32(p, 8)) / 1e9
  local result = take_record(position + mac, captured, rd32(p, 16), size - position - mac, link, time)
  if result >= LATER then return result end
  ring_left = ahead > 0 and ring_left - 1 or 0
  position = position + ahead
  return result
end

-- Whether so many records or blocks can be read now, or all that the capture still has. Looks at lengths only.
function M.has(number)
  if not partial then return true end
  local at, other_order = position, swapped
  for _ = 1, number do
    local left, length = size - at, nil
    if left < 16 then return false end
    local p = base + at
    if is_pcapng then
      if rd32(p, 0) == 0x0a0d0d0a then other_order = rd32(p, 8) ~= 0x1a2b3c4d end
      length = other_order and bswap(rd32(p, 4)) or rd32(p, 4)
      if length < 12 or length > LONGEST_BLOCK then return true end
    else
      length = word(p, 8) + 16
      if length < 16 or length > LONGEST_CAPTURED + 16 then return true end
    end
    if length > left then return false end
    at = at + length
  end
  return true
end

-- The second that the packet belongs to which waits.
function M.second()
  return floor(coming)
end

-- Packets of a second, and of those before, may be read: from the first call of this on, packets of later ones wait.
-- Past 2^52 seconds there is no next one.
function M.tick(second)
  next_second = second < 2 ^ 52 and second + 1 or math.huge
end

-- Whether stream time comes to another second at this time.
function M.is_tick(time)
  return time >= next_second
end

-- Packets from a time on are not read before this is called again: a window of stream time ends there.
function M.end_window(time)
  window_end, turn = time, math.huge
end

-- The time of the packet at which reading stopped because of that, or infinity.
function M.turn()
  return turn
end

-- From here on packets belong to another batch.
function M.start_batch()
  is_first = true
end

-- Starts on another capture; returns the function that reads its next record or block. `is_swapped` is whether a
-- pcap file has the other byte order than this machine; `is_partial` whether `extend` brings the rest; `longest` how many
-- seconds a batch spans at most.
function M.begin(address, bytes, pcapng, first, is_swapped, ticks_per_second, link_type, more_seconds, is_partial,
                 longest)
  base, size, position, partial, shift, span = address, bytes, first, is_partial, more_seconds, longest
  is_pcapng, swapped, ticks, link, interface_count = pcapng, is_swapped, ticks_per_second, link_type, 0
  return is_pcapng and next_pcapng or next_pcap
end

-- Goes on in other memory, which begins with what was not read yet of the one before.
function M.extend(address, bytes, is_partial)
  if partial then base, size, position, partial = address, bytes, 0, is_partial end
end

-- Where reading stands in the memory.
function M.position()
  return position
end

-- Starts on a block of a ring (tpacket_block_desc, version 3); `bytes` are those that the kernel filled.
function M.begin_block(address, bytes, link_type)
  base, size, partial, shift, span, link = address, bytes, false, 0, math.huge, link_type
  position, ring_left = unsigned(rd32(address, 16)), rd32(address, 12)
  return next_ring
end

return M
