-- Input filters (spec 2.16): a script makes packets, which lie as records of a capture in memory of the host, or alerts.

local ffi = require "ffi"
local address = require "offpath.address"
local buffers = require "offpath.buffer"
local effects = require "offpath.effects"
local failure = require "offpath.failure"
local guids = require "offpath.guids"
local packets = require "offpath.packet"
local now = require("offpath.monotonic").now

local cast, copy = ffi.cast, ffi.copy
local error, floor, tonumber, tostring, type, xpcall = error, math.floor, tonumber, tostring, type, xpcall
local bytes_ptr_t, word_ptr_t = ffi.typeof("uint8_t *"), ffi.typeof("uint32_t *")

local M = {}

local RECORD, LONGEST = 16, 262144
local ENOUGH = 1048576       -- bytes of packets after which a batch ends
local MOST_LINKS = 256       -- changes of the link type in a batch
local MOST_ERRORS = 100      -- in a row, after which the script is at its end

---- alerts ------------------------------------------------------------------------------------------------------------

-- As text, also of numbers that FFI made; nil for what is none.
local function text(value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "cdata" then value = tonumber(value) end
  if type(value) ~= "number" then return nil end
  if value % 1 == 0 and value > -2 ^ 53 and value < 2 ^ 53 then return ("%.0f"):format(value) end
  return tostring(value)
end

local function integer(value)
  value = tonumber(value)
  if not value or value ~= value or value - value ~= 0 then return nil end
  return floor(value)
end

local function hex(bytes) return (bytes:gsub(".", function(byte) return ("%02X"):format(byte:byte()) end)) end

-- A readable address in key format, and the letter of its kind; nil when it is none.
local function key_of(readable)
  local number = address.dotted_to_number(readable)
  if number then
    return ("%02X.%02X.%02X.%02X"):format(floor(number / 2 ^ 24), number / 2 ^ 16 % 256, number / 256 % 256, number % 256), "A"
  end
  local bytes = address.v6_bytes(readable)
  if bytes then return hex(bytes), "B" end
end

-- The flow key of what an alert says of its ends, "" when it says nothing that makes one.
local function flow_of(alert)
  local source, target = text(alert.SourceIP), text(alert.DestIP)
  if not source or not target then return "" end
  local a, letter = key_of(source)
  local z, other = key_of(target)
  if not a or letter ~= other then return "" end
  local port_a, port_z = integer(alert.SourcePort) or 0, integer(alert.DestPort) or 0
  if port_a < 0 or port_a > 65535 then port_a = 0 end
  if port_z < 0 or port_z > 65535 then port_z = 0 end
  if port_a < port_z or port_a == port_z and a > z then a, port_a, z, port_z = z, port_z, a, port_a end
  local protocol = (integer(alert.Protocol) or 0) % 256
  return ("%02X%s:%s:p-%04X_%s:p-%04X"):format(protocol, letter, a, port_a, z, port_z)
end

-- Fields that go along with an alert as they are: name here, name in the record, what they are when absent.
local NUMBERS = {
  { "SensorID", "sensor_id" }, { "ProtocolFamily", "protocol_family" }, { "SigGenerator", "sig_generator" },
  { "SigRev", "sig_rev" }, { "EventID", "event_id" }, { "AcknowledgeFlag", "acknowledge_flag" }, { "Protocol", "protocol" },
}
local TEXTS = {
  { "SourceIP", "source_ip", "0.0.0.0" }, { "SourcePort", "source_port", "0" },
  { "DestIP", "dest_ip", "0.0.0.0" }, { "DestPort", "dest_port", "0" },
}

-- Name and value after the other, with a NUL behind each.
local function extra_of(alert, label)
  local parts = {}
  local function add(name, value)
    parts[#parts + 1], parts[#parts + 2] = name, (value:gsub("%z", ""))
  end
  for _, field in ipairs(NUMBERS) do add(field[2], ("%.0f"):format(integer(alert[field[1]]) or 0)) end
  for _, field in ipairs(TEXTS) do add(field[2], text(alert[field[1]]) or field[3]) end
  add("sig_label", label)
  return table.concat(parts, "\0") .. "\0"
end

-- Leaves an alert in the outbox; false when something is missing that it must have.
local function put_alert(context, alert)
  local group, seconds, key = text(alert.AlertGroupGUID), tonumber(alert.TimestampSecs), text(alert.SigIDKey)
  if not (group and seconds and key) then return false end
  local label = text(alert.SigIDLabel) or text(alert.SigIDKeyLabel) or ""
  group = guids.canonical(group) or group:upper()
  context.time = seconds + (tonumber(alert.TimestampUsecs) or 0) / 1e6
  if label ~= "" then context.put(effects.KEY_INFO, 4, group, key, "label", label) end
  context.put(effects.ALERT_EXTRA, 1, extra_of(alert, label))
  context.put(
    effects.ALERT, 8, context.time, group, flow_of(alert), key, text(alert.ClassificationKey) or "c-xx",
    integer(alert.Priority) or 1, text(alert.AlertDetails) or "", text(alert.AlertStatus) or "ALARM"
  )
  return true
end

---- packets -----------------------------------------------------------------------------------------------------------

-- Seconds and microseconds as two whole numbers; raises at the line of the script.
local function whole_time(method, seconds, micros)
  seconds, micros = tonumber(seconds), tonumber(micros or 0)
  if not (seconds and micros) then error(("packet:%s: the time must be given as numbers"):format(method), 3) end
  local total = floor(seconds) + floor(((seconds % 1) * 1e6 + micros) / 1e6)
  micros = floor((seconds % 1) * 1e6 + micros + 0.5) % 1e6
  if not (total >= 0 and total < 2 ^ 32) then error(("packet:%s: no time is %s"):format(method, tostring(seconds)), 3) end
  return total, micros
end

-- Makes what drives the filter: three functions. `memory` is the address of `room` bytes for packets.
function M.start(context, block, memory, room)
  memory = cast(bytes_ptr_t, memory)
  local used, links, errors, complained, told = 0, {}, 0, false, 0
  local packet = packets.new_view().packet
  local engine, step, step_alert = context.engine, block.step, block.step_alert

  local function set_time(time) context.time, told = time, time end

  -- Adds a packet: time, link type, and all of its bytes, as a string or a Buffer.
  function packet:set_packet(seconds, micros, link, bytes)
    local whole, fraction = whole_time("set_packet", seconds, micros)
    if buffers.is_buffer(bytes) then bytes = bytes:tostring() end
    link = tonumber(link)
    if not link or link < 0 or link > 65535 then error("packet:set_packet: the link type must be a number", 2) end
    if type(bytes) ~= "string" then error("packet:set_packet: the bytes must be a string", 2) end
    if #bytes > LONGEST then error(("packet:set_packet: %d bytes are no packet"):format(#bytes), 2) end
    if used + RECORD + #bytes > room then error("packet:set_packet: too many packets in one step", 2) end
    if links[#links - 1] ~= link then
      if #links >= 2 * MOST_LINKS then error("packet:set_packet: too many link types in one step", 2) end
      links[#links + 1], links[#links + 2] = link, used
    end
    local head = cast(word_ptr_t, memory + used)
    head[0], head[1], head[2], head[3] = whole, fraction, #bytes, #bytes
    copy(memory + used + RECORD, bytes, #bytes)
    used = used + RECORD + #bytes
    set_time(whole + fraction / 1e6)
  end

  -- The time of what the script tells the engine from here on.
  function packet:set_timestamp(seconds, micros)
    local whole, fraction = whole_time("set_timestamp", seconds, micros)
    set_time(whole + fraction / 1e6)
  end

  local function failed(hook, what)
    context.put(effects.ERROR, 3, hook, failure.parts(what))
    errors = errors + 1
    return errors < MOST_ERRORS
  end

  -- Calls step at most `limit` times, for about so many seconds. How many calls, whether to call again, and whether there are
  -- packets enough.
  local function run(limit, seconds)
    local calls, last = 0, now() + seconds
    while calls < limit and used < ENOUGH and #links < MOST_LINKS do
      calls = calls + 1
      local ok, more = xpcall(step, failure.handler, packet, engine)
      if not ok then
        more = failed("step", more)
      else
        errors = 0
      end
      if not more then return calls, false, true end
      if now() > last then break end
    end
    return calls, true, used >= ENOUGH or #links >= MOST_LINKS
  end

  -- Calls step_alert until there is no alert, and at most so many times. How many calls, and whether it may have more to say:
  -- false is the end of them.
  local function poll(limit)
    for calls = 1, limit do
      local ok, alert = xpcall(step_alert, failure.handler)
      if not ok then
        if not failed("step_alert", alert) then return calls, false end
      elseif alert == false then
        return calls, false
      elseif type(alert) ~= "table" then
        errors = 0
        return calls, true
      else
        errors = 0
        if put_alert(context, alert) then
          told = context.time
        elseif not complained then
          complained = true
          context.log("WARN", "inputfilter.step_alert: an alert needs AlertGroupGUID, TimestampSecs and SigIDKey; it is left out")
        end
      end
    end
    return limit, true
  end

  -- The packets since the last call: the time that the script is at, bytes used, then link type and first byte of each stretch.
  local function take()
    local bytes, stretches = used, links
    used, links = 0, {}
    return told, bytes, unpack(stretches)
  end

  return run, poll, take
end

return M
