-- Where captured bytes may lie, and the one place that turns an address into a pointer:
--
--   the mapping       the capture file; all of it, from `map` until the capture is finished, or memory that passes, until
--                     its packets are decoded;
--   the scratch       datagrams put together from fragments; until the next batch reads packets;
--   the copies        bytes of the scratch, or of such memory, that wait behind a hole of a TCP stream; until they are released.
local ffi = require("ffi")
local bit = require("bit")
local layouts = require("capture.layouts")

local M = {}

local band, rshift = bit.band, bit.rshift
local cast, copy, min = ffi.cast, ffi.copy, math.min
local address_of, allocate = layouts.address_of, layouts.allocate

local SCRATCH_ROOM = 4 * 2 ^ 20    -- bytes after which a batch is to end
local SCRATCH_BYTES = 2 * SCRATCH_ROOM
local CHUNK_BITS = 11              -- a copy is at most 2048 bytes: the payload of most packets
local CHUNK = 2 ^ CHUNK_BITS

local base, base_address, base_end, base_passes = nil, 0, 0, false
local scratch, scratch_address, scratch_used = nil, 0, 0
local copies, copies_address, chunks = nil, 0, 0
local next_chunk                   -- of a free or released chunk, by its number from 1; 0 ends the list
local made, free, released, last_released = 0, 0, 0, 0

-- Sets how many bytes of copies there may be. Memory is taken when the first byte needs it.
function M.configure(copy_bytes)
  chunks = rshift(copy_bytes + CHUNK - 1, CHUNK_BITS)
end

-- From now on the mapping is this one; returns it as a pointer. One that `passes` goes when its packets are decoded.
function M.map(address, bytes, passes)
  base, base_address, base_end = cast(layouts.bytes_ptr_t, address), address, address + bytes
  base_passes = passes or false
  return base
end

-- A pointer to `length` bytes at an address. What is out of bounds here was let in by a fault of ours.
function M.at(address, length)
  local last = address + length
  if length >= 0 then
    if address >= base_address and last <= base_end then return base + (address - base_address) end
    if address >= scratch_address and last <= scratch_address + scratch_used then
      return scratch + (address - scratch_address)
    end
    if copies and address >= copies_address and last <= copies_address + made * CHUNK then
      return copies + (address - copies_address)
    end
  end
  error("bytes outside of captured memory")
end

---- the scratch -------------------------------------------------------------------------------------------------

-- Forgets what the batch before left there, and gives back the copies that it released.
function M.start_batch()
  scratch_used = 0
  if released == 0 then return end
  next_chunk[last_released], free, released = free, released, 0
end

-- Whether the batch may go on.
function M.has_room()
  return scratch_used < SCRATCH_ROOM
end

-- Room for so many bytes, as pointer and address; nil when there is none left.
function M.take(bytes)
  if not scratch then
    scratch = allocate(SCRATCH_BYTES)
    scratch_address = address_of(scratch)
  end
  if scratch_used + bytes > SCRATCH_BYTES then return nil end
  local offset = scratch_used
  scratch_used = band(offset + bytes + 7, -8)
  return scratch + offset, scratch_address + offset
end

-- Whether what is at an address goes with the batch.
function M.is_scratch(address)
  if base_passes and address >= base_address and address < base_end then return true end
  return address >= scratch_address and address < scratch_address + scratch_used
end

---- copies ------------------------------------------------------------------------------------------------------

local function new_chunk()
  if free ~= 0 then
    local chunk = free
    free = next_chunk[chunk]
    return chunk
  end
  if made == chunks then return 0 end
  if not copies then
    copies = allocate(chunks * CHUNK)
    copies_address, next_chunk = address_of(copies), ffi.new("int32_t[?]", chunks + 1)
  end
  made = made + 1
  return made
end

-- Copies at most `length` bytes at an address. Returns where the copy is, and how long; nil when there is no room.
function M.keep(address, length)
  local chunk = new_chunk()
  if chunk == 0 then return nil end
  length = min(length, CHUNK)
  local offset = (chunk - 1) * CHUNK
  copy(copies + offset, M.at(address, length), length)
  return copies_address + offset, length
end

-- Lets go of a copy, if there is one at this address. Its bytes stay until the next batch.
function M.release(address)
  if not copies or address < copies_address or address >= copies_address + made * CHUNK then return end
  local chunk = rshift(address - copies_address, CHUNK_BITS) + 1
  if released == 0 then last_released = chunk end
  next_chunk[chunk], released = released, chunk
end

return M
