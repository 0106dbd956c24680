-- The script is the source: every line of a log becomes an alert. A line is: epoch seconds, source, destination, priority, text.
-- offpath run scripts/alerts_from_log.lua --args scripts/alerts.log --records demo/alerts.jsonl
local IDS_ALERTS = "{9AFD8C08-07EB-47E0-BF05-28B4A7AE8DC9}"
local LINE = "^(%d+)%.?(%d*) (%S+):(%d+) (%S+):(%d+) (%d) (.+)$"

local log

TrisulPlugin = {
  id = { name = "alerts_from_log", description = "Turns a log file into alerts" },

  onload = function()
    log = io.open(T.args ~= "" and T.args or "scripts/alerts.log")
    if not log then
      T.logerror("cannot open the log: give it with --args")
      return false
    end
  end,

  onunload = function()
    if log then log:close() end
  end,

  inputfilter = {
    -- A table is an alert, nil means that there is none at the moment, and false that there will be no more.
    step_alert = function()
      for line in log:lines() do
        local seconds, micros, source, source_port, target, target_port, priority, text = line:match(LINE)
        if seconds then
          return {
            AlertGroupGUID = IDS_ALERTS,
            TimestampSecs = seconds,
            TimestampUsecs = (micros .. "000000"):sub(1, 6),
            SigIDKey = T.util.hash(text, 31),
            SigIDLabel = text,
            SourceIP = source,
            SourcePort = source_port,
            DestIP = target,
            DestPort = target_port,
            Protocol = 6,
            Priority = priority,
            AlertDetails = text,
          }
        end
        T.logwarning("not an alert: " .. line)
      end
      return false
    end,
  },
}
