-- Where the bytes of packets may lie:
--
--   the mapping       the capture file, the part of it that is in memory, or a block of the kernel's ring;
--   the scratch       datagrams put together from fragments; until the next batch reads packets.
local ffi = require("ffi")
local bit = require("bit")
local layouts = require("capture.layouts")

local M = {}

local band = bit.band
local cast = ffi.cast
local address_of, allocate = layouts.address_of, layouts.allocate

local SCRATCH_ROOM = 4 * 2 ^ 20    -- bytes after which a batch is to end
local SCRATCH_BYTES = 2 * SCRATCH_ROOM

local base_address, base_end = 0, 0
local scratch, scratch_address, scratch_used = nil, 0, 0

-- From now on the mapping is this one; returns it as a pointer.
function M.map(address, bytes)
  base_address, base_end = address, address + bytes
  return cast(layouts.bytes_ptr_t, address)
end

-- Raises when not all of `length` bytes at an address are captured ones. Such an address was made by a fault of ours.
function M.check(address, length)
  local last = address + length
  if length >= 0 then
    if address >= base_address and last <= base_end then return end
    if address >= scratch_address and last <= scratch_address + scratch_used then return end
  end
  error("bytes outside of captured memory")
end

-- A pointer to captured bytes.
function M.at(address, length)
  M.check(address, length)
  return cast(layouts.bytes_ptr_t, address)
end

---- the scratch -------------------------------------------------------------------------------------------------

-- Forgets what the batch before left there.
function M.start_batch()
  scratch_used = 0
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

return M
