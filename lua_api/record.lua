-- What Resource and Alert have in common (spec 3.10, 3.11): a time, a flow and its two ends, over a plain table of
-- fields that the host may read again. Fields: `time` (epoch seconds) or `sec` and `usec`; `flow` (a flow key or a
-- FlowID); `source_ip`, `source_port`, `destination_ip`, `destination_port` in readable form.
local M = {}

local flowid = require "offpath.flowid"

local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type

-- A field as text; nil is "", so that scripts may join it to other text.
local function text(value)
  return value == nil and "" or tostring(value)
end

-- A method that gives a field as text, or what `derive` finds in the flow when the field is absent.
local function text_method(name, derive)
  return function(self)
    local value = self.fields[name]
    if value == nil and derive then
      local flow = self:known_flow()
      if flow then value = flow[derive](flow) end
    end
    return text(value)
  end
end

local Methods = {}

-- Seconds and microseconds since the epoch.
function Methods:timestamp()
  local fields = self.fields
  if fields.sec then return tonumber(fields.sec) or 0, tonumber(fields.usec) or 0 end
  local time = tonumber(fields.time) or 0
  local usec = math.floor(time * 1e6 + 0.5)
  return (usec - usec % 1000000) / 1000000, usec % 1000000
end

-- The FlowID, or nil when there is none.
function Methods:known_flow()
  if self.flow_object == nil then
    local key = flowid.key_of(self.fields.flow)
    self.flow_object = key and key ~= "" and flowid.from_key(key) or false
  end
  return self.flow_object or nil
end

-- Without fields of their own, the ends are those of the flow: A the source, Z the destination.
Methods.source_ip = text_method("source_ip", "ipa_readable")
Methods.source_port = text_method("source_port", "porta_readable")
Methods.destination_ip = text_method("destination_ip", "ipz_readable")
Methods.destination_port = text_method("destination_port", "portz_readable")

-- A class with the common methods, plus one getter for each of `names` (method name to field name).
function M.class(names)
  local class = {}
  for name, method in pairs(Methods) do class[name] = method end
  for name, field in pairs(names) do class[name] = text_method(field) end
  class.__index = class
  return class
end

-- A method that sets a field to text.
function M.setter(name)
  return function(self, value)
    self.fields[name] = text(value)
  end
end

-- An object of a class over a table of fields, which it shares with the caller.
function M.new(class, fields)
  return setmetatable({ fields = type(fields) == "table" and fields or {} }, class)
end

return M
