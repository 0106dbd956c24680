-- What a flow row keeps of its TCP segments besides packets and bytes: payload, what was sent again, how long the handshake
-- took, and how many segments opened or ended something. Without reassembly: a few numbers each way, and one hole. A step's
-- segments are noted in a loop of their own, for the reason in decoder.lua.
local bit = require("bit")
local rows = require("capture.rows")

local M = {}

local band, bor, tobit, lshift = bit.band, bit.bor, bit.tobit, bit.lshift
local floor, max, row_at = math.floor, math.max, rows.at

local FIN, SYN, RST, ACK = 1, 2, 4, 16
local RARE = FIN + SYN + RST
local NEAR = 2 ^ 24            -- sequence numbers further off are of no window: counting begins anew there
local LONGEST_SETUP = 2 ^ 31   -- microseconds

-- Of `row.setup`: nothing, a SYN, and its answer were seen; the handshake is over, or was never seen whole.
local ASKED, ANSWERED, DONE = 1, 2, 3
-- Of `row.known`: an end sent something, sent a FIN (each shifted by its side), Z sent the SYN, one sent a reset.
local BEGUN, FINISHED, Z_ASKED, BROKEN = 1, 4, 16, 32

-- A segment from the end that asked, when the other one has answered: the one that acknowledges the answer is the last
-- of the handshake.
local function end_setup(row, segment, side)
  if band(segment.flags, SYN) ~= 0 then return end
  row.setup = DONE
  if band(segment.flags, ACK + RST) ~= ACK or segment.ack ~= row.top[1 - side] then return end
  local micros = floor((segment.stamp - row.asked) * 1e6 + 0.5)
  if micros >= 0 and micros < LONGEST_SETUP then row.setup_rtt = max(micros, 1) end   -- 0 is not known
end

local function asker(row)
  return band(row.known, Z_ASKED) ~= 0 and 1 or 0
end

-- A SYN on a connection that is over begins another.
local function note_syn(row, segment, side)
  local known = row.known
  if band(known, BROKEN) ~= 0 or band(known, FINISHED * 3) == FINISHED * 3 then row.known = band(known, Z_ASKED) end
  if band(segment.flags, ACK) ~= 0 then
    row.syn_acks[side] = row.syn_acks[side] + 1
    if row.setup == ASKED and side ~= asker(row) then row.setup = ANSWERED end
  else
    row.syns[side] = row.syns[side] + 1
    if row.setup <= ASKED then
      row.setup, row.asked = ASKED, segment.stamp
      row.known = bor(band(row.known, 255 - Z_ASKED), side * Z_ASKED)
    end
  end
end

-- A segment that opens or ends something: how many numbers it takes for that.
local function note_rare(row, segment, side)
  local flags, taken = segment.flags, 0
  if band(flags, SYN) ~= 0 then
    note_syn(row, segment, side)
    taken = 1
  end
  if band(flags, FIN + RST) ~= 0 then row.ends[side] = row.ends[side] + 1 end
  if band(flags, FIN) ~= 0 then
    row.known = bor(row.known, lshift(FINISHED, side))
    taken = taken + 1
  end
  if band(flags, RST) ~= 0 then row.known = bor(row.known, BROKEN) end
  return taken
end

-- A segment that does not begin where the one before ended. What comes late fills the hole that it left; all else that
-- begins before the highest byte was sent before.
local function note_elsewhere(row, side, seq, reach, ahead)
  local after, top = tobit(seq + reach), row.top[side]
  if ahead >= NEAR or ahead <= -NEAR then
    row.top[side], row.hole[side], row.hole_end[side] = after, after, after
  elseif ahead > 0 then
    row.hole[side], row.hole_end[side], row.top[side] = top, seq, after
  else
    local from, room = tobit(seq - row.hole[side]), tobit(row.hole_end[side] - row.hole[side])
    if from < 0 or from >= room then
      row.retransmissions = row.retransmissions + 1
    elseif from > 0 then
      row.hole_end[side] = seq
    else
      row.hole[side] = reach < room and after or row.hole_end[side]
    end
    if tobit(after - top) > 0 then row.top[side] = after end
  end
end

local function note(row, segment)
  local side, seq, reach = segment.side, segment.seq, segment.length
  row.payload[side] = row.payload[side] + reach
  if row.setup == ANSWERED and side == asker(row) then end_setup(row, segment, side) end
  if band(segment.flags, RARE) ~= 0 then
    reach = reach + note_rare(row, segment, side)
    if band(segment.flags, RST) ~= 0 then return end
  end
  if band(row.known, lshift(BEGUN, side)) == 0 then
    local after = tobit(seq + reach)
    row.known = bor(row.known, lshift(BEGUN, side))
    row.top[side], row.hole[side], row.hole_end[side] = after, after, after
  elseif reach ~= 0 then
    local ahead = tobit(seq - row.top[side])
    if ahead == 0 then
      row.top[side] = tobit(seq + reach)
    else
      note_elsewhere(row, side, seq, reach, ahead)
    end
  end
end

-- Notes the segments of a step.
function M.note(queue, count)
  for i = 0, count - 1 do
    local segment = queue[i]
    if segment.row ~= 0 then note(row_at(segment.row), segment) end
  end
end

return M
