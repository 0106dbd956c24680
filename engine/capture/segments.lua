-- What a flow row keeps of its TCP segments besides packets and bytes: payload, what was sent again, how long the handshake
-- took, and how many segments opened or ended something. Without reassembly: a few numbers each way, and one hole.
local bit = require("bit")
local lifetimes = require("capture.lifetimes")

local M = {}

local band, tobit, floor, max = bit.band, bit.tobit, math.floor, math.max
local state, CLOSED = lifetimes.state, lifetimes.CLOSED

local FIN, SYN, RST, ACK = 1, 2, 4, 16
local RARE = FIN + SYN + RST
local NEAR = 2 ^ 24            -- sequence numbers further off are of no window: counting begins anew there
local LONGEST_SETUP = 2 ^ 31   -- microseconds

-- Of `row.setup`: nothing, a SYN, and its answer were seen; the handshake is over, or was never seen whole.
local ASKED, ANSWERED, DONE = 1, 2, 3

-- A segment from the end that asked, when the other one has answered: the one that acknowledges the answer is the last
-- of the handshake.
local function end_setup(row, packet, side, time)
  if band(packet.flags, SYN) ~= 0 then return end
  row.setup = DONE
  if band(packet.flags, ACK) == 0 or band(packet.flags, RST) ~= 0 or packet.ack ~= row.top[1 - side] then return end
  local micros = floor((time - row.asked) * 1e6 + 0.5)
  if micros >= 0 and micros < LONGEST_SETUP then row.setup_rtt = max(micros, 1) end   -- 0 is not known
end

local function note_syn(row, flags, side, time)
  if band(flags, ACK) ~= 0 then
    row.syn_acks[side] = row.syn_acks[side] + 1
    if row.setup == ASKED and side ~= row.asker then row.setup = ANSWERED end
  else
    row.syns[side] = row.syns[side] + 1
    if row.setup <= ASKED then row.setup, row.asker, row.asked = ASKED, side, time end
  end
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

-- Notes a segment of a flow; `time` is its own. To be called before its flags are noted.
function M.note(row, packet, side, time)
  local flags, reach, seq = packet.flags, packet.payload_length, packet.seq
  row.payload[side] = row.payload[side] + reach
  if row.setup == ANSWERED and side == row.asker then end_setup(row, packet, side, time) end
  local fresh = row.flags[side] == 0
  if band(flags, RARE) ~= 0 then
    if band(flags, FIN + RST) ~= 0 then row.ends[side] = row.ends[side] + 1 end
    if band(flags, RST) ~= 0 then return end
    if band(flags, FIN) ~= 0 then reach = reach + 1 end
    if band(flags, SYN) ~= 0 then
      reach, fresh = reach + 1, fresh or state(row) == CLOSED
      note_syn(row, flags, side, time)
    end
  end
  if fresh then
    local after = tobit(seq + reach)
    row.top[side], row.hole[side], row.hole_end[side] = after, after, after
    return
  end
  if reach == 0 then return end
  local ahead = tobit(seq - row.top[side])
  if ahead == 0 then
    row.top[side] = tobit(seq + reach)
  else
    note_elsewhere(row, side, seq, reach, ahead)
  end
end

return M
