-- Comes and goes while others work: takes messages, and leaves with a task under way.

TrisulPlugin = {
  id = { name = "visitor", description = "Is loaded and unloaded" },
  onmessage = function() end,

  event_monitor = {
    topics = { "visit" },
    onevent = function()
      T.async:schedule({
        data = "0.001",
        onexecute = function(seconds) require("nap")(tonumber(seconds)) return "done" end,
        onresult = function() end,
      })
    end,
  },
}
