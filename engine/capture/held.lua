-- Bytes that wait behind a hole, as an ordered list for each direction of a stream. They are copied: the memory that
-- they came in, a mapping or a block of a ring, is given back before the hole is filled.
-- Sequence numbers in one list must lie within 2^30 of each other, or their order means nothing.
local ffi = require("ffi")
local bit = require("bit")
local layouts = require("capture.layouts")

local M = {
  NOT_CAPTURED = -2 ^ 50,     -- address of bytes that are known to be missing
}

local tobit, min = bit.tobit, math.min
local cast, copy, bytes_ptr_t = ffi.cast, ffi.copy, layouts.bytes_ptr_t
local address_of = layouts.address_of
local bytes_t = ffi.typeof("uint8_t[?]")
local pool = layouts.pool(layouts.held_t, 12)
local piece_at, reserve = pool.at, pool.reserve
local made_pieces, free_piece = 0, 0
local copies = {}                  -- by piece
local spent, spent_count = {}, 0   -- copies of pieces that were dropped; what was delivered of them may not be read yet

-- Over all lists.
local total = { bytes = 0, pieces = 0 }
M.total, M.at = total, piece_at

local function new_piece()
  local index = free_piece
  if index ~= 0 then
    free_piece = piece_at(index).next
  else
    made_pieces = made_pieces + 1
    index = made_pieces
    reserve(index)
  end
  total.pieces = total.pieces + 1
  return index
end

local function insert(half, prev, next, seq, length, address, now)
  local index = new_piece()
  local piece = piece_at(index)
  piece.seq, piece.length, piece.address, piece.prev, piece.next = seq, length, address, prev, next
  -- A hole in front of this piece is at least as old as the pieces behind it.
  piece.since = next ~= 0 and piece_at(next).since or now
  if prev ~= 0 then piece_at(prev).next = index else half.first = index end
  if next ~= 0 then piece_at(next).prev = index else half.last = index end
  half.held, half.pieces = half.held + length, half.pieces + 1
  total.bytes = total.bytes + length
  return index
end

-- The same with a copy of the bytes, that lives until `forget` is called after the piece was dropped.
local function insert_copy(half, prev, next, seq, length, address, now)
  local memory = bytes_t(length)
  copy(memory, cast(bytes_ptr_t, address), length)
  local index = insert(half, prev, next, seq, length, address_of(memory), now)
  copies[index] = memory
  return index
end

-- Takes the first piece out of the list. Its bytes stay where they are until `forget`.
function M.drop_first(half)
  local index = half.first
  local piece = piece_at(index)
  half.first = piece.next
  if half.first ~= 0 then piece_at(half.first).prev = 0 else half.last = 0 end
  half.held, half.pieces = half.held - piece.length, half.pieces - 1
  total.bytes, total.pieces = total.bytes - piece.length, total.pieces - 1
  piece.next, free_piece = free_piece, index
  local memory = copies[index]
  if memory then
    spent_count = spent_count + 1
    spent[spent_count], copies[index] = memory, nil
  end
end

-- Frees the bytes of pieces that were dropped: the caller has read what was delivered of them.
function M.forget()
  if spent_count > 0 then spent, spent_count = {}, 0 end
end

-- Holds the bytes from `seq` on that no held piece has yet: the first copy wins. Returns how many those were.
-- `address` is where they lie, negative when they were not captured; `waits` is false when all that is new of them is
-- drained at once.
function M.hold(half, seq, length, address, now, waits)
  local put = waits and address >= 0 and insert_copy or insert
  -- From the back: behind a hole, segments mostly come in order.
  local prev = half.last
  while prev ~= 0 and tobit(piece_at(prev).seq - seq) > 0 do prev = piece_at(prev).prev end
  local next = half.first
  if prev ~= 0 then
    local piece = piece_at(prev)
    next = piece.next
    local known = tobit(piece.seq + piece.length - seq)
    if known > 0 then seq, length, address = tobit(seq + known), length - known, address + known end
  end
  local kept = 0
  while length > 0 do
    local free = length
    if next ~= 0 then free = min(length, tobit(piece_at(next).seq - seq)) end
    if free > 0 then
      prev = put(half, prev, next, seq, free, address, now)
      kept = kept + free
    end
    if next == 0 then break end
    local known = free + piece_at(next).length
    seq, length, address = tobit(seq + known), length - known, address + known
    prev, next = next, piece_at(next).next
  end
  return kept
end

return M
