-- Copies every file inside the hook, with cp.

local copying = require("copying")

TrisulPlugin = {
  id = { name = "inline cp", description = "Copies files inside the hook, with cp" },

  filex_monitor = {
    onfile_http = function(engine, timestamp, flowkey, path, req_header, resp_header, length, is_partial)
      copying.cp(path, copying.target(path))
    end,
  },
}
