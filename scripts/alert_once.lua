-- One alert of a signature in a window is enough; the last line of a window says how many were left out.
-- offpath run scripts/alert_once.lua scripts/alerts_from_log.lua --args scripts/alerts.log
local seen, left_out

TrisulPlugin = {
  id = { name = "Alert once", description = "Drops repeated alerts" },

  alert_monitor = {
    alert_name_match = { "IDS", "User Alerts" }, -- an instance for each group

    onbeginflush = function() seen, left_out = {}, 0 end,

    flushfilter = function(_, alert)
      if seen[alert:sigid()] then
        left_out = left_out + 1
        return false
      end
      seen[alert:sigid()] = true
      return true
    end,

    onendflush = function()
      if left_out > 0 then print(("%d repeated alerts left out"):format(left_out)) end
    end,
  },
}
