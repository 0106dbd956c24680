-- Resource: what hooks of resource monitors are given (spec 3.10). `uri` and `contents` are the fields that
-- `add_resource` takes; scripts read the second as `label()`.
local M = {}

local flowid = require "offpath.flowid"
local record = require "offpath.record"

local Resource = record.class { uri = "uri", label = "contents" }

-- The FlowID; the flow of all zeros when the resource has none, as scripts do not test for nil.
function Resource:flow()
  return self:known_flow() or flowid.from_key(nil)
end

-- Mutators: the fields hold the new text afterwards.
Resource.set_uri = record.setter("uri")
Resource.set_label = record.setter("contents")

-- A Resource over fields `uri`, `contents` and those of `offpath.record`; the table stays readable as `.fields`.
function M.new(fields)
  return record.new(Resource, fields)
end

return M
