-- Copies every file in Lua, as inline_read_write.lua does, but in a worker.

local copying = require("copying")

TrisulPlugin = {
  id = { name = "T.async:schedule", description = "Copies files in a worker, in Lua" },

  filex_monitor = {
    onfile_http = function(engine, timestamp, flowkey, path, req_header, resp_header, length, is_partial)
      T.async:schedule({
        data = path .. "|" .. copying.target(path),
        onexecute = function(data)
          require("copying").read_write(T.util.splitm(data, "|"))
        end,
      })
    end,
  },
}
