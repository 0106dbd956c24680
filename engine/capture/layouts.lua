-- Every struct that capture code shares, and the byte-order helpers. Nothing else here knows a file or a protocol.
-- Sizes and offsets that Python unpacks (event, row, counters) are stated beside the struct and asserted below.
-- A dissected packet is a frame of `offpath.frame`: scripts read it too.
local ffi = require("ffi")
local bit = require("bit")

local M = {}

-- The most records that one step reads: queues between its loops have as many places.
M.STEP = 2048

ffi.cdef [[
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void free(void *memory);
void *memchr(const void *memory, int byte, size_t count);

// One record of the capture file, as the reader found it.
typedef struct {
  double   time;         // seconds since the epoch
  double   offset;       // of the packet, from the start of the mapping
  int32_t  captured;     // bytes in the file
  int32_t  wire;         // bytes on the wire, never less than captured
  int32_t  link;         // link type
  int32_t  precise;      // 1: time stamps of the file are finer than microseconds
  uint32_t seconds, nanos;   // the time stamp, exactly; only where it is precise
} offpath_record_t;

// A TCP packet on its way from the packet loop to the stream loop. Row 0: only the time goes on.
typedef struct {
  double   time;              // stream time
  double   stamp;             // its own
  double   address;           // of the payload
  int32_t  row;
  int32_t  seq, ack;
  int32_t  captured, length;  // payload bytes in the file, on the wire
  uint8_t  flags, side;
} offpath_segment_t;

// One flow: a 5-tuple, A and Z as in the flow key, from its first packet until it is over. 240 bytes.
typedef struct {
  int32_t  address[8];        // A, then Z; network order
  uint16_t port[2];
  uint8_t  proto, family;     // family 0: the row is free
  uint8_t  client;            // 1 when a SYN showed A to be the client, 2 when Z, 0 when none did
  uint8_t  setup;             // how far the handshake has come (segments.lua)
  int32_t  hash, number;      // of the 5-tuple; of the flow, counted from 1 on, 0 when the row is free
  int32_t  stream;            // slot of the TCP stream, 0 none, -1 ended
  int32_t  before, after;     // in a list of wheel.lua
  int32_t  seq[2];            // of the last segment from A, from Z
  uint8_t  flags[2];          // of all segments from A, from Z
  uint8_t  known;             // of the TCP segments from A, from Z (segments.lua)
  uint8_t  told;              // 1: counted as a flow of a window (turnover.lua)
  double   packets[2], bytes[2];   // from A, from Z
  double   first, last;       // time stamps
  double   seen;              // stream time of the last packet
  double   quiet_until;       // after the end of a stream: stream time until which only a SYN starts another
  double   payload[2];        // TCP: bytes from A, from Z
  int32_t  top[2];            // TCP: where the highest segment from A, from Z ends, and what is missing before it
  int32_t  hole[2], hole_end[2];
  double   asked;             // time of the SYN that was answered, or waits to be
  int32_t  setup_rtt;         // microseconds from that to the end of the handshake, 0 not known
  int32_t  retransmissions;   // segments from A and Z that repeated bytes
  double   counted_bytes[2];  // of `bytes`, and of `packets` modulo 2^32: what is in the windows already
  int32_t  counted_packets[2];
  int32_t  syns[2], syn_acks[2], ends[2];   // segments from A, from Z; `ends` have FIN or RST. Not in the windows yet
} offpath_row_t;

typedef struct { int32_t hash, row; } offpath_slot_t;   // row 0: empty

// A datagram whose fragments are coming in, in the chain of its hash and in the list by age.
typedef struct {
  double   time;              // of its first fragment that came
  int32_t  ip[8], id;         // as in the frame
  int32_t  total;             // bytes; 0 until the last fragment came
  int32_t  last;              // where the bytes end that were seen
  int32_t  units;             // of 8 bytes that were seen
  int32_t  captured;          // up to where no byte is known to be missing from the file
  int32_t  stored, fragments; // bytes, and fragments that brought them
  int32_t  bucket, next, older, newer;
  uint8_t  proto, family;
} offpath_datagram_t;

// Bytes held behind a hole: a copy of them, or nothing but their length when they were not captured.
typedef struct {
  double   address;           // of the copy; negative when not captured
  double   since;             // when the earliest of this and all later pieces came
  int32_t  seq, length;
  int32_t  prev, next;
} offpath_held_t;

// One direction of a TCP stream.
typedef struct {
  double   position;          // stream offset of next_seq
  double   since;             // when the hole in front of the held pieces appeared
  double   fin_since;
  int32_t  next_seq, fin_seq, ack;
  int32_t  first, last;       // held pieces, in order
  int32_t  held, pieces;      // bytes and number of them
  int32_t  older_hole, newer_hole;
  uint8_t  based, has_fin, has_ack, is_reset, in_holes;
} offpath_half_t;

typedef struct {
  offpath_half_t half[2];     // as sent by A, by Z of the flow row
  double   id, last, touched;
  int32_t  slot, row, batch, event;
  int32_t  older, newer;      // by last activity
  uint8_t  opened, roles, flip;   // direction of an event = side xor flip
  uint8_t  muted;             // nothing but its end is told
} offpath_stream_t;

typedef struct { double now, wake; } offpath_clock_t;

// What Python unpacks as <dqqIIBBxxiii. 48 bytes.
typedef struct {
  double   time;
  int64_t  stream, position;
  uint32_t length, offset;    // offset in the arena
  uint8_t  kind, direction;
  uint16_t reserved;
  int32_t  first, last;       // pieces of a DATA event; of OPEN the stream's slot, and its key among those of the batch
  int32_t  reserved2;
} offpath_event_t;

typedef struct { double address; int32_t length, next; } offpath_piece_t;

typedef struct { double ticks, shift; int32_t link, snaplen; } offpath_interface_t;

// What Python reads as doubles, in the order of DecodeStats.
typedef struct {
  double packets, wire_bytes, captured_bytes, cut, decoded, malformed, undecoded;
  double fragments, fragments_held, fragments_reassembled, fragments_dropped, fragments_timed_out, datagrams, too_deep;
  double flows, flows_live, flows_closed, flows_timed_out, flows_rejected;
  double segments, streams, streams_rejected, retransmitted, overlapping, out_of_order, held_over;
  double gaps, gap_bytes;
} offpath_counters_t;
]]

