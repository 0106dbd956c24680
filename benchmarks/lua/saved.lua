-- The filex_monitor of the benchmark `packets`: gets every file and does nothing with it.
TrisulPlugin = {
  id = { name = "files" },
  filex_monitor = { onfile_http = function() end },
}
