-- The UDP datagrams of chosen ports among the frames of a step. All others are passed over here, in one compiled loop.
local bit = require("bit")
local ffi = require("ffi")
local frames = require("offpath.frame")
local flow_keys = require("offpath.flowkey")

local M = {}

local band, cast = bit.band, ffi.cast
local frame_ptr_t, bytes_ptr_t = frames.frame_ptr_t, ffi.typeof("const uint8_t *")

local UDP = 17
local LONG_HEADER = 0xC0           -- first bits of a QUIC packet that has one (RFC 9000, 17.2)

local wanted = ffi.new("uint8_t[65536]")   -- by port
local quic = ffi.new("uint8_t[65536]")

-- `ports`: all of their datagrams are wanted, both ways. `quic_ports`: those sent to them that begin like a handshake.
function M.configure(ports, quic_ports)
  for _, port in ipairs(ports) do wanted[port] = 1 end
  for _, port in ipairs(quic_ports) do quic[port] = 1 end
end

local function is_wanted(frame, payload)
  if wanted[frame.port[0]] ~= 0 or wanted[frame.port[1]] ~= 0 then return true end
  return quic[frame.port[1]] ~= 0 and band(payload[0], LONG_HEADER) == LONG_HEADER
end

-- The next one from a frame on: where to look further, its time, flow key, ports of source and target, bytes. Or nothing.
function M.next(address, count, from)
  local batch = cast(frame_ptr_t, address)
  for at = from, count - 1 do
    local frame = batch[at]
    if frame.proto == UDP and frame.has_ports ~= 0 and frame.payload_captured > 0 then
      local payload = cast(bytes_ptr_t, frame.address) + frame.payload
      if is_wanted(frame, payload) then
        return at + 1, frame.time, flow_keys.of_frame(frame), frame.port[0], frame.port[1],
          ffi.string(payload, frame.payload_captured)
      end
    end
  end
end

return M
