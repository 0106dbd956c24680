-- Votes on each key of a window, and looks at those that are kept.
local sum = 0

TrisulPlugin = {
  id = { name = "key monitor" },
  cg_monitor = {
    counter_guid = "{2E8DB3B1-9E2F-4CC5-A5D9-6F0F1E3F8A11}",
    onflushfilter = function(_, _, _, metrics) return metrics[1] >= 0 end,
    onflush = function(_, _, _, metrics) sum = sum + metrics[1] end,
  },
}
