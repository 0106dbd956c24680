-- Codes of the effects in an outbox. The host has the same table, with the number of values of each (effects.py).

return {
  ERROR = 1, -- hook, message, traceback
  COUNTERS = 2, -- group, keys, their lengths, updates of each, columns (counters.lua)
  KEY_INFO = 3, -- group, key, name, value
  ALERT = 4, -- time, group, flow, sigid, classification, priority, message, status
  RESOURCE = 5, -- time, group, flow, uri, contents
  FLOW_UPDATE = 6, -- time, flow, name, value
  EDGE = 7, -- from group, from key, to group, to key
  FLOW_EDGES = 8, -- flow, group, key
  MESSAGE = 9, -- side, addressed, id, text
  DISABLE_REASSEMBLY = 10, -- flow
  CODE = 11, -- code id, bytecode
  SCHEDULE = 12, -- task id, lease, wants, code id, upvalues, data, timeout
  FILE_OPERATION = 13, -- task id, lease, method, source, target, position
  REJECTED = 14, -- how many
  SCHEDULE_PACK = 15, -- first task id, how many, pack
  FLOW_COUNTER = 16, -- time, place of the packet in its batch or -1, flow, group, key, meter, direction
  RESET_FLOW_COUNTER = 17, -- time, place, flow, group
  ALERT_EXTRA = 18, -- names and values of the next alert with a NUL behind each
  BROADCAST = 19, -- id, class, text
  ANSWER = 20, -- number of a promise, whether it was resolved, the value as plain.lua writes it or a message
  CALL = 21, -- number of a promise, name of a function of the host, its arguments as plain.lua writes them
}
