-- Saves every file with T.async:schedule: the same Lua code as copy_inline.lua, run on a worker thread.
-- offpath run scripts/copy_schedule.lua --capture demo/demo.pcap --args demo/saved
local target

TrisulPlugin = {
  id = { name = "copy_schedule", description = "Copies files in Lua, off the fast path" },

  onload = function()
    target = T.args ~= "" and T.args or "saved"
    os.execute("mkdir -p '" .. target .. "'")
  end,

  filex_monitor = {
    onfile_http = function(engine, timestamp, flow, path)
      T.async:schedule({
        data = path,
        onexecute = function(file)
          local from = assert(io.open(file, "rb"))
          local to = assert(io.open(target .. "/" .. file:match("[^/]+$"), "wb"))
          to:write(from:read("*a"))
          to:close()
          from:close()
        end,
      })
    end,
  },
}
