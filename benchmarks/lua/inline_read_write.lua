-- Copies every file inside the hook, in Lua.

local copying = require("copying")

TrisulPlugin = {
  id = { name = "inline read/write", description = "Copies files inside the hook, in Lua" },

  filex_monitor = {
    onfile_http = function(engine, timestamp, flowkey, path, req_header, resp_header, length, is_partial)
      copying.read_write(path, copying.target(path))
    end,
  },
}
