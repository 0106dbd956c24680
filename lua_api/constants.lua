-- T.K: numbers of log levels and of meter types (spec 4.2).
local M = {}

-- Most severe first.
M.loglevel = {
  EMERG = 0,
  FATAL = 1,
  ALERT = 2,
  CRIT = 3,
  ERROR = 4,
  WARN = 5,
  NOTICE = 6,
  INFO = 7,
  DEBUG = 8,
}

-- How the samples of a meter become its value in a window.
M.vartype = {
  COUNTER = 2,
  RATE_COUNTER = 4,
  GAUGE = 5,
  RUNNING_COUNTER = 8,
  AVERAGE = 9,
  DELTA_RATE_COUNTER = 10,
  MAXIMUM = 11,
  MINIMUM = 12,
}

-- The name under which some texts have it.
M.vartypes = M.vartype

return M
