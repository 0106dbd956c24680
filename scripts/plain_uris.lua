-- HTTP resources without the query of their path, and none for pictures.
-- offpath run scripts/plain_uris.lua --capture FILE --records out.jsonl
local PICTURES = { png = true, jpg = true, gif = true, ico = true }

TrisulPlugin = {
  id = { name = "Plain URIs", description = "Resources without queries and pictures" },

  resource_monitor = {
    resource_guid = function() return T.resourcegroups["HTTP URIs"] end,

    flushfilter = function(_, resource)
      local path = resource:uri():match("^[^?]*")
      return not PICTURES[path:match("%.(%w+)$")]
    end,

    onflush = function(_, resource)
      resource:set_uri((resource:uri():gsub("%?.*", "")))
    end,
  },
}
