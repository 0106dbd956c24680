-- The blocks that see packets: which protocols they name, and how their frames are fed (spec 2.2, 2.15).

local feed = require "offpath.feed"
local guids = require "offpath.guids"
local protocols = require "offpath.protocols"

local error, tostring, type = error, tostring, type

local M = {}

local function guid_in(owner, field, name)
  local value = owner[field]
  if value == nil then return nil end
  local guid = guids.canonical(value)
  if not guid then error(("%s must be a GUID, not %s"):format(name, tostring(value)), 0) end
  return guid
end

-- The protocols that a block names, as pairs of GUID and name. Raises a text that says which field is wrong.
function M.named(name, block)
  if name == "simplecounter" then
    local guid = guid_in(block, "protocol_guid", "simplecounter.protocol_guid")
    if not guid then error("simplecounter.protocol_guid is missing", 0) end
    return { guid, "" }
  end
  local control = block.control
  if type(control) ~= "table" then error("protocol_handler.control is missing", 0) end
  local guid = guid_in(control, "guid", "protocol_handler.control.guid")
  if not guid then error("protocol_handler.control.guid is missing", 0) end
  local host = guid_in(control, "host_protocol_guid", "protocol_handler.control.host_protocol_guid")
  local label = type(control.name) == "string" and control.name or ""
  return host and { guid, label, host, "" } or { guid, label }
end

-- What feeds frames to a block, or nil when it has no packet hook.
function M.start(name, block, context)
  if name == "simplecounter" then
    if type(block.onpacket) ~= "function" then return nil end
    return feed.counter(context, protocols.find(block.protocol_guid), block.onpacket)
  end
  if name ~= "protocol_handler" or type(block.parselayer) ~= "function" then return nil end
  local control = block.control
  local ports = type(control.host_protocol_ports) == "table" and control.host_protocol_ports or {}
  local host = control.host_protocol_guid and protocols.find(control.host_protocol_guid)
  return feed.handler(context, protocols.find(control.guid), host, ports, block.parselayer)
end

return M
