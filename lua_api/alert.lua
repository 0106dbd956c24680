-- Alert: what hooks of alert monitors are given (spec 3.11). Every accessor gives text or a number, only `flow`
-- may be nil.
local M = {}

local record = require "offpath.record"

local tonumber = tonumber

local Alert = record.class {
  sigid = "sigid",
  classification = "classification",
  message = "message",
  extra_message = "extra_message",
  status = "status",
}

-- The FlowID, or nil for an alert that is tied to none.
function Alert:flow()
  return self:known_flow()
end

-- The priority, 0 when unknown.
function Alert:priority()
  return tonumber(self.fields.priority) or 0
end

-- 1 for an acknowledged alert, else 0.
function Alert:ack_flag()
  local flag = self.fields.ack_flag
  if flag == true then return 1 end
  return tonumber(flag) or 0
end

-- Mutators: the fields hold the new values afterwards. An empty message erases.
function Alert:set_priority(priority)
  self.fields.priority = tonumber(priority) or 0
end

Alert.set_message = record.setter("message")
Alert.set_extra_message = record.setter("extra_message")

-- An Alert over fields named like its methods and those of `offpath.record`; the table stays readable as `.fields`.
function M.new(fields)
  return record.new(Alert, fields)
end

return M