assert(ffi.sizeof("offpath_row_t") == 240 and ffi.sizeof("offpath_event_t") == 48)

for _, name in ipairs { "record", "segment", "row", "slot", "datagram", "held", "half", "stream", "event",
                        "piece", "interface", "clock", "counters" } do
  M[name .. "_t"] = ffi.typeof("offpath_" .. name .. "_t")
end

M.packet_t = require("offpath.frame").frame_t
M.bytes_ptr_t = ffi.typeof("uint8_t *")

-- One set of counters for the whole state: every module adds to it, Python reads it through its address.
M.counters = M.counters_t()

local word_ptr_t = ffi.typeof("const int32_t *")
local band, bor, lshift, rshift, bswap = bit.band, bit.bor, bit.lshift, bit.rshift, bit.bswap
local cast = ffi.cast

-- Four bytes as they lie in memory, signed. The caller has checked that they are there.
function M.rd32(p, offset)
  return cast(word_ptr_t, p + offset)[0]
end

-- Four bytes in network order, signed, on a little-endian machine. Checked by the caller.
local native_little = ffi.abi("le")
function M.be32(p, offset)
  local word = cast(word_ptr_t, p + offset)[0]
  return native_little and bswap(word) or word
end

-- Two bytes in network order. Checked by the caller. In parentheses it is no tail call: a trace has room for few.
function M.be16(p, offset)
  return (bor(lshift(p[offset], 8), p[offset + 1]))
end

-- The address of an array, as a number. User space ends well below 2^53.
function M.address_of(array)
  return tonumber(cast("uintptr_t", cast("void *", array)))
end

local C, gc = ffi.C, ffi.gc

local function owned(memory, bytes)
  if memory == nil then error("no memory: " .. bytes .. " bytes") end
  return gc(cast(M.bytes_ptr_t, memory), C.free)
end

-- Memory outside of Lua's heap that is freed with the last reference to it; large runs cost nothing until touched.
function M.allocate(bytes)
  return owned(C.malloc(bytes), bytes)
end

-- The same, all zero.
function M.allocate_zeroed(bytes)
  return owned(C.calloc(bytes, 1), bytes)
end

-- An array that grows a chunk at a time, so that nothing in it ever moves. Index 0 stays unused: it means none.
function M.pool(element_t, bits)
  local array_t, mask, chunks = ffi.typeof("$[?]", element_t), lshift(1, bits) - 1, {}
  local pool = { free = 0 }

  function pool.at(index)
    return chunks[rshift(index, bits)][band(index, mask)]
  end

  -- Makes sure that the element is there, zeroed when it is new.
  function pool.reserve(index)
    local chunk = rshift(index, bits)
    if chunks[chunk] == nil then chunks[chunk] = array_t(mask + 1) end
  end

  -- How many elements lie in one run of memory from this one on.
  function pool.run(index)
    return mask + 1 - band(index, mask)
  end

  return pool
end

return M
