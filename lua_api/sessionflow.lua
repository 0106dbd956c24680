-- Flow of a session group: what hooks of session monitors and flow trackers are given (spec 3.3).
local M = {}

local flowid = require "offpath.flowid"

local setmetatable, tostring, type = setmetatable, tostring, type
local find = string.find

local TAG_BYTES = 64 -- of all tags with their separators (spec 9.3 O12)

-- Bits of `state`. Scripts know them by their values.
M.INIT = 0x0001
M.TIMED_OUT = 0x0100
M.TERMINATED = 0x0800

local Flow = {}
Flow.__index = Flow

-- A method that gives a field.
local function getter(name)
  return function(self) return self.fields[name] end
end

Flow.key, Flow.state, Flow.tags = getter "id", getter "state", getter "tags"
Flow.az_bytes, Flow.za_bytes = getter "a_bytes", getter "z_bytes"
Flow.az_packets, Flow.za_packets = getter "a_packets", getter "z_packets"
Flow.az_payload_bytes, Flow.za_payload_bytes = getter "a_payload", getter "z_payload"
Flow.setup_rtt, Flow.retransmissions = getter "setup_rtt", getter "retransmissions"

-- The FlowID.
function Flow:flow()
  local id = self.flow_object
  if not id then
    id = flowid.from_key(self.fields.id)
    self.flow_object = id
  end
  return id
end

-- First and last second of the flow.
function Flow:time_window()
  return self.fields.first, self.fields.last
end

-- Adds a tag, unless it is there already, or all of them would come to 64 bytes.
function Flow:add_tag(tag)
  local kind = type(tag)
  if kind ~= "string" and kind ~= "number" then return end
  tag = tostring(tag)
  local tags = self.fields.tags
  if tags == "" then
    if #tag < TAG_BYTES then self.fields.tags = tag end
  elseif not find("|" .. tags .. "|", "|" .. tag .. "|", 1, true) and #tags + 1 + #tag < TAG_BYTES then
    self.fields.tags = tags .. "|" .. tag
  end
end

-- A Flow over fields: id, first, last, state, a_bytes, z_bytes, a_packets, z_packets, a_payload, z_payload, tags, setup_rtt,
-- retransmissions. The table stays readable as `.fields`.
function M.new(fields)
  return setmetatable({ fields = fields }, Flow)
end

return M
