-- The `engine` object that hooks get (spec 3.1). It records effects in the outbox and answers from its context; it never
-- calls the host. Counters are summed in the state (counters.lua).

local counting = require("offpath.counters")
local effects = require("offpath.effects")
local key_of = require("offpath.flowid").key_of

local tonumber, tostring, type, floor = tonumber, tostring, type, math.floor

local M = {}

local FRONTEND = { frontend = true }

-- Which side may call what. All else that the object has is available on both.
M.sides = {
  update_counter_bytes = FRONTEND,
  add_flow_counter = FRONTEND,
  reset_flow_counter = FRONTEND,
  update_flow = FRONTEND,
  update_flow_raw = FRONTEND,
  new_flow_record = FRONTEND,
  set_flow_duration = FRONTEND,
  terminate_flow = FRONTEND,
  disable_reassembly = FRONTEND,
}

-- As lua_tolstring: strings and numbers are text, all else is nil.
local text, group_of = counting.text, counting.group_of

-- Makes the engine of one state. `context`: put, log(level, text), side, instanceid, probeid, time. `types` as in counters.lua.
function M.new(context, types)
  local put = context.put
  local engine, complained, given_up = {}, {}, {}
  local counters = counting.new(types, put)
  local add = counters.add

  -- A call that can't be recorded is logged once per method and ignored (spec 9.3 O5).
  local function complain(method, what)
    if complained[method] then return end
    complained[method] = true
    context.log("WARN", ("engine:%s: %s; the call is ignored, and so are later ones like it"):format(method, what))
  end

  -- True when every named argument is there.
  local function all(method, ...)
    for at = 1, select("#", ...), 2 do
      local name, value = select(at, ...)
      if value == nil then
        complain(method, ("'%s' is missing or of a wrong type"):format(name))
        return false
      end
    end
    return true
  end

  local function cannot_count(method, guid, key, meter, value)
    local number = tonumber(meter)
    if number and (number < 0 or number > counting.LAST_METER or floor(number) ~= number) then number = nil end
    return all(method, "guid", text(guid), "key", text(key), "meter", number, "value", tonumber(value))
      and complain(method, "'value' must be a finite number")
  end

  function engine:update_counter(guid, key, meter, value)
    if not add(guid, key, meter, value) then cannot_count("update_counter", guid, key, meter, value) end
  end

  function engine:update_counter_raw(guid, key, meter, value)
    if not add(guid, key, meter, value) then cannot_count("update_counter_raw", guid, key, meter, value) end
  end

  function engine:update_counter_bytes(guid, key, meter)
    local length = context.wire_length
    if not length then return complain("update_counter_bytes", "no packet is being processed") end
    if not add(guid, key, meter, length) then cannot_count("update_counter_bytes", guid, key, meter, length) end
  end

  function engine:update_key_info(guid, key, label, description)
    guid, key, label, description = group_of(guid), text(key), text(label), text(description)
    if not all("update_key_info", "guid", guid, "key", key, "label", label) then return end
    put(effects.KEY_INFO, 4, guid, key, "label", label)
    if description then put(effects.KEY_INFO, 4, guid, key, "description", description) end
  end

  function engine:set_key_attribute(guid, key, name, value)
    guid, key, name, value = group_of(guid), text(key), text(name), text(value)
    if not all("set_key_attribute", "guid", guid, "key", key, "attr_name", name, "attr_value", value) then return end
    put(effects.KEY_INFO, 4, guid, key, name, value)
  end

  local function alert(method, guid, flow, sigid, classification, priority, message, status)
    guid, sigid, priority, message = group_of(guid), text(sigid), tonumber(priority), text(message)
    if not all(method, "guid", guid, "sigid", sigid, "priority", priority, "message", message) then return end
    put(
      effects.ALERT, 8, context.time, guid, key_of(flow) or "", sigid, text(classification) or "", priority,
      message, text(status) or "ALARM"
    )
  end

  function engine:add_alert(guid, flow, sigid, priority, message)
    alert("add_alert", guid, flow, sigid, "", priority, message)
  end

  function engine:add_alert_full(guid, flow, sigid, classification, priority, message, status)
    alert("add_alert_full", guid, flow, sigid, classification, priority, message, status)
  end

  function engine:add_alert_ids(guid, flow, sigid, classification, priority, message)
    alert("add_alert_ids", guid, flow, sigid, classification, priority, message)
  end

  function engine:add_alert_tca(guid, tca_id, status, message)
    alert("add_alert_tca", guid, nil, tca_id, "", 1, message, status)
  end

  function engine:add_resource(guid, flow, uri, contents)
    guid, uri = group_of(guid), text(uri)
    if not all("add_resource", "guid", guid, "uri", uri) then return end
    put(effects.RESOURCE, 5, context.time, guid, key_of(flow) or "", uri, text(contents) or "")
  end

  local function flow_update(method, flow, name, value)
    flow = key_of(flow)
    if not all(method, "flowkey", flow, "value", value) then return end
    put(effects.FLOW_UPDATE, 4, context.time, flow, name, value)
  end

  function engine:tag_flow(flow, tag) flow_update("tag_flow", flow, "tag", text(tag)) end

  function engine:add_flow_attribute(flow, name, value)
    if not all("add_flow_attribute", "name", text(name)) then return end
    flow_update("add_flow_attribute", flow, "attribute:" .. text(name), text(value))
  end

  local function flow_meter(method, flow, meter, value)
    meter, value = tonumber(meter), tonumber(value)
    if not all(method, "meter", meter, "value", value) then return end
    if meter < 0 or meter > 7 or meter ~= floor(meter) then return complain(method, "'meter' must be 0 to 7") end
    flow_update(method, flow, ("meter:%d"):format(meter), tostring(value))
  end

  function engine:update_flow(flow, meter, value) flow_meter("update_flow", flow, meter, value) end

  function engine:update_flow_raw(flow, meter, value) flow_meter("update_flow_raw", flow, meter, value) end

  function engine:new_flow_record(flow, bytes_az, bytes_za, packets_az, packets_za)
    local a, z, pa, pz = tonumber(bytes_az), tonumber(bytes_za), tonumber(packets_az), tonumber(packets_za)
    if not all("new_flow_record", "bytes_az", a, "bytes_za", z, "packets_az", pa, "packets_za", pz) then return end
    flow_update("new_flow_record", flow, "record", ("%d %d %d %d"):format(a, z, pa, pz))
  end

  function engine:set_flow_duration(flow, seconds)
    seconds = tonumber(seconds)
    flow_update("set_flow_duration", flow, "duration", seconds and tostring(seconds))
  end

  function engine:terminate_flow(flow) flow_update("terminate_flow", flow, "terminate", "") end

  function engine:add_flow_counter(flow, guid, key, meter, direction)
    guid, key, meter, direction = group_of(guid), text(key), tonumber(meter), tonumber(direction) or 0
    flow = key_of(flow)
    if not all("add_flow_counter", "flowkey", flow, "guid", guid, "key", key, "meter", meter) then return end
    if not (meter >= 0 and meter <= counting.LAST_METER) then return complain("add_flow_counter", "'meter' must be a meter's number") end
    if direction ~= 1 and direction ~= 2 then direction = 0 end
    put(effects.FLOW_COUNTER, 7, context.time, context.place or -1, flow, guid, key, meter, direction)
  end

  function engine:reset_flow_counter(flow, guid, key, meter)
    flow, guid = key_of(flow), group_of(guid)
    if not all("reset_flow_counter", "flowkey", flow, "guid", guid) then return end
    put(effects.RESET_FLOW_COUNTER, 4, context.time, context.place or -1, flow, guid)
    if key ~= nil and meter ~= nil then engine:add_flow_counter(flow, guid, key, meter, 0) end
  end

  function engine:disable_reassembly(flow)
    flow = key_of(flow)
    if all("disable_reassembly", "flowkey", flow) then given_up[flow] = true end
  end

  -- One argument is a broadcast, two are an id and the message.
  local function post(method, side, first, second)
    local addressed = second ~= nil
    local id, message = "", text(first)
    if addressed then id, message = message, text(second) end
    if not all(method, "msgid", id, "message", message) then return end
    put(effects.MESSAGE, 4, side, addressed, id, message)
  end

  function engine:post_message_frontend(first, second) post("post_message_frontend", "frontend", first, second) end

  function engine:post_message_backend(first, second) post("post_message_backend", "backend", first, second) end

  function engine:add_edge(guid_a, key_a, guid_b, key_b)
    guid_a, key_a, guid_b, key_b = group_of(guid_a), text(key_a), group_of(guid_b), text(key_b)
    if not all("add_edge", "guid_a", guid_a, "key_a", key_a, "guid_b", guid_b, "key_b", key_b) then return end
    put(effects.EDGE, 4, guid_a, key_a, guid_b, key_b)
  end

  function engine:add_flow_edges(flow, guid, key)
    flow, guid, key = key_of(flow), group_of(guid), text(key)
    if not all("add_flow_edges", "flowkey", flow, "guid", guid, "key", key) then return end
    put(effects.FLOW_EDGES, 3, flow, guid, key)
  end

  function engine:timestamp() return floor(context.time) end

  function engine:instanceid() return context.instanceid end

  function engine:id() return context.instanceid end

  function engine:probeid() return context.probeid end

  for name, sides in pairs(M.sides) do
    if not sides[context.side] then
      engine[name] = function()
        error(("ERR_NOTAVAIL: %s() is not available for %s scripts"):format(name, context.side), 2)
      end
    end
  end

  -- Whether the script has given a flow up in this batch.
  function context.gave_up(flow) return given_up[flow] == true end

  -- A connection begins: what was said of an earlier one with the same key does not hold for it.
  function context.new_flow(flow) given_up[flow] = nil end

  -- Puts the flows that were given up in the batch into the outbox.
  local function flush()
    for flow in pairs(given_up) do
      put(effects.DISABLE_REASSEMBLY, 1, flow)
      given_up[flow] = nil
    end
  end

  return setmetatable(engine, { __opaque = "the engine belongs to the hook, use it in onresult" }), flush, counters
end

return M
