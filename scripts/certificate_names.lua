-- Every name that a server's certificate is for, as a resource.
-- offpath run scripts/certificate_names.lua --capture FILE --records out.jsonl
local NAMES = "{3E0C9B2A-5B1F-4C7D-9E0A-61D2C4B7A9F3}"

TrisulPlugin = {
  id = { name = "Certificate names", description = "Names in certificates" },

  fts_monitor = {
    fts_guid = function() return T.ftsgroups["SSL Certs"] end,

    onflush = function(engine, document)
      local seen = {}
      for name in document:text():gmatch("DNS:([^%s,]+)") do
        if not seen[name] then
          seen[name] = true
          engine:add_resource(NAMES, document:flow():id(), name, document:key())
        end
      end
    end,
  },
}
