-- The 20 flows of each five minutes whose client sent the most, of those that sent more than they got.
-- offpath run scripts/top_uploads.lua --capture FILE --records out.jsonl
TrisulPlugin = {
  id = { name = "Top uploads", description = "Flows that send the most" },

  flowtracker = {
    control = { name = "Uploads", description = "Bytes sent by clients", bucketsize = 300, count = 20 },

    -- Z has the lower port, so that A is the client.
    getmetric = function(_, flow)
      local sent = flow:az_bytes()
      return sent > flow:za_bytes() and sent or 0
    end,
  },
}
