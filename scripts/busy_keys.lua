-- An alert for each key of a counter group whose first meter is over a limit in a window; keys with nothing are not kept.
-- offpath run scripts/busy_keys.lua --capture FILE --args 1000000
local HOSTS, USER_ALERTS = "{4CD742B1-C1CA-4708-BE78-0FCA2EB01A86}", "{B5F1DECB-51D5-4395-B71B-6FA730B772D9}"
local TOTALS = "SYS:GROUP_TOTALS"
local limit

TrisulPlugin = {
  id = { name = "Busy keys", description = "Alerts for keys over a limit" },

  onload = function() limit = tonumber(T.args) or 1e6 end,

  cg_monitor = {
    counter_guid = HOSTS,

    onflushfilter = function(_, _, _, metrics)
      for _, value in ipairs(metrics) do
        if value ~= 0 then return true end
      end
      return false
    end,

    onflush = function(engine, _, key, metrics)
      if key ~= TOTALS and metrics[1] > limit then
        engine:add_alert(USER_ALERTS, nil, "BUSY", 2, ("%s: %.0f is over %.0f"):format(key, metrics[1], limit))
      end
    end,
  },
}
