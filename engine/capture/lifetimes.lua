-- How long a flow may be silent before it is over, by its protocol and by what the flags of its TCP segments say.
local bit = require("bit")

local M = {
  OPEN = 0, CLOSED = 1,        -- what `state` says
}

local band, bor, tobit, abs = bit.band, bit.bor, bit.tobit, math.abs

local UDP, TCP = 17, 6
local FIN, SYN, RST, ACK = 1, 2, 4, 16
local RARE = FIN + SYN + RST
local NEAR = 2 ^ 24            -- how far from what its sender sent last a reset may be (as in tcp.lua)
local OPEN, CLOSED = M.OPEN, M.CLOSED

local idle, attempt, closed, datagrams = 0, 0, 0, 0

-- Seconds of stream time: `idle` of TCP connections and SCTP associations, `attempt` of connections whose handshake is
-- not over, `closed` of those that ended, `datagrams` of UDP.
function M.configure(seconds)
  idle, attempt, closed, datagrams = seconds.idle, seconds.attempt, seconds.closed, seconds.datagrams
end

-- Whether the ends of a TCP connection closed it, both or one by a reset.
local function state(row)
  local from_a, from_z = row.flags[0], row.flags[1]
  if band(bor(from_a, from_z), RST) ~= 0 or band(band(from_a, from_z), FIN) ~= 0 then return CLOSED end
  return OPEN
end

-- Whether an end asked for a connection and never acknowledged anything.
local function is_attempt(row)
  return band(row.flags[0], SYN + ACK) == SYN or band(row.flags[1], SYN + ACK) == SYN
end

-- Seconds that a flow may be silent.
local function lifetime(row)
  if row.proto == UDP then return datagrams end
  if row.proto ~= TCP then return idle end
  if state(row) == CLOSED then return closed end
  return is_attempt(row) and attempt or idle
end

-- A segment that opens or ends something. A new handshake on a connection that is closed opens it again; a reset far
-- from what its sender sent last is forged.
local function note_rare(row, packet, side)
  local flags, seq, before = packet.flags, packet.seq, lifetime(row)
  if band(flags, RST) ~= 0 then
    if seq ~= 0 and row.flags[side] ~= 0 and abs(tobit(seq - row.seq[side])) >= NEAR then return false end
  else
    if band(flags, SYN) ~= 0 and state(row) == CLOSED then row.flags[0], row.flags[1] = 0, 0 end
    row.seq[side] = seq
  end
  row.flags[side] = bor(row.flags[side], flags)
  return lifetime(row) < before
end

-- Notes a TCP segment of a flow; returns whether that may now be silent for a shorter time than before.
function M.note_segment(row, packet, side)
  if band(packet.flags, RARE) ~= 0 then return (note_rare(row, packet, side)) end
  row.flags[side], row.seq[side] = bor(row.flags[side], packet.flags), packet.seq
  return false
end

M.of, M.state = lifetime, state

return M
