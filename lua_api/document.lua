-- Document: what hooks of full text search monitors are given (spec 3.12).
local M = {}

local flowid = require "offpath.flowid"
local record = require "offpath.record"

local Document = record.class { key = "id", text = "text" }

-- The FlowID; the flow of all zeros when the document has none, as scripts do not test for nil.
function Document:flow()
  return self:known_flow() or flowid.from_key(nil)
end

-- A Document over fields `id`, `text` and those of `offpath.record`; the table stays readable as `.fields`.
function M.new(fields)
  return record.new(Document, fields)
end

return M
