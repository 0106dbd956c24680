-- Which packets are stored: answers of packet_storage hooks (spec 2.14), hints of packet hooks, and the copying of what was chosen.
--
-- An answer is kept as its rank, so that the more liberal of two is the greater number: one byte for each flow row, in memory that
-- all states share, and one in each frame (frame.lua), for packets without a row and for hints. The row of a flow that is over is
-- another flow's later: whoever keeps something of a row keeps the number of the flow with it.

local bit = require "bit"
local ffi = require "ffi"
local frames = require "offpath.frame"
local flow_keys = require "offpath.flowkey"
local failure = require "offpath.failure"
local effects = require "offpath.effects"
local adapters = require "offpath.hooks"

local band, bor = bit.band, bit.bor
local cast, copy, tonumber, xpcall = ffi.cast, ffi.copy, tonumber, xpcall
local frame_ptr_t, origin_ptr_t = frames.frame_ptr_t, frames.origin_ptr_t
local ranks_ptr_t, bytes_ptr_t = ffi.typeof("uint8_t *"), ffi.typeof("const uint8_t *")

ffi.cdef [[
// Records one after the other that go into one file. Python unpacks it as <4i2I.
typedef struct { int32_t link, precise, bytes, packets; uint32_t seconds, nanos; } offpath_store_run_t;

// What is known of the flow of a row, by the store and by one that asks about it.
typedef struct { int32_t flow; uint32_t bytes; } offpath_stored_t;
typedef struct { int32_t flow; uint8_t shown; } offpath_asked_t;

void *calloc(size_t count, size_t size);
void free(void *memory);
]]

local stored_ptr_t, asked_ptr_t = ffi.typeof("offpath_stored_t *"), ffi.typeof("offpath_asked_t *")

local M = {}

local NONE, SKIP, HEADERS, FULL = 0, 1, 2, 7
-- By return code: no opinion, do not store, headers, then 10 KB, 100 KB, 1 MB and 10 MB of the flow, and all of it.
local RANKS = { [-1] = NONE, [0] = SKIP, [2] = HEADERS, [5] = 3, [4] = 4, [3] = 5, [6] = 6, [1] = FULL }
local MOST = { [3] = 10 * 1024, [4] = 100 * 1024, [5] = 1024 * 1024, [6] = 10 * 1024 * 1024 }

local KEYS = 65536         -- flows without a row whose answers are kept; past it they are asked again
local UDP = 17
local RUN_BYTES = 262144   -- after which a run ends, so that a file may
local RECORD = 16          -- bytes of a pcap record header

-- The rank of what a hook returned.
function M.rank(code) return RANKS[tonumber(code) or -1] or NONE end

-- A table of what was asked about; its pages take no memory before they are written to.
local function new_table(rows)
  local memory = ffi.C.calloc(rows + 1, ffi.sizeof("offpath_asked_t"))
  if memory == nil then error("no memory for the flows to be asked about") end
  return ffi.gc(cast(asked_ptr_t, memory), ffi.C.free)
end

---- asking ------------------------------------------------------------------------------------------------------------

local SEEN = { [0] = 1, 2 }            -- bits of a UDP flow: datagrams of this direction were shown,
local KNOWN, Z_IS_CLIENT = 4, 8        -- and which end sent the first

-- What asks a block about the flows of a capture. `ranks` is the address of one byte for each of `rows` rows and row 0. Returns
-- two functions. ask(address, count) shows each new flow among frames to filter, and the first datagram of either direction to
-- filter_payload; it gives how often either was called. show(row, time, flow, direction, seekpos, data) shows bytes of a stream.
function M.asker(context, block, ranks, rows)
  ranks = cast(ranks_ptr_t, ranks)
  local filter, filter_payload = block.filter, block.filter_payload
  local hooks = adapters.packet_storage
  local asked, by_key, keys, place = new_table(rows), {}, 0, 0
  local calls = { filter = 0, filter_payload = 0 }
  local datagrams = type(filter_payload) == "function"
  if type(filter) ~= "function" then filter = nil end

  local function raise_rank(row, rank)
    if rank > ranks[row] then ranks[row] = rank end
  end

  -- The rank of what a hook answers; none when it raises.
  local function call(name, hook, time, ...)
    context.time = time
    local ok, answer = xpcall(hooks[name], failure.handler, hook, context.engine, time, ...)
    if ok then return M.rank(answer) end
    context.put(effects.ERROR, 3, name, failure.parts(answer))
    return NONE
  end

  local function ask(name, hook, frame, ...)
    calls[name] = calls[name] + 1
    context.wire_length, context.place = frame.wire, place
    local rank = call(name, hook, frame.time, flow_keys.of_frame(frame), ...)
    context.wire_length, context.place = nil, nil
    return rank
  end

  -- The answer for a frame that has no row, by its key.
  local function ask_by_key(frame)
    local key = flow_keys.of_frame(frame)
    local rank = by_key[key]
    if rank then return rank end
    if keys == KEYS then by_key, keys = {}, 0 end
    rank = ask("filter", filter, frame)
    by_key[key], keys = rank, keys + 1
    return rank
  end

  local function show_datagram(frame, row)
    local state, side = asked[row].shown, frame.side
    if band(state, KNOWN) == 0 then state = bor(KNOWN, side == 1 and Z_IS_CLIENT or 0) end
    if frame.payload_captured > 0 and band(state, SEEN[side]) == 0 then
      state = bor(state, SEEN[side])
      local client = band(state, Z_IS_CLIENT) ~= 0 and 1 or 0
      local data = cast(bytes_ptr_t, frame.address) + frame.payload
      local text = ffi.string(data, frame.payload_captured)
      raise_rank(row, ask("filter_payload", filter_payload, frame, side == client and 0 or 1, 0, text))
    end
    asked[row].shown = state
  end

  local function ask_frames(address, count)
    local batch = cast(frame_ptr_t, address)
    calls.filter, calls.filter_payload = 0, 0
    for at = 0, count - 1 do
      local frame = batch[at]
      local row = frame.row
      place = at
      if row ~= 0 and asked[row].flow ~= frame.flow then
        asked[row].flow, asked[row].shown = frame.flow, 0
        if filter then raise_rank(row, ask("filter", filter, frame)) end
      elseif row == 0 and filter then
        local rank = ask_by_key(frame)
        if rank > frame.store then frame.store = rank end
      end
      if datagrams and row ~= 0 and frame.proto == UDP then show_datagram(frame, row) end
    end
    return calls.filter, calls.filter_payload
  end

  local function show(row, ...) raise_rank(row, call("filter_payload", filter_payload, ...)) end

  return ask_frames, show
