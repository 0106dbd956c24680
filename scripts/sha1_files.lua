-- The SHA-1 of every file that crossed the wire, worked out off the fast path, printed as it comes back.
-- offpath run scripts/sha1_files.lua --capture demo/demo.pcap
TrisulPlugin = {
  id = { name = "sha1_files", description = "SHA-1 of every HTTP file" },

  filex_monitor = {
    onfile_http = function(engine, timestamp, flow, path, request, response, length, is_partial)
      if length == 0 then return end -- a 304, or the answer to a HEAD
      T.async:schedule({
        data = path,
        onexecute = function(file)
          local pipe = io.popen("sha1sum '" .. file .. "'")
          local sum = pipe:read("*a"):sub(1, 40)
          pipe:close()
          return sum
        end,
        onresult = function(_, _, sum)
          print(("%s %8d  %s"):format(sum, length, path:match("[^/]+$")))
        end,
      })
    end,
  },
}
