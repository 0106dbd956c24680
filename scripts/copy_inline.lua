-- Saves every file by copying it inside the hook: the fast path waits for the disk. For comparison only.
-- offpath run scripts/copy_inline.lua --capture demo/demo.pcap --args demo/saved
local target

TrisulPlugin = {
  id = { name = "copy_inline", description = "Copies files on the fast path" },

  onload = function()
    target = T.args ~= "" and T.args or "saved"
    os.execute("mkdir -p '" .. target .. "'")
  end,

  filex_monitor = {
    onfile_http = function(engine, timestamp, flow, path)
      local from = assert(io.open(path, "rb"))
      local to = assert(io.open(target .. "/" .. path:match("[^/]+$"), "wb"))
      to:write(from:read("*a"))
      to:close()
      from:close()
    end,
  },
}
