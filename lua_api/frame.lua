-- Dissected packets as they lie in memory: what a decoder leaves behind for each packet of a batch, to be read by
-- whoever was given the address. A frame and the bytes it points to hold until the decoder's next step.
local ffi = require "ffi"

local M = {
  LAYERS = 16,    -- that a frame has room for; what lies deeper is dissected but not listed
}

ffi.cdef [[
// One header. It lies within the captured bytes: one that the snap length cut has what is there of it.
typedef struct {
  uint16_t protocol;          // a number of offpath.protocols
  uint16_t reserved;          // while protocol handlers run, what was said to come next: its number, or 0
  int32_t  offset, length;    // from the packet's first byte; bytes
} offpath_layer_t;

// One packet. Ports, payload and addresses are those of the innermost TCP, UDP or SCTP header (has_ports 1), else the
// addresses are those of the innermost IP header. Addresses are in network order, IPv4 in words 0 and 4; all else is
// in host order. A datagram put together from fragments is a frame of its own memory: the headers before the last
// fragment that came, then the whole datagram, so that `captured` may be more than `wire`.
typedef struct {
  double   time;              // seconds since the epoch
  double   address;           // of the packet's first byte
  int32_t  captured;          // bytes that may be read there
  int32_t  wire;              // bytes on the wire
  uint16_t link;              // link type
  uint8_t  store;             // what packet hooks say of storing this packet: a rank of offpath.storage
  uint8_t  layer_count;
  int32_t  row;               // in the flow table, or 0; another flow has it when this one is over
  int32_t  flow;              // its number, which no other flow has, or 0
  int32_t  ip[8];             // source, then destination
  int32_t  seq, ack;          // TCP
  int32_t  payload;           // offset of what the innermost transport header carries
  int32_t  payload_captured;  // bytes of it that may be read, and
  int32_t  payload_length;    // on the wire
  int32_t  present[2];        // one bit for each protocol that is among the layers
  uint16_t port[2];           // source, destination
  uint8_t  family;            // of the addresses: 4, 6, or 0 for none
  uint8_t  proto;             // IP protocol
  uint8_t  flags;             // TCP
  uint8_t  has_ports, has_tcp;
  uint8_t  side;              // 0 when A of the flow key sent the packet, 1 when Z did
  uint8_t  verdict;           // 0 malformed, 1 not decoded, 2 decoded
  uint8_t  fragment;          // 1: part of a datagram that is not complete
  uint8_t  reassembled;       // 1: completed one
  uint8_t  tunnels;           // entered on the way in
  uint8_t  too_deep;          // 1: more tunnels or layers than are followed or listed
  uint8_t  resumed;           // 1: was just dissected further, because a protocol handler said so
  offpath_layer_t layer[16];  // from the outside in
} offpath_frame_t;

// The packet of a frame as it lies in the capture, whatever became of it there.
typedef struct {
  double   address;           // of its first byte
  uint32_t seconds, nanos;    // its time stamp, exactly
  int32_t  captured, wire, link;
  int32_t  precise;           // 1: the capture has time stamps finer than microseconds
  int32_t  row, side;         // the flow that it was counted to, and by which side
} offpath_origin_t;
]]

M.layer_t, M.frame_t = ffi.typeof("offpath_layer_t"), ffi.typeof("offpath_frame_t")
M.frame_ptr_t = ffi.typeof("offpath_frame_t *")
M.origin_t, M.origin_ptr_t = ffi.typeof("offpath_origin_t"), ffi.typeof("offpath_origin_t *")
M.BYTES, M.HEAD_BYTES, M.LAYER_BYTES = ffi.sizeof(M.frame_t), ffi.offsetof(M.frame_t, "layer"), ffi.sizeof(M.layer_t)

-- What is not Lua reads frames by these numbers.
assert(M.BYTES == 304 and M.HEAD_BYTES == 112 and M.LAYER_BYTES == 12)

return M
