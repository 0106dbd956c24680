-- Puts fragments of IP datagrams together (RFC 791, 3.2; RFC 8200, 4.5). Of bytes that come twice the first copy wins
-- in IPv4; in IPv6 an overlap drops the datagram (RFC 5722). Fragments wait in memory of their own, bounded in
-- datagrams, bytes and time; what does not fit makes the oldest datagram go.
--
-- Each fragment is counted once more when it is over: fragments = held + reassembled + dropped + timed out.
local ffi = require("ffi")
local bit = require("bit")
local layouts = require("capture.layouts")
local hashing = require("capture.hash")
local memory = require("capture.memory")
local graph = require("capture.dissect.graph")

local M = {
  -- What `take` leaves behind: the verdict when the datagram is not complete, else what the datagram is.
  result = ffi.new("struct { int32_t verdict, proto, captured, wire; }"),
}

local C, copy, fill, min, max = ffi.C, ffi.copy, ffi.fill, math.min, math.max
local band, lshift, rshift = bit.band, bit.lshift, bit.rshift
local mix, finish = hashing.mix, hashing.finish
local counters, result = layouts.counters, M.result
local MALFORMED, DECODED = graph.MALFORMED, graph.DECODED

local LONGEST = 65535                  -- bytes of a datagram behind its headers
local LONGEST_HEADERS = 4096           -- bytes before a fragment that are put before the datagram
local UNITS = 8192                     -- of 8 bytes, in a datagram

local datagram_bytes = ffi.sizeof(layouts.datagram_t)
local pool = layouts.pool(layouts.datagram_t, 6)
local datagram_at = pool.at
local payloads, marks = {}, {}         -- by datagram: its bytes, and a byte for each unit that was seen
local buckets, bucket_mask = nil, 0
local most, most_bytes, seconds, seed = 0, 0, 0, 0
local made, free, live, stored = 0, 0, 0, 0
local oldest, newest = 0, 0

-- Bounds: datagrams, bytes and seconds of stream time that a datagram may take.
function M.configure(settings, hash_seed)
  most, most_bytes, seconds, seed = settings.datagrams, settings.bytes, settings.seconds, hash_seed
  local size = 16
  while size < 2 * most and size < 2 ^ 20 do size = size * 2 end
  buckets, bucket_mask = ffi.new("int32_t[?]", size), size - 1
end

---- datagrams ---------------------------------------------------------------------------------------------------

local function unchain(index, datagram)
  local at = buckets[datagram.bucket]
  if at == index then
    buckets[datagram.bucket] = datagram.next
    return
  end
  while datagram_at(at).next ~= index do at = datagram_at(at).next end
  datagram_at(at).next = datagram.next
end

local function unlist(datagram)
  local older, newer = datagram.older, datagram.newer
  if older ~= 0 then datagram_at(older).newer = newer else oldest = newer end
  if newer ~= 0 then datagram_at(newer).older = older else newest = older end
end

-- Frees the place of a datagram; returns how many fragments it had.
local function release(index)
  local datagram = datagram_at(index)
  unchain(index, datagram)
  unlist(datagram)
  fill(marks[index], rshift(datagram.last + 7, 3))
  local fragments = datagram.fragments
  stored, live = stored - datagram.stored, live - 1
  counters.fragments_held = counters.fragments_held - fragments
  datagram.next, free = free, index
  return fragments
end

local function drop(index)
  counters.fragments_dropped = counters.fragments_dropped + release(index)
end

local function time_out(index)
  counters.fragments_timed_out = counters.fragments_timed_out + release(index)
end

local function new_index()
  if live >= most then drop(oldest) end
  local index = free
  if index ~= 0 then
    free = datagram_at(index).next
    return index
  end
  made = made + 1
  pool.reserve(made)
  payloads[made], marks[made] = layouts.allocate(LONGEST + 1), layouts.allocate_zeroed(UNITS)
  return made
end

local function add(packet, id, proto, bucket)
  local index = new_index()
  local datagram = datagram_at(index)
  fill(datagram, datagram_bytes)
  copy(datagram.ip, packet.ip, 32)
  datagram.id, datagram.proto, datagram.family, datagram.time = id, proto, packet.family, packet.time
  datagram.captured, datagram.bucket, datagram.next = LONGEST + 1, bucket, buckets[bucket]
  buckets[bucket] = index
  datagram.older, datagram.newer = newest, 0
  if newest ~= 0 then datagram_at(newest).newer = index else oldest = index end
  newest, live = index, live + 1
  return index
end

-- The protocol belongs to the key in IPv4 only: in IPv6 it is that of the first fragment.
local function matches(datagram, packet, id, proto)
  local mine, its = datagram.ip, packet.ip
  if datagram.id ~= id or datagram.family ~= packet.family then return false end
  if mine[0] ~= its[0] or mine[4] ~= its[4] then return false end
  if packet.family == 4 then return datagram.proto == proto end
  return mine[1] == its[1] and mine[2] == its[2] and mine[3] == its[3]
    and mine[5] == its[5] and mine[6] == its[6] and mine[7] == its[7]
end

