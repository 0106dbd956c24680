-- File operations on numbered files, all called at once. T.args is the number of workers.

TrisulPlugin = {
  id = { name = "files", description = "Copies and appends files" },
  request_async_workers = tonumber(T.args),

  event_monitor = {
    topics = { "copy", "cat" },

    onevent = function(engine, timestamp, topic, wanted)
      for at = 1, wanted.count do
        local name = ("/%05d"):format(at)
        if topic == "copy" then
          T.async:copy(wanted.from .. name, wanted.to .. name)
        else
          T.async:cat(wanted.from .. name, wanted.to)
        end
      end
    end,
  },
}