end

---- copying -----------------------------------------------------------------------------------------------------------

local lengths, length_room = nil, 0       -- bytes to store of each frame, -1 for none
local runs, run_room = nil, 0
local run_t = ffi.typeof("offpath_store_run_t[?]")
local uint32_ptr_t = ffi.typeof("uint32_t *")
local batch, origins, batch_count

-- Forgets what was answered, and stored, of flows that are over, where their rows are of other flows in a batch. To be called
-- before anybody answers. `ranks` as above, `stored` the address of as many offpath_stored_t.
function M.renew(address, count, ranks, stored)
  local frame_of, rank_of, stored_of = cast(frame_ptr_t, address), cast(ranks_ptr_t, ranks), cast(stored_ptr_t, stored)
  for at = 0, count - 1 do
    local frame = frame_of[at]
    local row = frame.row
    if row ~= 0 and stored_of[row].flow ~= frame.flow then
      stored_of[row].flow, stored_of[row].bytes, rank_of[row] = frame.flow, 0, NONE
    end
  end
end

-- Bytes of a packet up to what its innermost transport header carries; all headers where there is no such.
local function header_bytes(frame, captured)
  local bytes = captured
  if frame.has_ports == 1 then
    bytes = frame.payload
  elseif frame.layer_count > 0 then
    local last = frame.layer[frame.layer_count - 1]
    bytes = last.offset + last.length
  end
  if bytes > captured then return captured end
  return bytes > 0 and bytes or 0
end

-- Bytes to store of a frame, or -1.
local function length_of(frame, captured, rank, stored)
  if rank == NONE or rank == FULL then return captured end
  if rank == SKIP then return -1 end
  if rank == HEADERS then return header_bytes(frame, captured) end
  if frame.row == 0 or stored[frame.row].bytes < MOST[rank] then return captured end
  return -1
end

-- Decides on the frames of a batch; `ranks` and `stored` as above. Returns the bytes that their records need, how many packets these are, and how many of them lost bytes.
function M.choose(frames_address, origins_address, count, ranks, stored)
  batch, origins, batch_count = cast(frame_ptr_t, frames_address), cast(origin_ptr_t, origins_address), count
  ranks, stored = cast(ranks_ptr_t, ranks), cast(stored_ptr_t, stored)
  if count > length_room then lengths, length_room = ffi.new("int32_t[?]", count), count end
  local bytes, packets, shortened = 0, 0, 0
  for at = 0, count - 1 do
    local frame, captured = batch[at], origins[at].captured
    local row = frame.row
    local rank = row ~= 0 and ranks[row] or NONE
    if frame.store > rank then rank = frame.store end
    local length = length_of(frame, captured, rank, stored)
    lengths[at] = length
    if length >= 0 then
      bytes, packets = bytes + RECORD + length, packets + 1
      if length < captured then shortened = shortened + 1 end
      if row ~= 0 and stored[row].bytes < 2 ^ 31 then stored[row].bytes = stored[row].bytes + length end
    end
  end
  return bytes, packets, shortened
end

-- Writes the records that `choose` counted. Returns the runs they make, as one string.
function M.write(address)
  if batch_count > run_room then runs, run_room = run_t(batch_count), batch_count end
  local target, used, made = cast(ranks_ptr_t, address), 0, 0
  local run
  for at = 0, batch_count - 1 do
    local length = lengths[at]
    if length >= 0 then
      local origin = origins[at]
      if made == 0 or run.link ~= origin.link or run.precise ~= origin.precise or run.bytes >= RUN_BYTES then
        run, made = runs[made], made + 1
        run.link, run.precise, run.bytes, run.packets = origin.link, origin.precise, 0, 0
        run.seconds, run.nanos = origin.seconds, origin.nanos
      end
      local head = cast(uint32_ptr_t, target + used)
      head[0], head[1] = origin.seconds, origin.precise == 1 and origin.nanos or origin.nanos / 1000
      head[2], head[3] = length, origin.wire
      copy(target + used + RECORD, cast(bytes_ptr_t, origin.address), length)
      used = used + RECORD + length
      run.bytes, run.packets = run.bytes + RECORD + length, run.packets + 1
    end
  end
  batch, origins = nil, nil
  return ffi.string(runs, made * ffi.sizeof("offpath_store_run_t"))
end

return M