local function bucket_of(packet, id)
  local ip = packet.ip
  local value = mix(mix(mix(seed, ip[0]), ip[4]), id)
  if packet.family == 6 then value = mix(mix(mix(mix(value, ip[2]), ip[3]), ip[6]), ip[7]) end
  return band(finish(value), bucket_mask)
end

-- The datagram that a fragment belongs to, a new one when there is none.
local function find(packet, id, proto)
  local bucket = bucket_of(packet, id)
  local index = buckets[bucket]
  while index ~= 0 and not matches(datagram_at(index), packet, id, proto) do index = datagram_at(index).next end
  if index ~= 0 then return index end
  return add(packet, id, proto, bucket)
end

-- The oldest datagrams whose time is over go.
local function expire(now)
  while oldest ~= 0 and now - datagram_at(oldest).time > seconds do time_out(oldest) end
end

---- fragments ---------------------------------------------------------------------------------------------------

local function drop_fragment(verdict)
  counters.fragments_dropped = counters.fragments_dropped + 1
  result.verdict = verdict
end

-- Copies what no fragment has brought yet, unit by unit; returns the number of new units.
local function fill_holes(index, source, offset, copied, length)
  local mark, payload, new = marks[index], payloads[index], 0
  for at = 0, length - 1, 8 do
    local unit = rshift(offset + at, 3)
    if mark[unit] == 0 then
      mark[unit], new = 1, new + 1
      if at < copied then copy(payload + offset + at, source + at, min(8, copied - at)) end
    end
  end
  return new
end

-- Puts the bytes of a fragment into their place, `copied` of which are in the file. Returns the number of units that
-- are new, or nil when they must not be put together with the others.
local function store(index, datagram, source, offset, copied, length)
  local first, units = rshift(offset, 3), rshift(length + 7, 3)
  local mark = marks[index] + first
  if C.memchr(mark, 1, units) == nil then
    fill(mark, units, 1)
    copy(payloads[index] + offset, source, copied)
    return units
  end
  if C.memchr(mark, 0, units) == nil then return 0 end
  if datagram.family == 6 then return nil end
  return fill_holes(index, source, offset, copied, length)
end

-- Whether where a fragment ends agrees with where the others say that the datagram ends.
local function agrees(datagram, last, more)
  if more == 0 then return datagram.last <= last and (datagram.total == 0 or datagram.total == last) end
  return datagram.total == 0 or last <= datagram.total
end

-- Notes a fragment in its datagram. Returns false when it brings nothing new, nil when it contradicts the others.
local function note(index, datagram, source, offset, captured, length, more)
  local last, copied = offset + length, min(max(captured, 0), length)
  if not agrees(datagram, last, more) then return nil end
  local units = store(index, datagram, source, offset, copied, length)
  if not units then return nil end
  if units == 0 then return false end
  if more == 0 then datagram.total = last end
  datagram.last = max(datagram.last, last)
  datagram.units, datagram.fragments = datagram.units + units, datagram.fragments + 1
  if copied < length then datagram.captured = min(datagram.captured, offset + copied) end
  datagram.stored, stored = datagram.stored + copied, stored + copied
  counters.fragments_held = counters.fragments_held + 1
  return true
end

-- Puts a complete datagram behind the headers of the last packet that brought a part of it, in the scratch: returns a
-- pointer to that, or nil when there is no room for it.
local function complete(index, packet, p, o)
  local datagram = datagram_at(index)
  local total, captured = datagram.total, min(datagram.total, datagram.captured)
  local whole, address
  if o <= LONGEST_HEADERS then whole, address = memory.take(o + captured) end
  if not whole then return drop(index) end
  copy(whole, p, o)
  copy(whole + o, payloads[index], captured)
  packet.address, packet.captured, packet.reassembled, packet.fragment = address, o + captured, 1, 0
  result.proto, result.captured, result.wire = datagram.proto, o + captured, o + total
  counters.fragments_reassembled = counters.fragments_reassembled + release(index)
  counters.datagrams = counters.datagrams + 1
  return whole
end

-- Takes a fragment whose bytes begin at `o` of `p`, with its offset in the datagram. Returns nil while the datagram is
-- not complete, then memory that has the packet's headers, and from `o` on the datagram.
function M.take(packet, p, o, captured, wire, offset, more, id, proto)
  local length = wire - o
  result.verdict = DECODED
  counters.fragments = counters.fragments + 1
  if offset + length > LONGEST or (more == 1 and band(length, 7) ~= 0) then return drop_fragment(MALFORMED) end
  if length == 0 then return drop_fragment(DECODED) end
  expire(packet.time)
  local index = find(packet, id, proto)
  local datagram = datagram_at(index)
  local noted = note(index, datagram, p + o, offset, captured - o, length, more)
  if noted == nil then drop(index) end
  if not noted then return drop_fragment(DECODED) end
  if offset == 0 then datagram.proto = proto end
  if datagram.total ~= 0 and datagram.units == rshift(datagram.total + 7, 3) then
    return complete(index, packet, p, o)
  end
  while stored > most_bytes do drop(oldest) end
  return nil
end

-- Gives up all that is not complete: the capture is at its end.
function M.clear()
  while oldest ~= 0 do time_out(oldest) end
end

return M
