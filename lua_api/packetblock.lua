-- The blocks that see packets: which protocols they name, and how their frames are fed (spec 2.2, 2.15).

local feed = require "offpath.feed"
local guids = require "offpath.guids"
local protocols = require "offpath.protocols"

local error, tonumber, tostring, type = error, tonumber, tostring, type

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

-- Host and protocol of a handler whose host is a protocol of scripts, as numbers; nothing for others.
function M.guest(name, block)
  if name ~= "protocol_handler" or block.control.host_protocol_guid == nil then return end
  local host = protocols.find(block.control.host_protocol_guid)
  if host > protocols.NATIVE then return host, protocols.find(block.control.guid) end
end

-- The ports as a set; spec 9.3 O4: numeric strings are numbers.
local function ports_of(control)
  local listed, ports = control.host_protocol_ports, {}
  for _, port in ipairs(type(listed) == "table" and listed or { listed }) do
    if tonumber(port) then ports[tonumber(port)] = true end
  end
  return ports
end

-- What feeds frames to a block, or nil when it has no packet hook.
function M.start(name, block, context)
  if name == "simplecounter" then
    if type(block.onpacket) ~= "function" then return nil end
    return feed.counter(context, protocols.find(block.protocol_guid), block.onpacket)
  end
  if name ~= "protocol_handler" or type(block.parselayer) ~= "function" then return nil end
  local control = block.control
  local host = control.host_protocol_guid and protocols.find(control.host_protocol_guid)
  return feed.handler(context, protocols.find(control.guid), host, ports_of(control), block.parselayer)
end

return M
