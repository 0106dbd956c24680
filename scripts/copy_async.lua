-- Saves every file with T.async:copy: the hook returns at once, the copy is made by the kernel on another thread.
-- offpath run scripts/copy_async.lua --capture demo/demo.pcap --args demo/saved
local target

TrisulPlugin = {
  id = { name = "copy_async", description = "Copies files off the fast path" },
  request_async_workers = 2,

  onload = function()
    target = T.args ~= "" and T.args or "saved"
    os.execute("mkdir -p '" .. target .. "'")
  end,

  filex_monitor = {
    onfile_http = function(engine, timestamp, flow, path)
      T.async:copy(path, target .. "/" .. path:match("[^/]+$"))
    end,
  },
}
